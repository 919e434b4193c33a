"""What a user did: how much, how long ago, and whether this very item was met before."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.base import FeatureQuery
from tastemaker.schema.columns import Columns
from tastemaker.schema.events import Event


@dataclass
class Past:
    """One user's events: how many ever, and the latest (item, epoch seconds or None), oldest first."""

    total: int = 0
    latest: deque[tuple[str, float | None]] = field(default_factory=deque)


@dataclass(frozen=True)
class UserHistory:
    """The latest events of every user, in the order in which they were appended.

    Attributes:
        length: events remembered of each user.
    """

    length: int = 200

    names = ("user_events", "user_recency", "item_met", "item_recency")
    reads = (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP)

    def remembers(self) -> dict[str, Past]:
        """Histories by user."""
        return {}

    def update(self, state: dict[str, Past], event: Event) -> None:
        """The event becomes the newest of its user; the oldest beyond `length` is forgotten."""
        past = state.setdefault(event.user_id, Past(latest=deque(maxlen=self.length)))
        past.total += 1
        past.latest.append((event.item_id, event.timestamp))

    def batch(self, events: pl.DataFrame) -> dict[str, Past]:
        """Histories of a whole table at once."""
        table = events.group_by(Columns.USER_ID).agg(
            pl.len().alias("total"), pl.col(Columns.ITEM_ID, Columns.TIMESTAMP).tail(self.length)
        )
        return {
            user: Past(total, deque(zip(items, times, strict=True), maxlen=self.length))
            for user, total, items, times in table.iter_rows()
        }

    def gives(self, state: dict[str, Past], query: FeatureQuery) -> NDArray[np.float32]:
        """log(1 + events), log(1 + seconds since the last one); then the same two for this user and this item.

        Recencies are NaN where nothing was met or no time is known.
        """
        found = np.zeros((len(query.item_ids), 4), dtype=np.float32)
        found[:, [1, 3]] = np.nan
        past = state.get(query.user_id)
        if past is None:
            return found
        met: dict[str, list[float | None]] = {}
        for item_id, time in past.latest:
            met.setdefault(item_id, []).append(time)
        found[:, 0] = np.log1p(past.total)
        found[:, 1] = _recency(past.latest[-1][1], query.now)
        for place, item_id in enumerate(query.item_ids):
            if item_id in met:
                found[place, 2:] = np.log1p(len(met[item_id])), _recency(met[item_id][-1], query.now)
        return found


def _recency(time: float | None, now: float) -> float:
    return float("nan") if time is None else float(np.log1p(max(now - time, 0.0)))
