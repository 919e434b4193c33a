"""An array that grows by doubling; a slot that was never written, or -1, holds its empty value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Grown:
    """Values by slot, [slots] or [slots, width].

    Args:
        empty: the value, or the row, of slots that were never written.
        dtype: of the values.
        width: columns of a row; 0 for a flat array.

    Attributes:
        values: the array with its spare end; its last row is always empty and never a slot, so that -1 reads it.
    """

    def __init__(self, empty: float | tuple[float, ...], dtype: Any = np.float64, width: int = 0) -> None:
        self.empty, self.dtype, self.width = empty, dtype, width
        self.values: NDArray[Any] = self._blank(1)

    def read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """Values of slots; the empty value for -1 and for slots beyond the end."""
        return self.values[np.minimum(slots, len(self.values) - 1)]

    def reach(self, slots: int) -> None:
        """Makes room for so many slots."""
        held = len(self.values) - 1
        if slots > held:
            old = self.values
            self.values = self._blank(max(slots, 2 * held, 8) + 1)
            self.values[:held] = old[:held]

    def put(self, slots: NDArray[np.int64] | int, values: ArrayLike) -> None:
        """Writes slots, which must not be negative."""
        self.reach(int(np.max(slots, initial=-1)) + 1)
        self.values[slots] = values

    def first(self, slots: int) -> NDArray[Any]:
        """The values of slots 0 … slots - 1."""
        self.reach(slots)
        return self.values[:slots]

    def copy(self) -> Grown:
        """A copy that can be written alone."""
        other = Grown(self.empty, self.dtype, self.width)
        other.values = self.values.copy()
        return other

    def _blank(self, rows: int) -> NDArray[Any]:
        return np.full((rows, self.width) if self.width else rows, self.empty, dtype=self.dtype)
