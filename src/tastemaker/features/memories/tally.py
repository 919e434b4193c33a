"""How many events ever, the sum of their values, the first and the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import UNITS, Asked, Timeline, boundary, floored
from tastemaker.features.which import ALL, Which


class Counted(NamedTuple):
    """What a tally tells, [m] each.

    Attributes:
        events: how many. valued: those with a value. total: sum of the values.
        first: time of the first event with a time, +inf for none. last: of the latest, `TIMELESS` for none.
    """

    events: NDArray[np.int64]
    valued: NDArray[np.int64]
    total: NDArray[np.float64]
    first: NDArray[np.float64]
    last: NDArray[np.float64]


class Tallies:
    """Content: whole numbers before and at the latest time, and times.

    Attributes:
        sums: int64 [slots, 6]: count, valued, units of value before the latest time; the same three at it.
        times: float64 [slots, 3]: the latest time, the latest before that, the first.
    """

    def __init__(self) -> None:
        self.sums = Grown(0, np.int64, 6)
        self.times = Grown(TIMELESS, np.float64, 3)


@dataclass(frozen=True)
class Tally:
    """Counts for ever. With a `step` of a day it is a daily snapshot: what is told was known at the last midnight (UTC)."""

    key: Key
    which: Which = ALL
    step: float = 0.0

    def empty(self) -> Tallies:
        """No events."""
        return Tallies()

    def update(self, content: Tallies, slot: int, moment: Moment) -> None:
        """Counts an event; a newer time settles what was counted at the latest one."""
        time = boundary(moment.time, self.step)
        content.sums.reach(slot + 1)
        content.times.reach(slot + 1)
        sums, times = content.sums.values[slot], content.times.values[slot]
        here = 0
        if time > times[0]:
            sums[:3] += sums[3:]
            sums[3:] = 0
            times[1], times[0] = times[0], time
            here = 3
        elif time == times[0]:
            here = 3
        else:
            times[1] = max(times[1], time)
        valued = not np.isnan(moment.value)
        sums[here : here + 3] += (1, valued, round(moment.value * UNITS) if valued else 0)
        if time > TIMELESS and (time < times[2] or times[2] == TIMELESS):
            times[2] = time

    def read(self, content: Tallies, slots: NDArray[np.int64], now: NDArray[np.float64]) -> Counted:
        """What is known at moments."""
        sums, times = content.sums.read(slots), content.times.read(slots)
        now = floored(now, self.step)
        later = now > times[:, 0]
        told = sums[:, :3] + sums[:, 3:] * later[:, None]
        first = np.where((times[:, 2] > TIMELESS) & (times[:, 2] < np.maximum(now, times[:, 0])), times[:, 2], np.inf)
        return Counted(told[:, 0], told[:, 1], told[:, 2] / UNITS, first, np.where(later, times[:, 0], times[:, 1]))

    def as_of(self, asked: Asked) -> Counted:
        """What was known at moments."""
        valued, total = asked.line.running()
        begin, end = asked.begin, np.maximum(asked.end, asked.begin)
        return Counted(
            end - begin,
            valued[end] - valued[begin],
            (total[end] - total[begin]) / UNITS,
            asked.earliest(),
            asked.latest(),
        )

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Tallies:
        """Counts of a whole log."""
        content = Tallies()
        if not len(slots):
            return content
        valued, total = line.running()
        last, begin, end = line.last_times(), line.starts[:-1], line.starts[1:]
        here = line.end(np.arange(len(slots)), last, "left")
        bounds = ((begin, here), (here, end))
        sums = [part for low, high in bounds for part in (high - low, valued[high] - valued[low], total[high] - total[low])]
        before = np.where(here > begin, line.times[here - 1], TIMELESS)
        asked = Asked(line, np.arange(len(slots)), last, begin, end)
        first = np.where(np.isinf(asked.earliest()), TIMELESS, asked.earliest())
        content.sums.put(slots, np.stack(sums, axis=1))
        content.times.put(slots, np.stack([last, before, first], axis=1))
        return content

    def pack(self, content: Tallies) -> pl.DataFrame:
        """One row for each slot."""
        slots = max(len(content.sums.values), len(content.times.values)) - 1
        sums, times = content.sums.first(slots), content.times.first(slots)
        return pl.DataFrame({f"sum{place}": sums[:, place] for place in range(6)} | {f"time{n}": times[:, n] for n in range(3)})

    def unpack(self, table: pl.DataFrame) -> Tallies:
        """Content of a table."""
        content, slots = Tallies(), np.arange(table.height)
        content.sums.put(slots, table.select(pl.col("^sum.$")).to_numpy())
        content.times.put(slots, table.select(pl.col("^time.$")).to_numpy())
        return content
