"""A path through the graph in plain words: "shares the director Hayao Miyazaki with Spirited Away"."""

from __future__ import annotations

import re

from tastemaker.schema.graph import Hop, Path

_ROLES = {
    "directed": "director",
    "produced": "producer",
    "written": "writer",
    "edited": "editor",
    "composed": "composer",
    "performed": "performer",
    "created": "creator",
    "published": "publisher",
    "developed": "developer",
    "made": "maker",
    "designed": "designer",
    "manufactured": "manufacturer",
    "authored": "author",
}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def role(relation: str, forward: bool) -> str:
    """What the tail is to the head (forward), or the head to the tail: a noun.

    `film.film.director` names the tail and `film.director.film` the head: names of three parts and more are type of the head and
    property (Freebase). `directed_by`, `hasDirector` and `http://…/director` are read too.

    Args:
        relation: as imported. forward: whether the noun is wanted for the tail.
    """
    parts = [part for part in re.split(r"[/#.:]", relation) if part]
    if not parts:
        return "connection"
    last = parts[-1] if forward or len(parts) < 3 else parts[-2]
    words = _CAMEL.sub(" ", last).replace("_", " ").replace("-", " ").strip().lower()
    if words.endswith(" by") and words.split()[0] in _ROLES:
        return _ROLES[words.split()[0]]
    for beginning in ("has ", "is "):
        words = words.removeprefix(beginning)
    return words or "connection"


def connection(path: Path, near: str) -> str:
    """The sentence of a path; `near` is the title of the item of the history at its end."""
    hops = path.hops
    if len(hops) == 1:
        return _direct(hops[0], near)
    first, last = _of(hops[0]), role(hops[-1].relation, not hops[-1].forward)
    if len(hops) == 2 and first == last:
        return f"shares {_named(first, hops[0].label)} with {near}"
    if len(hops) == 2:
        return f"{_said(first, hops[0].label)} is also {last} of {near}"
    return f"{_said(first, hops[0].label)} and {_named(last, hops[1].label)} of {near} belong together ({role(hops[1].relation, True)})"


def _of(hop: Hop) -> str:
    """What the node that a hop leads to is to the node that it leaves."""
    return role(hop.relation, hop.forward)


def _direct(hop: Hop, near: str) -> str:
    word = role(hop.relation, True)
    return f"its {word} is {near}" if hop.forward else f"it is {word} of {near}"


def _named(word: str, label: str) -> str:
    if label:
        return f"the {word} {label}"
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"


def _said(word: str, label: str) -> str:
    return f"its {word} {label}" if label else f"its {word}"
