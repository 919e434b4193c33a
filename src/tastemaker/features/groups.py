"""How an item's category or brand does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import DAY, Look, Numbers, smoothed
from tastemaker.features.key import EVERYTHING, Key
from tastemaker.features.memories.faded import Faded
from tastemaker.features.memories.memory import Memory
from tastemaker.features.parameters import Groups, Seconds
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns

READS = (Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE, Columns.CATEGORIES, "extra")


@dataclass(frozen=True)
class GroupEvents:
    """`events`: log(1 + faded events) of the item's category or brand; `share`: of all faded events, [0, 1]. An item of several categories has
    their mean. Two zeros for an unseen group and for an item without one.
    """

    by: Groups = "category"
    of: Which = ALL
    half_life: Seconds = 7 * DAY

    columns = ("events", "share")
    reads = READS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Faded sums of the group and of everything."""
        return tuple(Faded(key, self.of, self.half_life) for key in (Key((self.by,)), EVERYTHING))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """Both numbers."""
        group, everything = self.remembers
        own, key = look(group), group.key
        share = own / np.maximum(look.spread(key, look(everything)), 1e-12)
        return look.mean(key, np.log1p(own)), look.mean(key, np.clip(share, 0.0, 1.0))


@dataclass(frozen=True)
class GroupRate:
    """`item_rate` of the item's category or brand; the mean over several categories; the rate of all items for an unseen group and for an item
    without one.
    """

    of: Which
    by: Groups = "category"
    per: Which = ALL
    half_life: Seconds = 30 * DAY
    smoothing: float = 20.0

    columns = ("",)
    reads = READS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Both faded sums of the group and of everything."""
        return tuple(Faded(key, which, self.half_life) for key in (Key((self.by,)), EVERYTHING) for which in (self.of, self.per))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The rate."""
        of, per, of_all, per_all = (look(memory) for memory in self.remembers)
        key, prior = Key((self.by,)), smoothed(of_all, per_all, 0.5, 1.0)
        return (look.mean(key, smoothed(of, per, look.spread(key, prior), self.smoothing), prior),)
