"""How many events in the last seconds, exactly."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.memory import SLOT, Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.runs import lower_bounds
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which


@dataclass
class Times:
    """Content: times by slot, ascending, as far back as the window reaches from the latest.

    Attributes:
        slots: int64 [K], ascending. starts: where the times of each begin, int64 [K + 1]. times: float64 [E].
        touched: all times of the slots that single events came to since, which count instead of those above.
    """

    slots: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    touched: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, slots: NDArray[np.int64], times: NDArray[np.float64], span: float) -> Times:
        """Times of slots, [E] each, by slot and ascending; those that no window reaches any more are left out."""
        begins = np.ones(len(slots), dtype=bool)
        begins[1:] = slots[1:] != slots[:-1]
        first = np.flatnonzero(begins)
        lengths = np.diff(np.append(first, len(slots)))
        latest = times[first + lengths - 1]
        kept = np.isfinite(times) & (times >= np.repeat(latest - span, lengths))
        counts = np.add.reduceat(kept, first, dtype=np.int64) if len(first) else lengths
        there = counts > 0
        return cls(slots[first[there]], np.append(0, np.cumsum(counts[there])), times[kept])

    def find(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of slots in `slots`, int64 [m]; -1 for those that are not there."""
        if not len(self.slots):
            return np.full(len(slots), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.slots, slots), len(self.slots) - 1)
        return np.where(self.slots[place] == slots, place, -1)

    def own(self, slot: int) -> list[float]:
        """The list of a slot, which may be changed."""
        if slot not in self.touched:
            place = int(self.find(np.array([slot]))[0])
            self.touched[slot] = [] if place < 0 else self.times[self.starts[place] : self.starts[place + 1]].tolist()
        return self.touched[slot]

    def all(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All times, and the slot of each, by slot and ascending, [E] each."""
        slots = np.repeat(self.slots, np.diff(self.starts))
        if not self.touched:
            return slots, self.times
        touched = np.fromiter(self.touched, dtype=np.int64, count=len(self.touched))
        lengths = [len(own) for own in self.touched.values()]
        times = np.fromiter((time for own in self.touched.values() for time in own), dtype=np.float64, count=sum(lengths))
        rest = ~np.isin(slots, touched)
        return _in_order(np.append(slots[rest], np.repeat(touched, lengths)), np.append(self.times[rest], times))

    def some(self, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """`all` of some slots, which are ascending."""
        if self.touched:
            slots, times = self.all()
            there = np.isin(slots, wanted)
            return slots[there], times[there]
        place = self.find(wanted)
        place = place[place >= 0]
        begin, lengths = self.starts[place], self.starts[place + 1] - self.starts[place]
        rows = np.repeat(begin - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return np.repeat(self.slots[place], lengths), self.times[rows]


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
        place = content.find(slots)
        told = np.zeros(len(slots), dtype=np.int64)
        there = np.flatnonzero(place >= 0)
        if len(there):
            of = place[there]
            end, latest = content.starts[of + 1], content.times[content.starts[of + 1] - 1]
            moment = np.maximum(now[there], latest)
            if (at_latest := np.flatnonzero(moment == latest)).size:
                end[at_latest] = lower_bounds(content.times, content.starts, of[at_latest], moment[at_latest])
            told[there] = end - lower_bounds(content.times, content.starts, of, moment - self.span)
        if content.touched:
            for row, (slot, asked) in enumerate(zip(slots.tolist(), now.tolist(), strict=True)):
                times = content.touched.get(slot)
                if times is not None:
                    at = max(asked, times[-1])
                    told[row] = bisect_left(times, at) - bisect_left(times, at - self.span)
        return told

    def as_of(self, asked: Asked, before: Times | None = None) -> NDArray[np.int64]:
        """Events in the windows before moments of the past, int64 [m]."""
        earlier = asked.since(asked.now - self.span)
        told = np.maximum(asked.end - np.maximum(earlier, asked.begin), 0)
        return told if before is None else told + self.read(before, asked.codes, asked.now)

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Times:
        """Times of a whole log."""
        return Times.of(*_in_order(slots[line.rows_of()], line.times), self.span)

    def joined(self, content: Times, other: Times) -> Times:
        """Times of both, as far back as the window reaches from the latest."""
        (slots, times), (also, later) = content.all(), other.all()
        return Times.of(*_in_order(np.append(slots, also), np.append(times, later)), self.span)

    def pack(self, content: Times, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each time."""
        found, times = content.all() if slots is None else content.some(slots)
        return pl.DataFrame({SLOT: found, "time": times}, schema={SLOT: pl.Int64, "time": pl.Float64})

    def unpack(self, table: pl.DataFrame) -> Times:
        """Content of a table."""
        return Times.of(*_in_order(table[SLOT].to_numpy(), table["time"].to_numpy()), self.span)


def _in_order(slots: NDArray[np.int64], times: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times and the slot of each, by slot and ascending; two parts that are so already are merged."""
    if (slots[1:] < slots[:-1]).any():
        order = np.argsort(slots, kind="stable")
        slots, times = slots[order], times[order]
    if ((slots[1:] == slots[:-1]) & (times[1:] < times[:-1])).any():
        order = np.lexsort((times, slots))
        slots, times = slots[order], times[order]
    return slots, times
