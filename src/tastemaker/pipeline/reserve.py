"""The lower rungs of the ladder: lists that were made before, and what is popular. They ask no source and no model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from tastemaker.pipeline.trip import POPULAR, PRECOMPUTED, Trip
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray

KEPT_ITEMS = 100
"""Candidates that are kept of each answer, the best ones."""
KEPT_SECONDS = 60.0
_STEP = 1024


class Reserve:
    """Keeps the latest lists and the order of popularity.

    Args:
        popular: gives the recent popularity of every item, float32 [N]. size: users whose latest list is kept.
    """

    def __init__(self, popular: Callable[[], FloatArray], size: int = 20_000) -> None:
        self._popular, self._size = popular, size
        self._lists: OrderedDict[str, tuple[float, IntArray]] = OrderedDict()
        self._order: IntArray = np.zeros(0, dtype=np.int32)

    def keep(self, user_id: str, items: Callable[[], IntArray], now: float) -> None:
        """Remembers the best candidates of a user, best first; not again within `KEPT_SECONDS`.

        Args:
            items: gives item indices, int32. now: epoch seconds.
        """
        kept = self._lists.get(user_id)
        if kept is not None and 0 <= now - kept[0] < KEPT_SECONDS:
            return
        self._lists[user_id] = now, items()[:KEPT_ITEMS].copy()
        self._lists.move_to_end(user_id)
        if len(self._lists) > self._size:
            self._lists.popitem(last=False)

    def most_popular(self, count: int, barred: BoolArray | None, away: set[int]) -> list[int]:
        """The most popular items that are neither barred nor away, fewer only where there are fewer."""
        popular = self._popular()
        if len(self._order) != len(popular):
            self._order = np.argsort(-np.nan_to_num(popular, nan=-1.0), kind="stable").astype(np.int32)
        found: list[int] = []
        for begin in range(0, len(self._order), _STEP):
            if len(found) >= count:
                break
            found += _allowed(self._order[begin : begin + _STEP], barred, away)
        return found[:count]

    def fill(self, trip: Trip, level: int) -> None:
        """Candidates and scores without sources and models: of the user's latest list where `level` allows it, behind them what is popular."""
        state, wish = trip.state, trip.wish
        asker, away = state.asker, set(trip.away.tolist())
        kept = self._lists.get(asker.user_id) if level <= PRECOMPUTED and asker is not None and asker.user_id else None
        items = [] if kept is None else _allowed(kept[1], wish.barred, away)
        enough = max(wish.k, KEPT_ITEMS)
        rest = self.most_popular(enough + len(items), wish.barred, away) if len(items) < enough else []
        own = len(items)
        items += [item for item in rest if item not in set(items)]
        items += [item for item in wish.rules.pins.values() if item not in set(items)]
        trip.found = bare(np.array(items, dtype=np.int32))
        trip.scores = (1.0 / (1.0 + np.arange(len(items)))).astype(np.float32)
        trip.chances, trip.heads, trip.first = None, (), None
        trip.down(PRECOMPUTED if own else POPULAR)


def bare(items: IntArray) -> ChannelScores:
    """Candidates of which no channel says anything."""
    nothing, ones = np.zeros((len(items), 0)), np.ones(len(items), dtype=np.float32)
    return ChannelScores(items, (), nothing.astype(np.float32), nothing.astype(np.int32), ones, 0)


def _allowed(items: IntArray, barred: BoolArray | None, away: set[int]) -> list[int]:
    if barred is not None:
        items = items[~barred[items]]
    return [item for item in items.tolist() if item not in away]
