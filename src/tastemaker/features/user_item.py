"""What the user did with this very item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import Look, Numbers, since
from tastemaker.features.key import USER_ITEM
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class UserItem:
    """`times`: log(1 + how often the user met the item); `recency`: log(1 + days since), the longest span (11.66) where they never met;
    `value`: the sum of the values of these events, as sign · log(1 + |sum|). An unknown user or item was never met.
    """

    of: Which = ALL

    columns = ("times", "recency", "value")
    reads = (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A tally for every pair that met."""
        return (Tally(USER_ITEM, self.of),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The three numbers."""
        told = look(Tally(USER_ITEM, self.of))
        return np.log1p(told.events), since(look, told.last), np.sign(told.total) * np.log1p(np.abs(told.total))
