"""An array that grows by doubling; a slot that was never written, or -1, holds its empty value."""

from __future__ import annotations

from pathlib import Path
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


class Mapped(Grown):
    """Rows of which those in a file stay there until they are written anew: processes that read the same file share its memory.

    Args:
        empty: as in `Grown`. dtype: of what is read; the file's may be another. file: of an array [slots, width]; it must not be written to.
    """

    def __init__(self, empty: float, dtype: Any, file: Path) -> None:
        self._file: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        super().__init__(empty, dtype, self._file.shape[1])
        self._rows, self._written = Grown(-1, np.int32), 0

    @property
    def filed(self) -> int:
        """Rows of the file."""
        return len(self._file)

    def read(self, slots: NDArray[np.int64]) -> NDArray[Any]:
        """As `Grown.read`."""
        held = len(self._file)
        if held:
            found = self._file.take(slots, axis=0, mode="clip").astype(self.dtype, copy=False)
            outside = slots.view(np.uint64) >= held  # -1 among them
            if outside.any():
                found[outside] = self.empty
        else:
            found = np.full((*slots.shape, self.width), self.empty, dtype=self.dtype)
        if self._written:
            rows = self._rows.read(slots)
            found[rows >= 0] = self.values[rows[rows >= 0]]
        return found

    def put(self, slots: NDArray[np.int64] | int, values: ArrayLike) -> None:
        """As `Grown.put`."""
        slots = np.atleast_1d(slots)
        new = np.unique(slots[self._rows.read(slots) < 0])
        self._rows.put(new, np.arange(self._written, self._written + len(new)))
        self._written += len(new)
        super().put(self._rows.read(slots).astype(np.int64), values)

    def first(self, slots: int) -> NDArray[Any]:
        """As `Grown.first`."""
        return self.read(np.arange(slots))

    def copy(self) -> Grown:
        """A copy that can be written alone; it holds all rows itself."""
        other = Grown(self.empty, self.dtype, self.width)
        slots = max(len(self._file), len(self._rows.values) - 1)
        other.put(np.arange(slots), self.first(slots))
        return other
