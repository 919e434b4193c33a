"""A journal as it was: what a reader sees that knows it up to a place, for answering a question of before once more."""

from __future__ import annotations

from pathlib import Path

from tastemaker.journal.append import Journal
from tastemaker.schema.events import StoredEvent
from tastemaker.schema.items import ItemChange


class PastJournal(Journal):
    """The events and changes up to `until`. Of an item that was changed later only that is known, so it is as if it had never been written here.

    Attributes:
        until: the last sequence number and the last change number that there are; may be moved.
    """

    until: tuple[int, int] = (0, 0)

    @classmethod
    def at(cls, path: Path, position: int, change: int) -> PastJournal:
        """Opens the journal in a folder as it was at a place."""
        found = cls.open(path)
        assert isinstance(found, PastJournal)
        found.until = (position, change)
        return found

    def marks(self) -> tuple[int, int]:
        """As of `Journal`."""
        return self.until

    def tail(self, after: int, limit: int = 10_000) -> list[StoredEvent]:
        """As of `Journal`."""
        return [stored for stored in super().tail(after, limit) if stored.seq <= self.until[0]]

    def item_changes(self, after: int, limit: int = 10_000) -> list[ItemChange]:
        """As of `Journal`."""
        return [change for change in super().item_changes(after, limit) if change.change <= self.until[1]]
