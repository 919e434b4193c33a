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

Past = dict[int, list[tuple[float, str, str, int]]]
"""Content: (time, event id, item id, item slot) by slot, ascending: `length` at the latest time and `length` before it."""
SCHEMA = {"slot": pl.Int64, "time": pl.Float64, "event_id": pl.String, "item_id": pl.String, "item": pl.Int64}


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
        return {}

    def update(self, content: Past, slot: int, moment: Moment) -> None:
        """Puts an event at its place in time and forgets what is older than can be told."""
        past = content.setdefault(slot, [])
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
            if past is None:
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
        if not len(slots):
            return {}
        end, here = line.starts[1:], line.before_last()
        row, place = line.rows_of(), np.arange(len(line.times))
        stop = np.where(place >= here[row], end[row], here[row])
        kept = np.flatnonzero(stop - place <= self.length)
        names = ids[line.source[kept]]
        entries = zip(
            slots[row[kept]].tolist(),
            line.times[kept].tolist(),
            names["event_id"].to_list(),
            names["item_id"].to_list(),
            line.item[kept].tolist(),
            strict=True,
        )
        content: Past = {}
        for slot, *entry in entries:
            content.setdefault(slot, []).append(tuple(entry))
        return content

    def joined(self, content: Past, other: Past) -> Past:
        """Latest events of both."""
        found = {slot: list(past) for slot, past in content.items()}
        for slot, past in other.items():
            for time, event_id, item_id, item in past:
                self.update(found, slot, Moment(time, item, np.nan, event_id, item_id))
        return found

    def pack(self, content: Past, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """One row for each event."""
        wanted = content if slots is None else slots.tolist()
        rows = [(slot, *entry) for slot in wanted for entry in content.get(slot, ())]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def unpack(self, table: pl.DataFrame) -> Past:
        """Content of a table."""
        content: Past = {}
        for slot, *entry in table.iter_rows():
            content.setdefault(slot, []).append(tuple(entry))
        return content
