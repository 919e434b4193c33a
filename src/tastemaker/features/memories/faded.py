"""Events that fade: each weighs half after every half-life."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import SLOT, Moment, passed, slot_column, slots_of
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

BLOCK = 4.0
"""Half-lives whose events are added up at once."""


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

    def as_of(self, asked: Asked, before: Grown | None = None) -> NDArray[np.float64]:
        """The sum at moments of the past, float64 [m]."""
        running, seen = self._running(asked.line), asked.end > asked.begin
        if len(running):
            told = np.where(seen, running[np.maximum(asked.end - 1, 0)], 0.0) * self._weight(passed(asked.now, asked.latest()))
        else:
            told = np.zeros(len(seen))
        return told if before is None else told + self.read(before, asked.codes, asked.now)

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Grown:
        """Sums of a whole log."""
        content = self.empty()
        if not len(slots):
            return content
        last = line.last_times()
        here = line.before_last()
        asked = Asked(line, line.codes, np.arange(len(slots)), last, line.starts[:-1], here)
        counted = np.where(np.isfinite(last), line.starts[1:] - here, 0)
        content.put(slots, np.stack([self.as_of(asked), counted, last], axis=1))
        return content

    def joined(self, content: Grown, other: Grown) -> Grown:
        """Both sums as of the later of both times."""
        content.reach(len(other.values) - 1)
        slots = np.flatnonzero(other.values[:, 2] > TIMELESS)
        one, two = content.values[slots], other.values[slots]
        latest = np.maximum(one[:, 2], two[:, 2])
        sums, here = np.zeros(len(slots)), np.zeros(len(slots))
        for before, at, time in (one.T, two.T):
            now = time == latest
            sums += np.where(now, before, (before + at) * self._weight(passed(latest, time)))
            here += at * now
        content.values[slots] = np.stack([sums, here, latest], axis=1)
        return content

    def pack(self, content: Grown, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each slot."""
        rows = content.read(slot_column(len(content.values) - 1, slots))
        columns = {name: rows[:, place] for place, name in enumerate(("before", "here", "at"))}
        return pl.DataFrame(columns if slots is None else columns | {SLOT: slots})

    def unpack(self, table: pl.DataFrame) -> Grown:
        """Content of a table."""
        content = self.empty()
        content.put(slots_of(table), table.select("before", "here", "at").to_numpy())
        return content

    def _weight(self, age: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp2(-age / self.half_life)

    def _running(self, line: Timeline) -> NDArray[np.float64]:
        """The sum just after each event, float64 [E].

        Time is cut into blocks of `BLOCK` half-lives. In a block, weights as of its begin are within [1, 2^BLOCK), so that differences of running
        sums keep their digits; blocks of one key are put together by `_carried`, which only multiplies by numbers ≤ 1 and adds.
        """
        name = ("faded", self.half_life)
        if name in line.kept:
            found: NDArray[np.float64] = line.kept[name]
            return found
        timed = np.isfinite(line.times)
        if not timed.any():
            found = line.kept[name] = np.zeros(len(timed))
            return found
        age = np.where(timed, line.times, 0.0) * (1 / self.half_life)
        block = np.floor(age * (1 / BLOCK))
        block[~timed] = -np.inf
        fresh = np.ones(len(timed), dtype=bool)
        fresh[1:] = block[1:] != block[:-1]
        fresh[line.starts[:-1]] = True
        inside = np.where(timed, age - np.where(timed, block, 0.0) * BLOCK, 0.0)
        weight = np.where(timed, np.exp2(inside), 0.0)
        sums = np.cumsum(weight)
        first = np.flatnonzero(fresh)
        own = np.cumsum(fresh) - 1
        before = sums[first] - weight[first]
        total = np.append(before[1:], sums[-1]) - before
        keys = line.rows_of()[first]
        carried = _carried(total, block[first], keys)
        found = line.kept[name] = (sums - before[own] + carried[own]) * np.exp2(-inside)
        return found


def _carried(total: NDArray[np.float64], block: NDArray[np.float64], keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the earlier blocks of each key weigh at the begin of a block, float64 [blocks].

    s[i] = (s[i-1] + total[i-1]) · 2^(-BLOCK · blocks between) is solved for all i in log₂(longest run) passes of pairwise composition (Blelloch,
    Prefix sums and their applications, 1990); the factor is 0 where a key begins, so that keys never mix.
    """
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(begins)
    between = np.full(len(keys), np.inf)
    same = np.flatnonzero(~begins)
    between[same] = block[same] - block[same - 1]
    keep = np.exp2(-BLOCK * between)
    found = np.concatenate([[0.0], total[:-1]]) * keep
    reach, longest = 1, int(np.max(np.diff(np.append(starts, len(keys))), initial=0))
    while reach < longest:
        found[reach:] += keep[reach:] * found[:-reach]
        keep[reach:] *= keep[:-reach]
        reach *= 2
    return found
