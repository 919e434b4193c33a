"""Pairs that met, and their slots: a sorted array of eight bytes a pair, and dictionaries of those that are new, which take twenty times as much."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

SETTLED = 65_536
"""New pairs are sorted into the array when there are more than this, and more than half as many as it holds: by and by that is O(1) a pair."""
_SECOND = 0xFFFFFFFF


class Pairs:
    """Pairs numbered from 0 in the order in which they were first met; a pair is first · 2³² + second.

    A user's pairs lie together in the array, as a request asks for one user.
    """

    def __init__(self) -> None:
        self._put(np.empty(0, dtype=np.int64), None)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._later)

    @property
    def codes(self) -> NDArray[np.int64]:
        """All pairs in the order of their slots, int64 [pairs]."""
        found = np.empty(len(self), dtype=np.int64)
        settled = len(self._sorted)
        found[slice(settled) if self._slots is None else self._slots] = self._sorted
        found[settled:] = self._later
        return found

    def add(self, codes: list[int]) -> list[int]:
        """Slots of codes; new ones get one."""
        found = []
        for code in codes:
            seconds = self._new.get(code >> 32)
            slot = None if seconds is None else seconds.get(code & _SECOND)
            if slot is None:
                slot = self._settled(code)
            if slot is None:
                slot = len(self)
                self._new.setdefault(code >> 32, {})[code & _SECOND] = slot
                self._later.append(code)
            found.append(slot)
        if len(self._later) > max(SETTLED, len(self._sorted) // 2):
            self._settle()
        return found

    def add_all(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for many codes at once, which must all be different, int64 [m]."""
        if not len(self) and (codes[1:] > codes[:-1]).all():  # as a bundle gives them
            self._put(np.array(codes, dtype=np.int64), None)
            return np.arange(len(codes))
        found = self.find(codes)
        new = np.flatnonzero(found < 0)
        found[new] = len(self) + np.arange(len(new))
        self._later.frombytes(np.ascontiguousarray(codes[new], dtype=np.int64).tobytes())
        self._settle()
        return found

    def find(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of codes, int64 [m]; -1 for those that were never met and for -1."""
        found = np.full(len(codes), -1, dtype=np.int64)
        if not len(codes):
            return found
        lowest, highest = int(codes.min()) >> 32, int(codes.max()) >> 32
        last = len(self._starts) - 1
        begin, end = self._starts[min(max(lowest, 0), last)], self._starts[min(highest + 1, last)]
        if end > begin:
            run = self._sorted[begin:end]
            place = np.minimum(np.searchsorted(run, codes), len(run) - 1)
            met = run[place] == codes
            places = place[met] + begin
            found[met] = places if self._slots is None else self._slots[places]
        if self._new:
            self._find_new(codes, found)
        return found

    def _find_new(self, codes: NDArray[np.int64], found: NDArray[np.int64]) -> None:
        missed = np.flatnonzero(found < 0)
        firsts = (codes[missed] >> 32).tolist()
        if all(first not in self._new for first in set(firsts)):
            return
        nothing: dict[int, int] = {}
        seconds = (codes[missed] & _SECOND).tolist()
        found[missed] = [self._new.get(first, nothing).get(second, -1) for first, second in zip(firsts, seconds, strict=True)]

    def _settled(self, code: int) -> int | None:
        """The slot of a pair of the array."""
        first = code >> 32
        if first >= len(self._starts) - 1:
            return None
        end = self._starts[first + 1]
        place = bisect_left(self._view, code, self._starts[first], end)
        if place == end or self._view[place] != code:
            return None
        return place if self._slots is None else int(self._slots[place])

    def _settle(self) -> None:
        """Sorts the new pairs into the array."""
        settled = len(self._sorted)
        later = np.frombuffer(self._later, dtype=np.int64)
        order = np.argsort(later, kind="stable")
        places = np.searchsorted(self._sorted, later[order])
        before = np.arange(settled) if self._slots is None else self._slots
        slots: NDArray[np.int64] = np.insert(before.astype(np.int64), places, order + settled)
        in_order = bool((slots[1:] > slots[:-1]).all())
        kept = slots.astype(np.int32) if len(slots) < 2**31 else slots
        self._put(np.insert(self._sorted, places, later[order]), None if in_order else kept)

    def _put(self, codes: NDArray[np.int64], slots: NDArray[np.int32] | NDArray[np.int64] | None) -> None:
        """Takes pairs in, sorted, with their slots (None: as they stand)."""
        self._sorted, self._slots, self._view = codes, slots, memoryview(codes)  # type: ignore[arg-type]  # numpy's arrays are buffers
        firsts = np.arange((int(codes[-1]) >> 32) + 2 if len(codes) else 1)
        self._starts = memoryview(np.searchsorted(codes, firsts << 32))  # type: ignore[arg-type]
        self._later = array("q")
        self._new: dict[int, dict[int, int]] = {}
