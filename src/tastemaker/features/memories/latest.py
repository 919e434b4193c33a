"""The latest events of a key, newest first, in the order of (time, event id, item id)."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.memories.lists import NONE, Lists, in_order
from tastemaker.features.memories.memory import Moment
from tastemaker.features.rows import TIMELESS
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import ALL, Which

NEVER, NO_TEXTS = np.empty(0), pl.Series([], dtype=pl.String)
Entry = tuple[float, str, str, int]
"""Time, event id, item id, item slot."""
SCHEMA = {"slot": pl.Int64, "time": pl.Float64, "event_id": pl.String, "item_id": pl.String, "item": pl.Int64}


class Texts:
    """Texts one behind the other: a list of them takes three times as much."""

    def __init__(self, texts: pl.Series) -> None:
        self._bytes = texts.str.join("").item().encode()
        ends = np.append(0, np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64))
        self._ends = memoryview(ends.astype(np.uint32 if ends[-1] < 2**32 else np.int64))  # type: ignore[arg-type]  # an array is a buffer

    def part(self, begin: int, end: int) -> list[str]:
        """Some of them."""
        ends = self._ends[begin : end + 1].tolist()
        return [self._bytes[start:stop].decode() for start, stop in pairwise(ends)]


class Past(Lists[Entry]):
    """Content: entries by slot, ascending: `length` at the latest time and `length` before it.

    Args:
        slots: of the entries, int64 [E], ascending. times: float64 [E]. items: slots of items, int64 [E]. ids: `event_id` and `item_id`, [E].
    """

    def __init__(
        self,
        slots: NDArray[np.int64] = NONE,
        times: NDArray[np.float64] = NEVER,
        items: NDArray[np.int64] = NONE,
        ids: pl.DataFrame | None = None,
    ) -> None:
        super().__init__(slots)
        self.times, self.taken = times, items
        self._event_ids, self._item_ids = (Texts(NO_TEXTS if ids is None else ids[name]) for name in ("event_id", "item_id"))

    def part(self, begin: int, end: int) -> list[Entry]:
        """Some entries as they came."""
        events, items = (texts.part(begin, end) for texts in (self._event_ids, self._item_ids))
        return list(zip(self.times[begin:end].tolist(), events, items, self.taken[begin:end].tolist(), strict=True))

    def before(
        self, slot: int, moment: float, length: int
    ) -> tuple[list[int] | NDArray[np.int64], list[float] | NDArray[np.float64]]:
        """Items and times of a slot's latest entries before a moment, newest first."""
        past = self.changed.get(slot)
        if past is None:
            begin, end = self.bounds(slot)
            times = self.times[begin:end]
            if end > begin and moment <= times[-1]:
                end = begin + int(np.searchsorted(times, times[-1]))
            begin = max(end - length, begin)
            return self.taken[begin:end][::-1], self.times[begin:end][::-1]
        stop = len(past) if moment > past[-1][0] else bisect_left(past, (past[-1][0],))
        told = past[max(stop - length, 0) : stop][::-1]
        return [entry[3] for entry in told], [entry[0] for entry in told]


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
            told = content.before(slot, moment, self.length)
            items[row, : len(told[0])], times[row, : len(told[1])] = told
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
        if not len(slots):
            return Past()
        end, here = line.starts[1:], line.before_last()
        row, place = line.rows_of(), np.arange(len(line.times))
        stop = np.where(place >= here[row], end[row], here[row])
        kept = np.flatnonzero(stop - place <= self.length)
        return _of(slots[row[kept]], line.times[kept], line.item[kept], ids[line.source[kept]])

    def joined(self, content: Past, other: Past) -> Past:
        """Latest events of both."""
        for slot, past in other.items():
            for time, event_id, item_id, item in past:
                self.update(content, slot, Moment(time, item, np.nan, event_id, item_id))
        return content

    def pack(self, content: Past, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each event."""
        wanted = content.slots() if slots is None else slots.tolist()
        rows = [(slot, *entry) for slot in wanted for entry in content.get(slot)]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def unpack(self, table: pl.DataFrame) -> Past:
        """Content of a table."""
        slots, times, items = (table[name].to_numpy() for name in ("slot", "time", "item"))
        return _of(slots, times, items, table.select("event_id", "item_id"))


def _of(slots: NDArray[np.int64], times: NDArray[np.float64], items: NDArray[np.int64], ids: pl.DataFrame) -> Past:
    """The content of entries that ascend in each slot."""
    order = in_order(slots)
    if isinstance(order, slice):
        return Past(slots, times.copy(), items.copy(), ids)
    return Past(slots[order], times[order], items[order], ids[order])
