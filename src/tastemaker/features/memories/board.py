"""Where a key stands among all others: the share that had fewer events in the last whole days."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline, boundary, floored
from tastemaker.features.which import ALL, Which


@dataclass(frozen=True)
class Ranking:
    """How many keys have each count.

    Attributes:
        counts: distinct counts above 0, int64 [R], ascending. below: keys with a smaller count (and at least one event), [R + 1].
    """

    counts: NDArray[np.int64]
    below: NDArray[np.int64]

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Ranking:
        """The ranking of all keys' counts, of which zeros do not take part."""
        distinct, keys = np.unique(counts[counts > 0], return_counts=True)
        return cls(distinct, np.concatenate([np.zeros(1, np.int64), np.cumsum(keys)]))

    def share(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the keys that stand below a count, ties by half, in (0, 1); 0 for a count of 0."""
        low = self.below[np.searchsorted(self.counts, counts, side="left")]
        high = self.below[np.searchsorted(self.counts, counts, side="right")]
        return np.where(counts > 0, (low + high) / 2 / max(int(self.below[-1]), 1), 0.0)


@dataclass
class Days:
    """Content: events by slot, int64 [slots], for each day; and the last answer, for as long as its day lasts."""

    days: dict[float, Grown] = field(default_factory=dict)
    told: tuple[float, NDArray[np.int64], Ranking] | None = None


@dataclass(frozen=True)
class Board:
    """The standing over the last whole days. It changes at midnight (UTC) only: one sort a day, however many requests.

    Attributes:
        days: how many; step: seconds of a day.
    """

    key: Key
    which: Which = ALL
    days: int = 30
    step: float = 86_400.0

    def empty(self) -> Days:
        """No events."""
        return Days()

    def update(self, content: Days, slot: int, moment: Moment) -> None:
        """Counts an event in its day and forgets days that can't be told any more."""
        if moment.time == TIMELESS:
            return
        day = boundary(moment.time, self.step)
        latest = max(content.days, default=TIMELESS)
        if day < latest - self.days * self.step:
            return
        if day not in content.days:
            content.days[day] = Grown(0, np.int64)
        content.days[day].reach(slot + 1)
        content.days[day].values[slot] += 1
        if day > latest:
            for old in [old for old in content.days if old < day - self.days * self.step]:
                del content.days[old]
        if content.told is not None and (day > latest or day < content.told[0]):
            content.told = None

    def read(self, content: Days, slots: NDArray[np.int64], now: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares at moments, float64 [m]."""
        found = np.zeros(len(slots))
        latest = max(content.days, default=TIMELESS)
        days = np.maximum(floored(now, self.step), latest)
        for day in np.unique(days).tolist():
            counts, ranking = self._standing(content, day)
            asked = days == day
            found[asked] = ranking.share(counts[np.minimum(slots[asked], len(counts) - 1)])
        return found

    def as_of(self, asked: Asked, before: Days | None = None) -> NDArray[np.float64]:
        """Shares at moments of the past, float64 [m]."""
        earlier = asked.line.end(asked.dense, asked.now - self.days * self.step, "left")
        own = np.maximum(asked.end - np.maximum(earlier, asked.begin), 0)
        found = np.zeros(len(own))
        if not len(own):
            return found
        order = np.argsort(asked.now, kind="stable")
        days, starts = np.unique(asked.now[order], return_index=True)
        for day, part in zip(days.tolist(), np.split(order, starts[1:]), strict=True):
            counts = own[part]
            if before is not None:
                older = self._counts(before, day)
                counts = counts + older[np.minimum(asked.codes[part], len(older) - 1)]
            found[part] = self._ranking(asked.line, day, before).share(counts)
        return found

    def _ranking(self, line: Timeline, day: float, before: Days | None) -> Ranking:
        """The ranking at a midnight of the past."""
        name = ("board", self.days, day)
        if name in line.kept:
            known: Ranking = line.kept[name]
            return known
        if "by time" not in line.kept:
            order = np.argsort(line.times, kind="stable")
            line.kept["by time"] = line.times[order], line.rows_of()[order]
        times, rows = line.kept["by time"]
        low, high = np.searchsorted(times, [day - self.days * self.step, day])
        low = max(low, int(np.searchsorted(times, TIMELESS, side="right")))
        counts = np.bincount(rows[low : max(high, low)], minlength=len(line.codes))
        if before is not None:
            older = self._counts(before, day)
            whole = np.zeros(max(len(older), int(line.codes.max(initial=-1)) + 1), dtype=np.int64)
            whole[: len(older)] = older
            whole[line.codes] += counts
            counts = whole
        found = line.kept[name] = Ranking.of(counts)
        return found

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Days:
        """Days of a whole log."""
        content = Days()
        timed = np.isfinite(line.times)
        if not timed.any():
            return content
        latest = float(line.times[timed].max())
        kept = timed & (line.times >= latest - self.days * self.step)
        for day in np.unique(line.times[kept]).tolist():
            counts = np.bincount(line.rows_of()[kept & (line.times == day)], minlength=len(slots))
            content.days[day] = Grown(0, np.int64)
            content.days[day].put(slots, counts)
        return content

    def joined(self, content: Days, other: Days) -> Days:
        """Days of both."""
        found, latest = Days(), max([*content.days, *other.days], default=TIMELESS)
        for part in (content, other):
            for day, counts in part.days.items():
                if day >= latest - self.days * self.step:
                    whole = found.days.setdefault(day, Grown(0, np.int64))
                    whole.reach(len(counts.values) - 1)
                    whole.values[: len(counts.values) - 1] += counts.values[:-1]
        return found

    def pack(self, content: Days, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each day and key with events; of all keys, as each is told by the others."""
        schema = {"day": pl.Float64, "slot": pl.Int64, "count": pl.Int64}
        tables = [pl.DataFrame(schema=schema)]
        for day, counts in content.days.items():
            met = np.flatnonzero(counts.values)
            tables.append(pl.DataFrame({"day": np.full(len(met), day), "slot": met, "count": counts.values[met]}, schema=schema))
        return pl.concat(tables)

    def unpack(self, table: pl.DataFrame) -> Days:
        """Content of a table."""
        content = Days()
        for (day,), part in table.group_by("day"):
            content.days[float(day)] = Grown(0, np.int64)
            content.days[float(day)].put(part["slot"].to_numpy(), part["count"].to_numpy())
        return content

    def _standing(self, content: Days, day: float) -> tuple[NDArray[np.int64], Ranking]:
        """Counts by slot before a day, with an empty last row, and their ranking."""
        if content.told is None or content.told[0] != day:
            total = self._counts(content, day)
            content.told = day, total, Ranking.of(total)
        _, counts, ranking = content.told
        return counts, ranking

    def _counts(self, content: Days, day: float) -> NDArray[np.int64]:
        """Events by slot in the days before one, with an empty last row."""
        before = [counts.values for then, counts in content.days.items() if day - self.days * self.step <= then < day]
        total = np.zeros(max((len(values) for values in before), default=1), dtype=np.int64)
        for values in before:
            total[: len(values)] += values
        return total
