"""How old an item is: since its catalogue entry says it exists, else since it was first met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import DAY, LONGEST, Look, Numbers, span
from tastemaker.features.key import ITEM
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.parameters import Seconds
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class ItemAge:
    """`age`: log(1 + days) since `created_at`, else since the first event; `fresh`: 2^(-age / half_life), 1 for a brand-new item;
    `known`: 0 where there is neither date. Such an item counts as new: nobody has met it yet. A date in the future is age 0; one that lies
    years ahead is some other sort of number and is nobody's loss.
    """

    half_life: Seconds = 14 * DAY

    columns = ("age", "fresh", "known")
    reads = (Columns.ITEM_ID, Columns.TIMESTAMP, Columns.CREATED_AT)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A tally, of which the first time is read."""
        return (Tally(ITEM),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The three numbers."""
        created = look.facts.number(Columns.CREATED_AT, look.rows.item)
        born = np.where(np.isnan(created), look(Tally(ITEM)).first, created)
        with np.errstate(invalid="ignore", over="ignore"):
            age = look.rows.now - born
        known = np.isfinite(age)
        age = np.where(known, np.clip(age, 0.0, LONGEST), 0.0)
        return span(age), np.exp2(-age / self.half_life), known.astype(np.float64)
