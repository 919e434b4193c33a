"""The rules of one list, ready to be used: filters compiled, fields and titles of the candidates read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.pipeline.filters import Test, compile_filter, values_of
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray
from tastemaker.schema.rules import Cap, DiversityBy, Shift

RowOf = Callable[[int], Mapping[str, Any]]
"""The fields of an item by its index."""


@dataclass(frozen=True)
class Push:
    """A boost or a burial.

    Attributes:
        name: what it is called in explanations. test: which items. places: how many, None all the way. up: whether it is a boost.
    """

    name: str
    test: Test
    places: int | None
    up: bool
    _known: dict[int, tuple[Mapping[str, Any], bool]] = field(default_factory=dict, repr=False, compare=False)

    def holds(self, item: int, row: Mapping[str, Any]) -> bool:
        """Whether an item with these fields is meant; remembered as long as it has the same fields, as those of the service are asked again and again."""
        known = self._known.get(item)
        if known is None or known[0] is not row:
            known = self._known[item] = row, self.test(row)
        return known[1]


@dataclass(frozen=True)
class Rules:
    """Everything besides relevance that one list obeys; the defaults change nothing.

    Attributes:
        diversity: in [0, 1]. diversity_by: `mmr` or `dpp`.
        pins: place (0 is the top) to item index.
        pushes: boosts and burials, in the order in which they are named.
        caps: at most so many of a value of a field.
        near_duplicates: cosine from which on an item doubles another; 0: none does.
        same_title: whether equal titles are doubles.
    """

    diversity: float = 0.0
    diversity_by: DiversityBy = "mmr"
    pins: Mapping[int, int] = field(default_factory=dict)
    pushes: tuple[Push, ...] = ()
    caps: tuple[Cap, ...] = ()
    near_duplicates: float = 0.0
    same_title: bool = False

    @property
    def neutral(self) -> bool:
        """Whether they change nothing."""
        return not (self.pins or self.pushes or self.diversity > 0 or self.guarded)

    @property
    def guarded(self) -> bool:
        """Whether some rule can keep a candidate out."""
        return bool(self.caps) or self.near_duplicates > 0 or self.same_title


def compile_pushes(boost: Sequence[Shift], bury: Sequence[Shift], whose: str = "") -> tuple[Push, ...]:
    """Boosts and burials with their filters compiled.

    Args:
        boost, bury: as they were sent. whose: a word before their names, such as `service `.

    Raises:
        InputError: a filter makes no sense; the message says which.
    """
    found = []
    for word, shifts, up in (("boost", boost, True), ("bury", bury, False)):
        for place, shift in enumerate(shifts):
            name = f"{whose}{word}[{place}]"
            try:
                found.append(Push(name, compile_filter(shift.filter), shift.places, up))
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    return tuple(found)


def joined_caps(service: Sequence[Cap], request: Sequence[Cap]) -> tuple[Cap, ...]:
    """The caps of a service and of a request; of one field that of the request stands, and of several the strictest."""
    own: dict[str, int] = {}
    for cap in request:
        own[cap.field] = min(cap.count, own.get(cap.field, cap.count))
    both: dict[str, int] = {}
    for cap in service:
        both[cap.field] = min(cap.count, both.get(cap.field, cap.count))
    return tuple(Cap(field=name, count=count) for name, count in (both | own).items())


def shifted(
    ranked: NDArray[np.int64], items: IntArray, pushes: Sequence[Push], row_of: RowOf
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Candidates in a new order: each stands as many places higher or lower as its boosts and burials sum up to.

    A boosted item passes what has the place that it goes to; a buried one goes behind it; equals keep their order. All the way up stands before
    all others, all the way down behind all others, and down wins over up.

    Args:
        ranked: places of the candidates, best first, int64 [M]. items: item indices of the candidates, int32 [M].

    Returns:
        The new order, and for each candidate that a push is for the names of its pushes.
    """
    key = np.arange(len(ranked), dtype=np.float64)
    names: dict[int, str] = {}
    for rank, place in enumerate(ranked.tolist()):
        item = int(items[place])
        row = row_of(item)
        mine = [push for push in pushes if push.holds(item, row)]
        if not mine:
            continue
        names[place] = " + ".join(push.name for push in mine)
        sums = sum((push.places or 0) * (-1 if push.up else 1) for push in mine)
        if any(push.places is None and not push.up for push in mine):
            key[rank] += 2 * len(ranked)
        elif any(push.places is None and push.up for push in mine):
            key[rank] -= 2 * len(ranked)
        elif sums:
            key[rank] += sums + (0.5 if sums > 0 else -0.5)
    return ranked[np.argsort(key, kind="stable")], names


