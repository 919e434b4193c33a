"""How many events ever, the sum of their values, the first and the last of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import SLOT, Moment, moved, slot_column, slots_of
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import UNITS, Asked, Timeline, boundary, floored
from tastemaker.features.which import ALL, Which

COUNTS = ("events", "valued", "total", "first", "last")


class Counted:
    """What a tally tells, [m] each; a number that nobody reads is never computed.

    Args:
        tell: gives each of the five.
    """

    def __init__(self, **tell: Callable[[], NDArray[Any]]) -> None:
        self._tell = tell

    @cached_property
    def events(self) -> NDArray[np.int64]:
        """How many, int64."""
        return self._tell["events"]()

    @cached_property
    def valued(self) -> NDArray[np.int64]:
        """Those with a value, int64."""
        return self._tell["valued"]()

    @cached_property
    def total(self) -> NDArray[np.float64]:
        """Sum of the values, float64."""
        return self._tell["total"]()

    @cached_property
    def first(self) -> NDArray[np.float64]:
        """Time of the first event with a time, float64; +inf for none."""
        return self._tell["first"]()

    @cached_property
    def last(self) -> NDArray[np.float64]:
        """Time of the latest, float64; `TIMELESS` for none."""
        return self._tell["last"]()

    def moved(self, places: NDArray[np.int64]) -> Counted:
        """The same, put at places."""
        return Counted(**{name: lambda name=name: moved(getattr(self, name), places) for name in COUNTS})

    def and_of(self, other: Counted) -> Counted:
        """What both count together."""
        return Counted(
            events=lambda: self.events + other.events,
            valued=lambda: self.valued + other.valued,
            total=lambda: self.total + other.total,
            first=lambda: np.minimum(self.first, other.first),
            last=lambda: np.maximum(self.last, other.last),
        )


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
        row, times = content.sums.values[slot], content.times.values[slot]
        sums, (latest, second, first), here = row.tolist(), times.tolist(), 0
        if time > latest:
            sums = [before + at for before, at in zip(sums[:3], sums[3:], strict=True)] + [0, 0, 0]
            latest, second, here = time, latest, 3
        elif time == latest:
            here = 3
        else:
            second = max(second, time)
        sums[here] += 1
        if moment.value == moment.value:  # not NaN
            sums[here + 1] += 1
            sums[here + 2] += round(moment.value * UNITS)
        if time > TIMELESS and (time < first or first == TIMELESS):
            first = time
        row[:], times[:] = sums, (latest, second, first)

    def read(self, content: Tallies, slots: NDArray[np.int64], now: NDArray[np.float64]) -> Counted:
        """What is known at moments."""
        now = floored(now, self.step)
        sums, times = content.sums.values, content.times.values
        of_sums, of_times = (np.minimum(slots, len(values) - 1) for values in (sums, times))
        latest = times[of_times, 0]
        later = now > latest

        def told(place: int) -> NDArray[np.int64]:
            found: NDArray[np.int64] = sums[of_sums, place] + sums[of_sums, place + 3] * later
            return found

        def first() -> NDArray[np.float64]:
            earliest = times[of_times, 2]
            return np.where((earliest > TIMELESS) & (earliest < np.maximum(now, latest)), earliest, np.inf)

        return Counted(
            events=lambda: told(0),
            valued=lambda: told(1),
            total=lambda: told(2) / UNITS,
            first=first,
            last=lambda: np.where(later, latest, times[of_times, 1]),
        )

    def as_of(self, asked: Asked, before: Tallies | None = None) -> Counted:
        """What was known at moments."""
        begin, end = asked.begin, np.maximum(asked.end, asked.begin)

        def between(which: int) -> NDArray[np.int64]:
            sums = asked.line.running()[which]
            return sums[end] - sums[begin]

        told = Counted(
            events=lambda: end - begin,
            valued=lambda: between(0),
            total=lambda: between(1) / UNITS,
            first=asked.earliest,
            last=asked.latest,
        )
        return told if before is None else told.and_of(self.read(before, asked.codes, asked.now))

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Tallies:
        """Counts of a whole log."""
        content = Tallies()
        if not len(slots):
            return content
        valued, total = line.running()
        last, begin, end = line.last_times(), line.starts[:-1], line.starts[1:]
        here = line.before_last()
        bounds = ((begin, here), (here, end))
        sums = [part for low, high in bounds for part in (high - low, valued[high] - valued[low], total[high] - total[low])]
        before = np.where(here > begin, line.times[here - 1], TIMELESS)
        asked = Asked(line, line.codes, np.arange(len(slots)), last, begin, end)
        first = np.where(np.isinf(asked.earliest()), TIMELESS, asked.earliest())
        content.sums.put(slots, np.stack(sums, axis=1))
        content.times.put(slots, np.stack([last, before, first], axis=1))
        return content

    def joined(self, content: Tallies, other: Tallies) -> Tallies:
        """Counts of both: what one counted at its latest time is settled where the other's is later."""
        content.sums.reach(len(other.sums.values) - 1)
        content.times.reach(len(other.times.values) - 1)
        slots = np.flatnonzero(other.sums.values[:, 0] + other.sums.values[:, 3])
        one, two = (part.sums.values[slots] for part in (content, other))
        when, then = (part.times.values[slots] for part in (content, other))
        latest = np.maximum(when[:, 0], then[:, 0])
        here, there = (times[:, 0] == latest for times in (when, then))
        at = one[:, 3:] * here[:, None] + two[:, 3:] * there[:, None]
        before = one[:, :3] + one[:, 3:] + two[:, :3] + two[:, 3:] - at
        second = np.maximum(np.where(here, when[:, 1], when[:, 0]), np.where(there, then[:, 1], then[:, 0]))
        none = (when[:, 2] == TIMELESS) | (then[:, 2] == TIMELESS)
        first = np.where(none, np.maximum(when[:, 2], then[:, 2]), np.minimum(when[:, 2], then[:, 2]))
        content.sums.values[slots] = np.concatenate([before, at], axis=1)
        content.times.values[slots] = np.stack([latest, second, first], axis=1)
        return content

    def pack(self, content: Tallies, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each slot."""
        which = slot_column(max(len(content.sums.values), len(content.times.values)) - 1, slots)
        sums, times = content.sums.read(which), content.times.read(which)
        columns = {f"sum{place}": sums[:, place] for place in range(6)} | {f"time{n}": times[:, n] for n in range(3)}
        return pl.DataFrame(columns if slots is None else columns | {SLOT: slots})

    def unpack(self, table: pl.DataFrame) -> Tallies:
        """Content of a table."""
        content, slots = Tallies(), slots_of(table)
        for name, held in (("sum", content.sums), ("time", content.times)):
            held.reach(int(slots.max(initial=-1)) + 1)
            for place in range(held.width):  # column by column: a table of all of them would be as large as the content itself
                held.values[slots, place] = table[f"{name}{place}"].to_numpy()
        return content
