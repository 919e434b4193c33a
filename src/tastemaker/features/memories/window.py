"""How many events in the last seconds, exactly."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

Times = dict[int, list[float]]
"""Content: times by slot, ascending, as far back as the window reaches from the latest."""


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
        return {}

    def update(self, content: Times, slot: int, moment: Moment) -> None:
        """Adds a time and forgets those that no window can reach any more."""
        if moment.time == TIMELESS:
            return
        times = content.setdefault(slot, [])
        if times and moment.time < times[-1]:
            insort(times, moment.time)
        else:
            times.append(moment.time)
        reached = times[-1] - self.span
        if times[0] < reached:
            del times[: bisect_left(times, reached)]

    def read(self, content: Times, slots: NDArray[np.int64], now: NDArray[np.float64]) -> NDArray[np.int64]:
        """Events in the windows before moments, int64 [m]."""
        if not content:
            return np.zeros(len(slots), dtype=np.int64)
        counts = []
        for slot, moment in zip(slots.tolist(), now.tolist(), strict=True):
            times = content.get(slot)
            if times is None:
                counts.append(0)
            else:
                moment = max(moment, times[-1])
                counts.append(bisect_left(times, moment) - bisect_left(times, moment - self.span))
        return np.array(counts, dtype=np.int64)

    def as_of(self, asked: Asked, before: Times | None = None) -> NDArray[np.int64]:
        """Events in the windows before moments of the past, int64 [m]."""
        earlier = asked.line.end(asked.dense, asked.now - self.span, "left")
        told = np.maximum(asked.end - np.maximum(earlier, asked.begin), 0)
        return told if before is None else told + self.read(before, asked.codes, asked.now)

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Times:
        """Times of a whole log."""
        if not len(slots):
            return {}
        reached = np.isfinite(line.times) & (line.times >= (line.last_times() - self.span)[line.rows_of()])
        counts = np.bincount(line.rows_of()[reached], minlength=len(slots))
        parts = np.split(line.times[reached], np.cumsum(counts)[:-1])
        return {slot: part.tolist() for slot, part in zip(slots.tolist(), parts, strict=True) if len(part)}

    def joined(self, content: Times, other: Times) -> Times:
        """Times of both, as far back as the window reaches from the latest."""
        found = dict(content)
        for slot, times in other.items():
            both = sorted([*found.get(slot, ()), *times])
            found[slot] = both[bisect_left(both, both[-1] - self.span) :]
        return found

    def pack(self, content: Times, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each time."""
        if slots is not None:
            content = {slot: content[slot] for slot in slots.tolist() if slot in content}
        rows = [slot for slot, times in content.items() for _ in times]
        times = [time for times in content.values() for time in times]
        return pl.DataFrame({"slot": rows, "time": times}, schema={"slot": pl.Int64, "time": pl.Float64})

    def unpack(self, table: pl.DataFrame) -> Times:
        """Content of a table."""
        grouped = table.group_by("slot", maintain_order=True).agg("time")
        return dict(zip(grouped["slot"].to_list(), grouped["time"].to_list(), strict=True))
