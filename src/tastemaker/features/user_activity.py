"""How much a user does, lately and ever, and when last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import Look, Numbers, since
from tastemaker.features.frequency import Events, FadedEvents
from tastemaker.features.key import EVERYTHING, USER
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns

EVENTS = (Columns.USER_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE)


@dataclass(frozen=True)
class UserEvents(Events):
    """log(1 + events of the user), ever or in a window. 0 for an unknown user."""

    key = USER
    reads = EVENTS


@dataclass(frozen=True)
class UserFaded(FadedEvents):
    """log(1 + faded events of the user). 0 for an unknown user."""

    key = USER
    reads = EVENTS


@dataclass(frozen=True)
class UserRecency:
    """`last`: log(1 + days since the user's last event), the longest span (11.66) for an unknown user; `first`: the same since the first one, 0
    for an unknown user, who begins now.
    """

    of: Which = ALL

    columns = ("last", "first")
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A tally."""
        return (Tally(USER, self.of),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """Both spans."""
        told = look(Tally(USER, self.of))
        return since(look, told.last), np.where(np.isfinite(told.first), since(look, told.first), 0.0)


@dataclass(frozen=True)
class UserValue:
    """Is the user a mild judge or a strict one? `above`: mean value of the user's events minus that of everybody's, pulled towards 0 as if they had
    given the usual value `smoothing` times; `share`: of the user's events that bear a value, [0, 1]. Two zeros for an unknown user.
    """

    of: Which = ALL
    smoothing: float = 5.0

    columns = ("above", "share")
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Tallies of the user and of everything."""
        return (Tally(USER, self.of), Tally(EVERYTHING, self.of))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """Both numbers."""
        own, everything = (look(memory) for memory in self.remembers)
        usual = everything.total / np.maximum(everything.valued, 1)
        above = (own.total - own.valued * usual) / np.maximum(own.valued + self.smoothing, 1e-12)
        return above, own.valued / np.maximum(own.events, 1)
