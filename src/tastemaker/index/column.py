"""A number for each item: as the bundle holds it, memory-mapped, until an item is added; then a table that grows by doubling."""

from __future__ import annotations

import numpy as np

from tastemaker.schema.protocols import FloatArray


def grown(table: FloatArray, used: int, needed: int) -> FloatArray:
    """A table with room for `needed` rows, its first `used` ones kept: n appends that go through it cost O(n)."""
    if needed <= len(table):
        return table
    larger = np.zeros((max(needed + needed // 2, 16), *table.shape[1:]), dtype=np.float32)
    larger[:used] = table[:used]
    return larger


class Column:
    """Numbers by item index.

    Args:
        values: float32 [N], possibly memory-mapped; they are not written to.
    """

    def __init__(self, values: FloatArray) -> None:
        self._table, self._count = values, len(values)
        self._best: FloatArray | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> FloatArray:
        """All numbers, float32 [N]; valid until the next `append`."""
        return self._table[: self._count]

    def append(self, value: float) -> None:
        """Adds a number."""
        self._table = grown(self._table, self._count, self._count + 1)
        self._table[self._count] = value
        self._count += 1
