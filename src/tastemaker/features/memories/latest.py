"""The latest events of a key, newest first, in the order of (time, event id, item id)."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

Entry = tuple[float, str, str, int]
"""Time, event id, item id, item slot."""
SCHEMA = {"slot": pl.Int64, "time": pl.Float64, "event_id": pl.String, "item_id": pl.String, "item": pl.Int64}


class Past:
    """Content: entries by slot, ascending: `length` at the latest time and `length` before it.

    What came from a table rests in its columns until an event of its slot comes: a fifth of the memory, as most users of a day do nothing.

    Args:
        table: rows of `SCHEMA`, those of a slot together and ascending; None: no events.
    """

    def __init__(self, table: pl.DataFrame | None = None) -> None:
        self._table = pl.DataFrame(schema=SCHEMA) if table is None else table
        slots = self._table["slot"].to_numpy()
        begins = np.flatnonzero(np.diff(slots, prepend=-1))
        self._begin = np.full(int(slots.max(initial=-1)) + 1, -1, dtype=np.int64)
        self._end = self._begin.copy()
        self._begin[slots[begins]] = begins
        self._end[slots[begins]] = np.append(begins[1:], len(slots))
        self._awake: dict[int, list[Entry]] = {}
        self._columns = [self._table[name] for name in ("time", "event_id", "item_id", "item")]

    def get(self, slot: int) -> list[Entry]:
        """Entries of a slot, not to be written to."""
        found = self._awake.get(slot)
        return self._resting(slot) if found is None else found

    def own(self, slot: int) -> list[Entry]:
        """Entries of a slot, to be written to."""
        found = self._awake.get(slot)
        if found is None:
            found = self._awake[slot] = self._resting(slot)
            if slot < len(self._begin):
                self._begin[slot] = -1
        return found

    def _resting(self, slot: int) -> list[Entry]:
        if not 0 <= slot < len(self._begin) or self._begin[slot] < 0:
            return []
        begin = int(self._begin[slot])
        count = int(self._end[slot]) - begin
        return list(zip(*(column.slice(begin, count).to_list() for column in self._columns), strict=True))

    def copy(self) -> Past:
        """A copy that can be written alone."""
        other = Past()
        other._table, other._columns, other._begin, other._end = self._table, self._columns, self._begin.copy(), self._end
        other._awake = {slot: list(past) for slot, past in self._awake.items()}
        return other

    def table(self) -> pl.DataFrame:
        """One row for each entry: those that rest first."""
        begins = np.flatnonzero(self._begin >= 0)
        rests = self._table
        if len(begins) < rests["slot"].n_unique():
            rests = rests.filter(pl.col("slot").is_in(pl.Series(begins, dtype=pl.Int64).implode()))
        rows = [(slot, *entry) for slot, past in self._awake.items() for entry in past]
        return rests.vstack(pl.DataFrame(rows, schema=SCHEMA, orient="row")) if rows else rests


class Seen(NamedTuple):
    """Latest events, newest first.

    Attributes:
        items: item slots, int64 [m, length]; -1 beyond the first event.
        times: epoch seconds, float64 [m, length]; `TIMELESS` there, and for events without a time.
    """

    items: NDArray[np.int64]
    times: NDArray[np.float64]


@dataclass(frozen=True)
class Latest:
    """The latest events before a moment.

    Attributes:
        length: events told of each key.
    """

    key: Key
    which: Which = ALL
    length: int = 20

    step = 0.0

    def empty(self) -> Past:
        """No events."""
        return Past()

    def update(self, content: Past, slot: int, moment: Moment) -> None:
        """Puts an event at its place in time and forgets what is older than can be told."""
        past = content.own(slot)
        entry = (moment.time, moment.event_id, moment.item_id, moment.item)
        if past and entry < past[-1]:
            insort(past, entry)
        else:
            past.append(entry)
        if len(past) > self.length:
            before = bisect_left(past, (past[-1][0],))
            del past[before : max(before, len(past) - self.length)]
            del past[: max(before - self.length, 0)]

    def read(self, content: Past, slots: NDArray[np.int64], now: NDArray[np.float64]) -> Seen:
        """Latest events before moments."""
        if len(slots) > 1 and (slots == slots[0]).all() and (now == now[0]).all():
            one = self.read(content, slots[:1], now[:1])
            return Seen(np.repeat(one.items, len(slots), axis=0), np.repeat(one.times, len(slots), axis=0))
        items = np.full((len(slots), self.length), -1, dtype=np.int64)
        times = np.full((len(slots), self.length), TIMELESS)
        for row, (slot, moment) in enumerate(zip(slots.tolist(), now.tolist(), strict=True)):
            past = content.get(slot)
            if not past:
                continue
            end = len(past) if moment > past[-1][0] else bisect_left(past, (past[-1][0],))
            told = past[max(end - self.length, 0) : end][::-1]
            items[row, : len(told)] = [entry[3] for entry in told]
            times[row, : len(told)] = [entry[0] for entry in told]
        return Seen(items, times)

    def as_of(self, asked: Asked, before: Past | None = None) -> Seen:
        """Latest events before moments of the past."""
        own = self._as_of(asked)
        if before is None:
            return own
        earlier = self.read(before, asked.codes, asked.now)
        items, times = (np.concatenate(pair, axis=1) for pair in zip(own, earlier, strict=True))
        place = np.argsort(items < 0, axis=1, kind="stable")[:, : self.length]
        return Seen(np.take_along_axis(items, place, axis=1), np.take_along_axis(times, place, axis=1))

    def _as_of(self, asked: Asked) -> Seen:
        place = asked.end[:, None] - 1 - np.arange(self.length)
        seen = place >= asked.begin[:, None]
        if not len(asked.line.times):
            return Seen(np.full(place.shape, -1, dtype=np.int64), np.full(place.shape, TIMELESS))
        place = np.maximum(place, 0)
        return Seen(np.where(seen, asked.line.item[place], -1), np.where(seen, asked.line.times[place], TIMELESS))

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Past:
        """Latest events of a whole log."""
        end, here = line.starts[1:], line.before_last()
        row, place = line.rows_of(), np.arange(len(line.times))
        stop = np.where(place >= here[row], end[row], here[row]) if len(slots) else place
        kept = np.flatnonzero(stop - place <= self.length)
        kept = kept[np.argsort(slots[row[kept]], kind="stable")]
        names = ids[line.source[kept]]
        columns = (slots[row[kept]], line.times[kept], names["event_id"], names["item_id"], line.item[kept])
        return Past(pl.DataFrame(dict(zip(SCHEMA, columns, strict=True)), schema=SCHEMA))

    def joined(self, content: Past, other: Past) -> Past:
        """Latest events of both."""
        found = content.copy()
        for slot, *entry in other.table().iter_rows():
            time, event_id, item_id, item = entry
            self.update(found, slot, Moment(time, item, np.nan, event_id, item_id))
        return found

    def pack(self, content: Past, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each event."""
        if slots is None:
            return content.table()
        rows = [(slot, *entry) for slot in slots.tolist() for entry in content.get(slot)]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def unpack(self, table: pl.DataFrame) -> Past:
        """Content of a table."""
        return Past(table.rechunk())
