"""Events that fade: each weighs half after every half-life."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Moment, passed
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which


@dataclass(frozen=True)
class Faded:
    """The sum of 2^(-age / half_life) over all events with a time.

    Sums are carried from event to event and only ever multiplied by numbers ≤ 1 and added to: a span of any number of half-lives
    loses nothing, which differences of running sums would.

    Attributes:
        half_life: seconds.
    """

    key: Key
    which: Which = ALL
    half_life: float = 7 * 86_400.0

    step = 0.0

    def empty(self) -> Grown:
        """No events. By slot, float64 [slots, 3]: the sum before the latest time (as of it), the events at it, and that time."""
        return Grown((0.0, 0.0, TIMELESS), np.float64, 3)

    def update(self, content: Grown, slot: int, moment: Moment) -> None:
        """Adds an event; a late one enters with the weight that it has by now."""
        if moment.time == TIMELESS:
            return
        content.reach(slot + 1)
        row = content.values[slot]
        before, here, at = row.tolist()
        if moment.time > at:
            row[:] = (before + here) * 2.0 ** (-(moment.time - at) / self.half_life), 1.0, moment.time
        elif moment.time == at:
            row[1] = here + 1.0
        else:
            row[0] = before + 2.0 ** (-(at - moment.time) / self.half_life)

    def read(self, content: Grown, slots: NDArray[np.int64], now: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum at moments, float64 [m]."""
        before, here, at = content.read(slots).T
        found: NDArray[np.float64] = (before + here * (now > at)) * self._weight(passed(now, at))
        return found

    def as_of(self, asked: Asked) -> NDArray[np.float64]:
        """The sum at moments of the past, float64 [m]."""
        running, seen = self._running(asked.line), asked.end > asked.begin
        if not len(running):
            return np.zeros(len(seen))
        return np.where(seen, running[np.maximum(asked.end - 1, 0)], 0.0) * self._weight(passed(asked.now, asked.latest()))

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Grown:
        """Sums of a whole log."""
        content = self.empty()
        if not len(slots):
            return content
        last = line.last_times()
        here = line.end(np.arange(len(slots)), last, "left")
        asked = Asked(line, np.arange(len(slots)), last, line.starts[:-1], here)
        counted = np.where(np.isfinite(last), line.starts[1:] - here, 0)
        content.put(slots, np.stack([self.as_of(asked), counted, last], axis=1))
        return content

    def pack(self, content: Grown) -> pl.DataFrame:
        """One row for each slot."""
        return pl.DataFrame(content.first(len(content.values) - 1), schema=["before", "here", "at"])

    def unpack(self, table: pl.DataFrame) -> Grown:
        """Content of a table."""
        content = self.empty()
        content.put(np.arange(table.height), table.to_numpy())
        return content

    def _weight(self, age: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp2(-age / self.half_life)

    def _running(self, line: Timeline) -> NDArray[np.float64]:
        """The sum just after each event, float64 [E].

        s[i] = s[i-1] · d[i] + w[i] is solved for all i in log₂(longest run) passes of pairwise composition (Blelloch, Prefix sums and
        their applications, 1990); d is 0 where a key begins, so that keys never mix.
        """
        name = ("faded", self.half_life)
        if name in line.kept:
            found: NDArray[np.float64] = line.kept[name]
            return found
        timed = np.isfinite(line.times)
        total, keep = timed.astype(np.float64), np.zeros(len(timed))
        together = np.flatnonzero(timed[1:] & timed[:-1]) + 1
        passed_by = line.times[together] - line.times[together - 1]
        keep[together] = self._weight(np.maximum(passed_by, 0.0))  # below 0 only where a key begins
        keep[line.starts[:-1]] = 0.0
        reach, longest = 1, int(np.max(np.diff(line.starts), initial=0))
        while reach < longest:
            total[reach:] += keep[reach:] * total[:-reach]
            keep[reach:] *= keep[:-reach]
            reach *= 2
        line.kept[name] = total
        return total
