"""Polls the journal and folds what is new: before every answer, so that what one worker acknowledged every worker knows."""

from __future__ import annotations

from typing import Protocol

from tastemaker.schema.events import StoredEvent
from tastemaker.schema.items import ItemChange
from tastemaker.streaming.state import LiveState


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
    """

    def __init__(self, log: Log, state: LiveState, position: int, change: int) -> None:
        self._log, self.state = log, state
        self.position, self.change = position, change

    def poll(self) -> int:
        """Folds everything new; gives how many events and changes that were. Costs some microseconds when there is nothing."""
        last, last_change = self._log.marks()
        folded = 0
        while self.change < last_change:
            changes = self._log.item_changes(self.change)
            if not changes:
                self.change = last_change
                break
            self.state.fold_changes(changes)
            self.change, folded = changes[-1].change, folded + len(changes)
        while self.position < last:
            events = self._log.tail(self.position)
            if not events:
                self.position = last
                break
            for stored in events:
                self.state.fold_event(stored.event)
            self.position, folded = events[-1].seq, folded + len(events)
        return folded
