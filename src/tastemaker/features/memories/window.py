"""How many events in the last seconds, exactly."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.lists import NONE, Lists
from tastemaker.features.memories.memory import SLOT, Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.runs import Bounds
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

NEVER = np.empty(0)
FEW = 64
"""With fewer questions than one for so many times, each is answered by itself: laying out all times takes longer, and a request asks for 200 items."""


class Times(Lists[float]):
    """Content: times by slot, ascending, as far back as the window reaches from the latest.

    Args:
        slots: of the times, int64 [E], ascending. times: float64 [E].
    """

    def __init__(self, slots: NDArray[np.int64] = NONE, times: NDArray[np.float64] = NEVER) -> None:
        super().__init__(slots)
        self.times = times

    @classmethod
    def of(cls, slots: NDArray[np.int64], times: NDArray[np.float64], span: float) -> Times:
        """Times of slots in any order, [E] each; those that no window reaches any more are left out."""
        slots, times = _sorted(slots, times)
        ends = np.append(slots[1:] != slots[:-1], True)[: len(slots)]
        latest = times[np.flatnonzero(ends)][np.cumsum(ends) - ends]
        kept = np.isfinite(times) & (times >= latest - span)
        return cls(slots[kept], times[kept])

    def with_later(self, other: Times, span: float) -> Times | None:
        """These times and later ones, as far back as a window reaches from the latest; None where some of the others are earlier, or single events came."""
        (starts, lengths), (others, more) = (_laid(one, max(len(self.starts), len(other.starts)) - 1) for one in (self, other))
        both = np.flatnonzero((lengths > 0) & (more > 0))
        if self.changed or other.changed or (self.times[starts[both] + lengths[both] - 1] > other.times[others[both]]).any():
            return None
        reached = np.full(len(lengths), -np.inf)
        reached[both] = other.times[others[both] + more[both] - 1] - span
        kept = self.times >= np.repeat(reached, lengths)
        left = lengths.copy()
        left[both] = (
            np.add.reduceat(kept, starts[lengths > 0], dtype=np.int64)[(np.cumsum(lengths > 0) - 1)[both]] if len(both) else 0
        )
        later = np.repeat(np.tile([False, True], len(left)), np.stack([left, more], axis=1).ravel())
        found = Times()
        found.starts, found.times = memoryview(np.append(0, np.cumsum(left + more))), np.empty(len(later))  # type: ignore[arg-type]
        found.times[later], found.times[~later] = other.times, self.times[kept]
        return found

    @cached_property
    def laid(self) -> Bounds:
        """The times as they came, to be searched."""
        return Bounds(self.times, np.asarray(self.starts))

    def part(self, begin: int, end: int) -> list[float]:
        """Some of the times as they came."""
        found: list[float] = self.times[begin:end].tolist()
        return found

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All times, and the slot of each, by slot and ascending, [E] each."""
        lengths = np.diff(np.asarray(self.starts))
        slots = np.repeat(np.arange(len(lengths)), lengths)
        if not self.changed:
            return slots, self.times
        changed = np.fromiter(self.changed, dtype=np.int64, count=len(self.changed))
        lengths = np.array([len(own) for own in self.changed.values()])
        times = np.fromiter((time for own in self.changed.values() for time in own), dtype=np.float64, count=lengths.sum())
        rest = ~np.isin(slots, changed)
        return _sorted(np.append(slots[rest], np.repeat(changed, lengths)), np.append(self.times[rest], times))

    def some(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`all` of some slots, which are ascending."""
        if self.changed:
            slots, times = self.all()
            there = np.isin(slots, wanted)
            return slots[there], times[there]
        starts = np.asarray(self.starts)
        wanted = wanted[(wanted >= 0) & (wanted < len(starts) - 1)]
        begin, lengths = starts[wanted], starts[wanted + 1] - starts[wanted]
        rows = np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return np.repeat(wanted, lengths), self.times[rows]

    def count(self, slot: int, now: float, span: float) -> int:
        """Times of a slot in the span before a moment; one before the slot's latest time is answered as that."""
        own = self.changed.get(slot)
        times: Sequence[float] = memoryview(self.times) if own is None else own  # type: ignore[arg-type]  # an array is a buffer
        begin, end = self.bounds(slot) if own is None else (0, len(own))
        if begin == end:
            return 0
        now = max(now, times[end - 1])
        return bisect_left(times, now, begin, end) - bisect_left(times, now - span, begin, end)


@dataclass(frozen=True)
class Window:
    """Events with now - span ≤ time < now.

    Attributes:
        span: seconds.
    """

    key: Key
    which: Which = ALL
    span: float = 7 * 86_400.0

    step = 0.0

    def empty(self) -> Times:
        """No events."""
        return Times()

    def update(self, content: Times, slot: int, moment: Moment) -> None:
        """Adds a time and forgets those that no window can reach any more."""
        if moment.time == TIMELESS:
            return
        times = content.own(slot)
        if times and moment.time < times[-1]:
            insort(times, moment.time)
        else:
            times.append(moment.time)
        reached = times[-1] - self.span
        if times[0] < reached:
            del times[: bisect_left(times, reached)]

    def read(self, content: Times, slots: NDArray[np.int64], now: NDArray[np.float64]) -> NDArray[np.int64]:
        """Events in the windows before moments, int64 [m]."""
        if len(slots) * FEW <= len(content.times) or len(slots) <= FEW:
            asked = zip(slots.tolist(), now.tolist(), strict=True)
            return np.array([content.count(slot, moment, self.span) for slot, moment in asked], dtype=np.int64)
        told, starts = np.zeros(len(slots), dtype=np.int64), np.asarray(content.starts)
        reached = now - self.span <= content.times.max(initial=-np.inf)
        rows = np.flatnonzero((slots >= 0) & (slots < len(starts) - 1) & reached)
        rows = rows[starts[slots[rows]] < starts[slots[rows] + 1]]
        if len(rows):
            of = slots[rows]
            end, latest = starts[of + 1], content.times[starts[of + 1] - 1]
            moment, bounds = np.maximum(now[rows], latest), content.laid
            if (at_latest := np.flatnonzero(moment == latest)).size:
                end[at_latest] = bounds.lower(of[at_latest], moment[at_latest])
            told[rows] = end - bounds.lower(of, moment - self.span)
        if content.changed:
            for row, (slot, at) in enumerate(zip(slots.tolist(), now.tolist(), strict=True)):
                if slot in content.changed:
                    told[row] = content.count(slot, at, self.span)
        return told

    def as_of(self, asked: Asked, before: Times | None = None) -> NDArray[np.int64]:
        """Events in the windows before moments of the past, int64 [m]."""
        earlier = asked.since(asked.now - self.span)
        told = np.maximum(asked.end - np.maximum(earlier, asked.begin), 0)
        return told if before is None else told + self.read(before, asked.codes, asked.now)

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Times:
        """Times of a whole log."""
        return Times.of(slots[line.rows_of()], line.times, self.span)

    def joined(self, content: Times, other: Times) -> Times:
        """Times of both, as far back as the window reaches from the latest."""
        found = content.with_later(other, self.span)
        if found is not None:
            return found
        (slots, times), (also, later) = content.all(), other.all()
        return Times.of(np.append(slots, also), np.append(times, later), self.span)

    def pack(self, content: Times, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each time."""
        found, times = content.all() if slots is None else content.some(slots)
        return pl.DataFrame({SLOT: found, "time": times}, schema={SLOT: pl.Int64, "time": pl.Float64})

    def unpack(self, table: pl.DataFrame) -> Times:
        """Content of a table."""
        return Times(*_sorted(table[SLOT].to_numpy(), table["time"].to_numpy()))


def _sorted(slots: NDArray[np.int64], times: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times and the slot of each, by slot and ascending; two parts that are so already are merged."""
    if (slots[1:] < slots[:-1]).any():
        order = np.argsort(slots, kind="stable")
        slots, times = slots[order], times[order]
    if ((slots[1:] == slots[:-1]) & (times[1:] < times[:-1])).any():
        order = np.lexsort((times, slots))
        slots, times = slots[order], times[order]
    return slots, times


def _laid(one: Times, slots: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the times of each of so many slots begin, and how many they are, int64 [slots] each."""
    starts = np.asarray(one.starts)
    starts = np.append(starts, np.full(slots + 1 - len(starts), starts[-1]))
    return starts[:-1], np.diff(starts)
