"""How many events in the last seconds, exactly."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.lists import NONE, Lists, in_order
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

NEVER = np.empty(0)


class Times(Lists[float]):
    """Content: times by slot, ascending, as far back as the window reaches from the latest.

    Args:
        slots: of the times, int64 [E], ascending. times: float64 [E].
    """

    def __init__(self, slots: NDArray[np.int64] = NONE, times: NDArray[np.float64] = NEVER) -> None:
        super().__init__(slots)
        self.times = memoryview(np.ascontiguousarray(times))  # type: ignore[arg-type]  # numpy's arrays are buffers

    def part(self, begin: int, end: int) -> list[float]:
        """Some of the times as they came."""
        found: list[float] = np.asarray(self.times[begin:end], dtype=np.float64).tolist()
        return found

    def counts(self, slots: list[int], moments: list[float], span: float) -> list[int]:
        """Times of slots in the span before moments, none of them before the slot's latest time."""
        changed, starts, last, found = self.changed, self.starts, len(self.starts) - 1, []
        for slot, moment in zip(slots, moments, strict=True):
            times: Sequence[float] | None = changed.get(slot)
            if times is not None:
                low, high = 0, len(times)
            else:
                times = self.times
                low, high = (starts[slot], starts[slot + 1]) if 0 <= slot < last else (0, 0)
            if low == high:
                found.append(0)
                continue
            moment = max(moment, times[high - 1])
            found.append(bisect_left(times, moment, low, high) - bisect_left(times, moment - span, low, high))
        return found


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
        return np.array(content.counts(slots.tolist(), now.tolist(), self.span), dtype=np.int64)

    def as_of(self, asked: Asked, before: Times | None = None) -> NDArray[np.int64]:
        """Events in the windows before moments of the past, int64 [m]."""
        earlier = asked.line.end(asked.dense, asked.now - self.span, "left")
        told = np.maximum(asked.end - np.maximum(earlier, asked.begin), 0)
        return told if before is None else told + self.read(before, asked.codes, asked.now)

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Times:
        """Times of a whole log."""
        if not len(slots):
            return Times()
        rows = line.rows_of()
        reached = np.isfinite(line.times) & (line.times >= (line.last_times() - self.span)[rows])
        of, times = slots[rows[reached]], line.times[reached]
        order = in_order(of)
        return Times(of[order], times[order])

    def joined(self, content: Times, other: Times) -> Times:
        """Times of both, as far back as the window reaches from the latest."""
        for slot, times in other.items():
            both = sorted([*content.get(slot), *times])
            content.changed[slot] = both[bisect_left(both, both[-1] - self.span) :]
        return content

    def pack(self, content: Times, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each time."""
        parts = [(slot, content.get(slot)) for slot in (content.slots() if slots is None else slots.tolist())]
        rows = np.repeat(np.array([slot for slot, _ in parts], dtype=np.int64), [len(times) for _, times in parts])
        times = [time for _, times in parts for time in times]
        return pl.DataFrame({"slot": rows, "time": times}, schema={"slot": pl.Int64, "time": pl.Float64})

    def unpack(self, table: pl.DataFrame) -> Times:
        """Content of a table."""
        slots = table["slot"].to_numpy()
        order = in_order(slots)
        return Times(slots[order], np.array(table["time"].to_numpy()[order]))
