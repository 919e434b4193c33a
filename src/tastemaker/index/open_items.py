"""Which items queries may find, several at a time, and the choice of the best among these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.approximate import places_of
from tastemaker.schema.protocols import BoolArray, FloatArray

LANES = 16
"""Queries that are looked for in one piece."""
FEW_ALLOWED = 4
"""If at most the catalogue's size divided by this is allowed, what is allowed is listed."""
_BITS = np.uint16(1) << np.arange(LANES, dtype=np.uint16)


@dataclass(frozen=True)
class Open:
    """Which items some queries may find; within its `with` those that are away for each query are marked in a table, and left out.

    What is found is told as keys, a number of query (its lane) and item, so that the finds of all are sorted in one piece.

    Attributes:
        allowed: bool [N]; None: all. listed: the same as item indices, where they are few.
        table: of marks, a bit a lane, at least [N]. away: item indices that each query may not find besides, int64.
    """

    allowed: BoolArray | None
    listed: NDArray[np.int64] | None
    table: NDArray[np.uint16]
    away: Sequence[NDArray[np.int64]]

    def __enter__(self) -> Open:
        for bit, away in zip(_BITS, self.away, strict=False):
            self.table[away] |= bit
        return self

    def __exit__(self, *error: object) -> None:
        for away in self.away:
            self.table[away] = 0

    def wanted(self, depth: int) -> list[int]:
        """How many items each query has to ask for so that `depth` are left without those that are away."""
        return [depth + len(away) for away in self.away]

    def keys(self, lane: int, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Items of a query as keys."""
        found: NDArray[np.int64] = items + np.int64(lane * len(self.table))
        return found

    def free(self, lane: int, items: NDArray[np.integer]) -> BoolArray:
        """Which of them may be found."""
        keep: BoolArray = (self.table.take(items) & _BITS[lane]) == 0
        if self.allowed is not None:
            keep &= self.allowed[items]
        return keep

    def first(self, lane: int, items: NDArray[np.integer], depth: int) -> NDArray[np.int64]:
        """The first `depth` of some items that may be found, as keys."""
        return self.keys(lane, items[self.free(lane, items)][:depth])

    def largest(self, lane: int, items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
        """Of the items that may be found the `depth` with the largest values above zero, as keys; of equals the smaller indices."""
        keep = self.free(lane, items) & (values > 0)
        return self.keys(lane, largest(items[keep], values[keep], depth))

    def best(self, lane: int, values: FloatArray, depth: int) -> NDArray[np.int64]:
        """The `depth` items that may be found with the largest of all values, whatever they are, as keys."""
        items = np.arange(len(values)) if self.listed is None else self.listed
        items = items[self.free(lane, items)]
        return self.keys(lane, largest(items, values[items], depth))

    def union(self, parts: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items of all parts, each once a query, growing, [R], one query behind the other; where each begins, and R, [Q + 1]."""
        keys = np.concatenate(parts)
        keys.sort()
        first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        keys = keys[first]
        if len(self.away) == 1:
            return keys, np.array([0, len(keys)])
        starts = np.arange(len(self.away) + 1) * len(self.table)
        begin = np.searchsorted(keys, starts)
        return keys - np.repeat(starts[:-1], begin[1:] - begin[:-1]), begin


def opened(allowed: BoolArray) -> tuple[BoolArray | None, NDArray[np.int64] | None]:
    """What is allowed, None where everything is, and the same as item indices where they are few."""
    count = np.count_nonzero(allowed)
    if count == len(allowed):
        return None, None
    return allowed, places_of(allowed) if count * FEW_ALLOWED <= len(allowed) else None


def largest(items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
    """The `depth` items with the largest values, in no order; of equals the smaller indices."""
    if len(items) <= depth:
        return items
    bound = -np.partition(-values, depth - 1)[depth - 1]
    better, equal = items[values > bound], items[values == bound]
    return np.concatenate([better, np.sort(equal)[: depth - len(better)]])
