"""Sums of weights by item, of a few items out of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray, IntArray

Sum = tuple[NDArray[np.int64], FloatArray]
"""Items and their sums."""
_NONE = np.zeros(0, dtype=np.int64)


class Sums:
    """Sums by item, in a table that is cleared item by item."""

    def __init__(self) -> None:
        self._sum, self._last = np.zeros(0, np.float32), np.zeros(0, np.int32)

    def of(self, met: IntArray, weights: FloatArray, n_items: int) -> Sum:
        """Items with a sum, and the sums, in no order, of items that come as often as they have a weight."""
        if not len(met):
            return _NONE, self._sum[:0]
        if len(self._sum) < n_items:
            size = n_items * 3 // 2 + 16
            self._sum, self._last = np.zeros(size, np.float32), np.zeros(size, np.int32)
        np.add.at(self._sum, met, weights)
        numbers = np.arange(len(met), dtype=np.int32)
        self._last[met] = numbers
        items = met[self._last[met] == numbers].astype(np.int64)
        found = self._sum[items]
        self._sum[items] = 0.0
        return items, found

    def spread(self, found: Sum, items: NDArray[np.int64], into: FloatArray) -> None:
        """Writes the sums of some items, 0 for those that have none."""
        of, sums = found
        if len(of):
            self._sum[of] = sums
            into[:] = self._sum[items]
            self._sum[of] = 0.0
