"""How machines reach each other: streams of numbered messages, small tables, and places to leave a message at."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from tastemaker.journal.peers import SentChange, SentFact
from tastemaker.schema.events import Event

SILENT = 1.0
"""Seconds without a sign of the others after which answers say that they may lack what others know."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One message: everything of a node after a number, up to a number. `events` bear the node's own sequence numbers."""

    node: str
    after: int
    upto: int
    events: list[tuple[int, Event]] = []
    changes: list[SentChange] = []
    facts: list[SentFact] = []

    @property
    def rows(self) -> int:
        """How much it tells."""
        return len(self.events) + len(self.changes) + len(self.facts)


class Unreachable(Exception):
    """The link does not work now: down, slow, or answering nonsense."""


class Link(Protocol):
    """What a relay needs. Every call returns within some tens of milliseconds, or raises `Unreachable`."""

    def put(self, stream: str, entry: Entry) -> None:
        """Adds a message, whose number is larger than all before."""

    def last(self, stream: str) -> int:
        """Number of the newest message; 0 where there is none."""

    def read(self, after: Mapping[str, int], wait: float) -> list[tuple[str, Entry]]:
        """New messages of several streams."""

    def names(self, table: str) -> dict[str, str]:
        """A table of small texts."""

    def name(self, table: str, key: str, value: str) -> None:
        """Writes a row of a table."""

    def unname(self, table: str, key: str) -> None:
        """Removes a row of a table."""

    def leave(self, place: str, entry: Entry, seconds: int) -> None:
        """Leaves a message at a place for a while."""

    def fetch(self, place: str) -> Entry | None:
        """The message at a place."""

    def close(self) -> None:
        """Lets go of the connection."""


class Pulse:
    """When the link last worked, told by the process that relays to all that answer: eight bytes in a shared file."""

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.truncate(file, 8)
            self._shared = mmap.mmap(file, 8)
        finally:
            os.close(file)

    def beat(self) -> None:
        """The link works."""
        self._shared[:8] = struct.pack("d", time.time())

    @property
    def alive(self) -> bool:
        """Whether it worked within the last second."""
        beaten: float = struct.unpack("d", self._shared[:8])[0]
        return abs(time.time() - beaten) < SILENT
