"""What an item costs, and what that means among its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import Look, Numbers
from tastemaker.features.memories.memory import Memory
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class Price:
    """`log`: log(1 + price); `relative`: that minus the usual log price (median) of its categories, of the whole catalogue where these have
    none; `known`: 0 without a price, and then all three are 0. Negative, infinite and NaN prices are none.
    """

    columns = ("log", "relative", "known")
    reads = (Columns.PRICE, Columns.CATEGORIES)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Nothing: usual prices are facts of the catalogue."""
        return ()

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The three numbers."""
        price = look.facts.number("price", look.rows.item)
        relative = look.facts.number("relative_price", look.rows.item)
        known = ~np.isnan(price)
        return (
            np.log1p(np.where(known, price, 0.0)),
            np.where(np.isnan(relative), 0.0, relative),
            known.astype(np.float64),
        )
