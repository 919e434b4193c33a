"""Polls the journal and folds what is new: before every answer, so that what one worker acknowledged every worker knows."""

from __future__ import annotations

import math
import time
from collections.abc import Set as AbstractSet
from typing import Protocol

from tastemaker.schema.events import StoredEvent
from tastemaker.schema.items import ItemChange
from tastemaker.streaming.state import PIECE, LiveState

FEATURE_SHARE = 0.25
"""Of a look's time, how much features may take: histories come first."""


class Log(Protocol):
    """What is read of the journal."""

    def marks(self) -> tuple[int, int]:
        """Last sequence number and last change number."""

    def tail(self, after: int, limit: int = ...) -> list[StoredEvent]:
        """Events after a number."""

    def item_changes(self, after: int, limit: int = ...) -> list[ItemChange]:
        """Item changes after a number."""


class Consumer:
    """Keeps a state up to date.

    Args:
        log: the journal. state: what is kept up to date. position, change: up to where the bundle knows the journal.
        known: sequence numbers after `position` that the bundle knows nevertheless.

    Attributes:
        behind: events that are stored and that histories do not know, as of the last look; what features lack is `state.waiting`.
    """

    def __init__(self, log: Log, state: LiveState, position: int, change: int, known: AbstractSet[int] = frozenset()) -> None:
        self._log, self.state, self._known = log, state, known
        self.position, self.change, self.behind = position, change, 0

    def poll(self, seconds: float = math.inf) -> int:
        """Folds what is new, first into all histories, which is quick, then into features; gives how many events and changes that were. Costs some microseconds when there is nothing.

        Args:
            seconds: after which it stops though there is more, so that a burst of events never holds up an answer.
        """
        last, last_change = self._log.marks()
        end = time.perf_counter() + seconds
        folded = 0
        while self.change < last_change:
            changes = self._log.item_changes(self.change)
            if not changes:
                self.change = last_change
                break
            self.state.fold_changes(changes)
            self.change, folded = changes[-1].change, folded + len(changes)
        while self.position < last and (time.perf_counter() < end or not folded):
            events = self._log.tail(self.position, PIECE)
            if not events:
                self.position = last
                break
            for stored in events:
                if stored.seq not in self._known:
                    self.state.fold_event(stored.event)
            self.position, folded = events[-1].seq, folded + len(events)
        self.state.fold_features(min(end, time.perf_counter() + FEATURE_SHARE * seconds))
        self.behind = last - self.position
        return folded
