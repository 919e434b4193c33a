"""How often an item was met: ever or in a window, lately, against what it was before, against other items, and how well it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import DAY, Look, Numbers, since, smoothed
from tastemaker.features.frequency import Events, FadedEvents
from tastemaker.features.key import EVERYTHING, ITEM
from tastemaker.features.memories.board import Board
from tastemaker.features.memories.faded import Faded
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.parameters import Seconds
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns

EVENTS = (Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE)


@dataclass(frozen=True)
class ItemEvents(Events):
    """log(1 + events of the item), ever or in a window. 0 for an unseen item."""

    key = ITEM
    reads = EVENTS


@dataclass(frozen=True)
class ItemFaded(FadedEvents):
    """log(1 + faded events of the item). 0 for an unseen item."""

    key = ITEM
    reads = EVENTS


@dataclass(frozen=True)
class ItemRate:
    """Events of one sort for each event of another (purchases per view, clicks per impression), faded, within [0, 1].

    Smoothed towards the rate of all items, as if each had `smoothing` events already; an unseen item has the rate of all items, and with
    no events at all the rate is .5.
    """

    of: Which
    per: Which = ALL
    half_life: Seconds = 30 * DAY
    smoothing: float = 20.0

    columns = ("",)
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Both sums, of the item and of all items."""
        return tuple(Faded(key, which, self.half_life) for key in (ITEM, EVERYTHING) for which in (self.of, self.per))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The rate."""
        of, per, of_all, per_all = (look(memory) for memory in self.remembers)
        return (smoothed(of, per, smoothed(of_all, per_all, 0.5, 1.0), self.smoothing),)


@dataclass(frozen=True)
class ItemTrend:
    """Is the item met more often than it used to be? log of the pace lately by the pace of the longer past, each smoothed by one event
    in the long half-life. 0 for an unseen item and for a steady one; about 1 where the pace is e times what it was.
    """

    of: Which = ALL
    short: Seconds = DAY
    long: Seconds = 14 * DAY

    columns = ("",)
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Two faded sums."""
        return (Faded(ITEM, self.of, self.short), Faded(ITEM, self.of, self.long))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The log ratio. A steady pace of p events a second has a faded sum of p · half_life / ln 2."""
        lately, before = (look(memory) for memory in self.remembers)
        return (np.log((lately / self.short + 1.0 / self.long) / ((before + 1.0) / self.long)),)


@dataclass(frozen=True)
class ItemRank:
    """Where the item stands in popularity over the last whole days (UTC), as known at midnight: the share of the met items that were
    met less, in (0, 1). 0 for an item that was not met in these days.
    """

    of: Which = ALL
    days: int = 30

    columns = ("",)
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A board."""
        return (Board(ITEM, self.of, self.days),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The share."""
        return (look(Board(ITEM, self.of, self.days)),)


@dataclass(frozen=True)
class ItemValue:
    """What the item was worth to those who met it: the mean value (rating, price paid, share watched) of its events, pulled towards
    the mean of all items as if it had been seen `smoothing` times; and by how much it lies above that mean. Two zeros without values.
    """

    of: Which = ALL
    smoothing: float = 5.0

    columns = ("mean", "above")
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Tallies of the item and of all items."""
        return (Tally(ITEM, self.of), Tally(EVERYTHING, self.of))

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """Both numbers."""
        own, everything = (look(memory) for memory in self.remembers)
        usual = everything.total / np.maximum(everything.valued, 1)
        mean = (own.total + self.smoothing * usual) / np.maximum(own.valued + self.smoothing, 1e-12)
        return mean, mean - usual


@dataclass(frozen=True)
class ItemRecency:
    """log(1 + days since anyone met the item). The longest span (11.66) for an item that was never met at a known time."""

    of: Which = ALL

    columns = ("",)
    reads = EVENTS

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A tally."""
        return (Tally(ITEM, self.of),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The span."""
        return (since(look, look(Tally(ITEM, self.of)).last),)
