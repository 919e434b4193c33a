"""What a category, brand, device or hour usually leads to: a categorical as the rate of what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tastemaker.features.base import DAY, Look, Numbers, smoothed
from tastemaker.features.key import EVERYTHING, Key
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.parameters import Seconds
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns

By = Literal["category", "brand", "device", "hour", "item", "user"]


@dataclass(frozen=True)
class TargetRate:
    """Target encoding that leaves time out: the share of the `per` events that are `of` events, as known at the last boundary of `step` (midnight,
    UTC). So no row meets its own outcome, nor that of its neighbours of the same day; an order of rows (as in CatBoost's ordered statistics,
    Prokhorenkova et al., 2018) is not needed, time is the order.

    Smoothed towards the rate of everything as if each value had been seen `smoothing` times. An unseen, missing or unknown value has the rate of
    everything; before the first boundary that is .5. Mean over several categories.
    """

    of: Which
    by: By = "category"
    per: Which = ALL
    smoothing: float = 20.0
    step: Seconds = DAY

    columns = ("",)
    reads = (
        Columns.USER_ID,
        Columns.ITEM_ID,
        Columns.TIMESTAMP,
        Columns.EVENT_TYPE,
        Columns.VALUE,
        Columns.CONTEXT,
        Columns.CATEGORIES,
        "extra",
    )

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Snapshots of both counts, by the value and of everything."""
        return tuple(Tally(key, which, self.step) for key in (Key((self.by,)), EVERYTHING) for which in (self.of, self.per))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The rate."""
        of, per, of_all, per_all = (look(memory).events for memory in self.remembers)
        key, prior = Key((self.by,)), smoothed(of_all, per_all, 0.5, 1.0)
        return (look.mean(key, smoothed(of, per, look.spread(key, prior), self.smoothing), prior),)