class Guard:
    """Which candidates may still be taken, given what was taken: caps and doubles. When nothing is left it gives way, in a fixed order.

    Fields are read of the candidates that are asked about only, as most of them never come near the list.

    Args:
        items: item indices of the candidates, int32 [M].
        rules: of the list. row_of: fields of an item. vectors: by which near-duplicates are known, unit rows of item indices.
    """

    def __init__(self, items: IntArray, rules: Rules, row_of: RowOf, vectors: Callable[[IntArray], FloatArray]) -> None:
        self._items, self._rules, self._row_of = items, rules, row_of
        self._raised, self._doubles_allowed = 0, False
        self._blocked: BoolArray = np.zeros(len(items), dtype=bool)
        self._values: dict[int, list[tuple[Cap, str]]] = {}
        self._taken: dict[tuple[Cap, str], int] = {}
        self._titles: dict[str, int] = {}
        self._vectors = vectors(items) if rules.near_duplicates > 0 else None
        self._near: NDArray[np.int64] = np.full(len(items), -1, dtype=np.int64)

    def take(self, place: int) -> None:
        """A candidate stands in the list now."""
        for value in self._capped(place):
            self._taken[value] = self._taken.get(value, 0) + 1
        title = self._title(place)
        if title:
            self._titles.setdefault(title, place)
        if self._vectors is not None:
            near = self._vectors @ self._vectors[place] >= self._rules.near_duplicates
            self._near[near & (self._near < 0)] = place

    def best(self, ranked: NDArray[np.int64], worth: NDArray[np.float64], left: BoolArray) -> int:
        """The candidate that is worth most among those `left` (at least one is) that may be taken.

        Args:
            ranked: candidates, of equals the first wins. worth, left: by candidate, [M].
        """
        while True:
            value = np.where((left & ~self._blocked)[ranked], worth[ranked], -np.inf)
            at = int(np.argmax(value))
            while np.isfinite(value[at]):
                place = int(ranked[at])
                if self.why(place) is None:
                    return place
                self._blocked[place] = True  # what was taken stays, so this stays barred until a rule gives way
                value[at] = -np.inf
                at = int(np.argmax(value))
            self._give_way(left)

    def why(self, place: int) -> tuple[str, int | None] | None:
        """The rule that keeps a candidate out now, and the candidate that it doubles; None: no rule does."""
        double = self._double_of(place)
        if double is not None and not self._doubles_allowed:
            return double
        over, words = self._excess(place)
        return (words, None) if over > self._raised else None

    def notes(self) -> list[str]:
        """What gave way, in plain words."""
        found = []
        if self._raised > 0:
            caps = ", ".join(f"{cap.field} {cap.count} to {cap.count + self._raised}" for cap in self._rules.caps)
            found.append(f"max_per was raised ({caps}): too few other candidates.")
        if self._doubles_allowed:
            found.append("Doubles were let in: too few other candidates.")
        return found

    def _give_way(self, left: BoolArray) -> None:
        """Raises all caps by as much as is needed for one more item that is no double; where there is none, doubles are let in."""
        rest = np.flatnonzero(left).tolist()
        single = rest if self._doubles_allowed else [place for place in rest if self._double_of(place) is None]
        if not single:
            self._doubles_allowed, single = True, rest
        self._raised = max(self._raised, min(self._excess(place)[0] for place in single))
        self._blocked[:] = False

    def _excess(self, place: int) -> tuple[int, str]:
        """By how much taking a candidate would break the cap that it breaks most, and that cap in words; at most 0: none."""
        most, words = 0, ""
        for cap, value in self._capped(place):
            taken = self._taken.get((cap, value), 0)
            if taken + 1 - cap.count > most:
                most, words = taken + 1 - cap.count, f"max_per {cap.field}: {taken} of {value!r} stand in the list"
        return most, words

    def _double_of(self, place: int) -> tuple[str, int] | None:
        if self._near[place] >= 0:
            return "near_duplicates", int(self._near[place])
        first = self._titles.get(self._title(place), place)
        return None if first == place else ("same_title", first)

    def _capped(self, place: int) -> list[tuple[Cap, str]]:
        """The capped values that a candidate holds."""
        if place not in self._values:
            row = self._row_of(int(self._items[place])) if self._rules.caps else {}
            self._values[place] = [(cap, value) for cap in self._rules.caps for value in sorted(values_of(row, cap.field))]
        return self._values[place]

    def _title(self, place: int) -> str:
        return plain_title(str(self._row_of(int(self._items[place])).get("title") or "")) if self._rules.same_title else ""


@lru_cache(65_536)
def plain_title(title: str) -> str:
    """A title without case, accents, punctuation and spaces; empty for none."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", title).casefold() if letter.isalnum())
