"""The rules of one list, ready to be used: filters compiled, fields and titles of the candidates read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        row = row_of(int(items[place]))
        mine = [push for push in pushes if push.test(row)]
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

    Args:
        items: item indices of the candidates, int32 [M].
        rules: of the list. row_of: fields of an item. vectors: by which near-duplicates are known, unit rows of item indices.
    """

    def __init__(self, items: IntArray, rules: Rules, row_of: RowOf, vectors: Callable[[IntArray], FloatArray]) -> None:
        count = len(items)
        self.rules, self.raised, self.doubles_allowed = rules, 0, False
        rows = [row_of(int(item)) for item in items] if rules.caps or rules.same_title else []
        self._excess: NDArray[np.int64] = np.full(count, -(2**40), dtype=np.int64)
        self._blocker: dict[int, str] = {}
        self._values: list[list[tuple[int, str]]] = [
            [(which, value) for which, cap in enumerate(rules.caps) for value in sorted(values_of(row, cap.field))] for row in rows
        ]
        self._holders: dict[tuple[int, str], list[int]] = {}
        for place, values in enumerate(self._values):
            for value in values:
                self._holders.setdefault(value, []).append(place)
        self._taken_of: dict[tuple[int, str], int] = {}
        self._double: BoolArray = np.zeros(count, dtype=bool)
        self._double_of: dict[int, tuple[str, int]] = {}
        self._titles = [plain_title(row.get("title")) for row in rows] if rules.same_title else []
        self._alike: dict[str, list[int]] = {}
        for place, title in enumerate(self._titles):
            if title:
                self._alike.setdefault(title, []).append(place)
        self._vectors = vectors(items) if rules.near_duplicates > 0 else None

    def take(self, place: int) -> None:
        """A candidate stands in the list now."""
        for value in self._values[place] if self._values else ():
            taken = self._taken_of.get(value, 0) + 1
            self._taken_of[value] = taken
            over = taken + 1 - self.rules.caps[value[0]].count
            for holder in self._holders[value]:
                if over > self._excess[holder]:
                    self._excess[holder] = over
                    cap = self.rules.caps[value[0]]
                    self._blocker[holder] = f"max_per {cap.field}: {taken} of {value[1]!r} stand above"
        for other in self._alike.get(self._titles[place], ()) if self._titles else ():
            self._mark(other, place, "same_title")
        if self._vectors is not None:
            near = self._vectors @ self._vectors[place] >= self.rules.near_duplicates
            for other in np.flatnonzero(near & ~self._double).tolist():
                self._mark(other, place, "near_duplicates")

    def free(self, left: BoolArray) -> BoolArray:
        """Which of the candidates `left` may be taken, bool [M]; at least one while one is left.

        Where none may, caps are raised for all values, by as much as is needed for one more item that is no double; then doubles are allowed.
        """
        single = left & ~self._double
        if not single.any() and left.any():
            self.doubles_allowed, single = True, left
        within = single & (self._excess <= self.raised)
        if not within.any() and single.any():
            self.raised = int(self._excess[single].min())
            within = single & (self._excess <= self.raised)
        return within

    def why(self, place: int) -> tuple[str, int | None] | None:
        """The rule that keeps a candidate out now, and the candidate that it doubles; None: no rule does."""
        if self._double[place]:
            return self._double_of[place]
        if self._excess[place] > self.raised:
            return self._blocker[place], None
        return None

    def notes(self) -> list[str]:
        """What gave way, in plain words."""
        found = []
        if self.raised > 0:
            caps = ", ".join(f"{cap.field} {cap.count} to {cap.count + self.raised}" for cap in self.rules.caps)
            found.append(f"max_per was raised ({caps}): too few other candidates.")
        if self.doubles_allowed:
            found.append("Doubles were let in: too few other candidates.")
        return found

    def _mark(self, other: int, place: int, rule: str) -> None:
        if other != place and not self._double[other]:
            self._double[other] = True
            self._double_of[other] = rule, place


def plain_title(title: Any) -> str:
    """A title without case, accents, punctuation and spaces; empty for none."""
    if not title:
        return ""
    letters = unicodedata.normalize("NFKD", str(title)).casefold()
    return "".join(letter for letter in letters if letter.isalnum())
