"""Lists by slot that are mostly read: as they came, in columns, and as Python's lists where they changed since, which take several times as much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Entry = TypeVar("Entry")
NONE: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class Lists(ABC, Generic[Entry]):
    """A list of entries for each slot. The columns are a subclass's.

    Args:
        slots: of the columns' entries, int64 [E], ascending.

    Attributes:
        starts: where each slot's entries begin in the columns, and the end of the last.
        changed: lists that the columns no longer tell.
    """

    def __init__(self, slots: NDArray[np.int64]) -> None:
        starts = np.searchsorted(slots, np.arange(int(slots[-1]) + 2 if len(slots) else 1))
        self.starts = memoryview(starts)  # type: ignore[arg-type]  # an array is a buffer; single numbers are read quicker so
        self.changed: dict[int, list[Entry]] = {}

    @abstractmethod
    def part(self, begin: int, end: int) -> list[Entry]:
        """Some entries of the columns."""

    def bounds(self, slot: int) -> tuple[int, int]:
        """Begin and end of a slot's entries in the columns, equal for none; a slot that changed has others."""
        return (self.starts[slot], self.starts[slot + 1]) if 0 <= slot < len(self.starts) - 1 else (0, 0)

    def get(self, slot: int) -> list[Entry]:
        """The entries of a slot, to be read."""
        found = self.changed.get(slot)
        return self.part(*self.bounds(slot)) if found is None else found

    def own(self, slot: int) -> list[Entry]:
        """The list of a slot, to be changed."""
        found = self.changed.get(slot)
        if found is None:
            found = self.changed[slot] = self.part(*self.bounds(slot))
        return found

    def slots(self) -> list[int]:
        """Slots with entries, ascending."""
        return sorted({*np.flatnonzero(np.diff(np.asarray(self.starts))).tolist(), *self.changed})

    def items(self) -> Iterator[tuple[int, list[Entry]]]:
        """Slots, ascending, and their entries."""
        return ((slot, self.get(slot)) for slot in self.slots())


def in_order(slots: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Places of entries such that their slots ascend; those of one slot stay in their order."""
    return slice(None) if (slots[1:] >= slots[:-1]).all() else np.argsort(slots, kind="stable")
