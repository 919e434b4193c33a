"""How often an item was met: ever, and lately (every event fades with a half-life)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.base import FeatureQuery
from tastemaker.schema.columns import Columns
from tastemaker.schema.events import Event

DAY = 86_400.0


@dataclass
class Count:
    """One item's events: how many, and their faded sum as of the latest of them (epoch seconds)."""

    total: int = 0
    faded: float = 0.0
    at: float = -np.inf


@dataclass(frozen=True)
class ItemCounts:
    """Counts of events per item. Events without a time count, but do not enter the faded sum.

    Attributes:
        half_life: seconds after which an event weighs half.
    """

    half_life: float = 7 * DAY

    names = ("item_events", "item_events_faded")
    reads = (Columns.ITEM_ID, Columns.TIMESTAMP)

    def remembers(self) -> dict[str, Count]:
        """Counts by item."""
        return {}

    def update(self, state: dict[str, Count], event: Event) -> None:
        """One more event of an item; late events enter with the weight that they would have by now."""
        count = state.setdefault(event.item_id, Count())
        count.total += 1
        if event.timestamp is None:
            return
        latest = max(count.at, event.timestamp)
        count.faded = count.faded * self._weight(latest - count.at) + self._weight(latest - event.timestamp)
        count.at = latest

    def batch(self, events: pl.DataFrame) -> dict[str, Count]:
        """Counts of a whole table at once."""
        time = pl.col(Columns.TIMESTAMP)
        table = events.group_by(Columns.ITEM_ID).agg(
            pl.len().alias("total"),
            (0.5 ** ((time.max() - time) / self.half_life)).sum().alias("faded"),
            time.max().fill_null(-np.inf).alias("at"),
        )
        return {item: Count(total, faded, at) for item, total, faded, at in table.iter_rows()}

    def gives(self, state: dict[str, Count], query: FeatureQuery) -> NDArray[np.float32]:
        """log(1 + events) and the faded sum at the moment of the query; zeros for an unknown item."""
        found = np.zeros((len(query.item_ids), 2), dtype=np.float32)
        for place, item_id in enumerate(query.item_ids):
            count = state.get(item_id)
            if count is not None:
                found[place] = np.log1p(count.total), count.faded * self._weight(max(query.now - count.at, 0.0))
        return found

    def _weight(self, age: float) -> float:
        return float(0.5 ** (age / self.half_life))
