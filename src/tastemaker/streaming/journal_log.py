"""Another workspace's journal as a log of events, on one machine and without any broker: who has read how far is kept beside it.

For a staging service that is told what the real one is told, and for everything that is to be tried before there is a broker.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.streaming.link import Unreachable
from tastemaker.streaming.log import LIMIT, PARTITIONS, PIECE, SESSION, Full, Message, Piece, digits, encode, partition_of, share

_COUNTED = 10_000
_LOOK = 0.005
_SCHEMA = """
CREATE TABLE IF NOT EXISTS member (team TEXT, name TEXT, until REAL NOT NULL, PRIMARY KEY (team, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (team TEXT, part INTEGER, name TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (team, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS done (team TEXT, part INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (team, part)) WITHOUT ROWID;
"""


class JournalLog:
    """A journal's events, in partitions by user. The place of an event is its sequence number.

    Args:
        folder: of the journal, or of its workspace.

    Raises:
        InputError: there is no such folder.
    """

    partitions = PARTITIONS

    def __init__(self, folder: str, limit: int = LIMIT) -> None:
        path = Path(folder) / "journal" if (Path(folder) / "journal").is_dir() else Path(folder)
        if not path.is_dir():
            raise InputError(f"There is no folder {folder}. Expected journal: and the folder of another workspace.")
        self.name, self._limit, self._path = f"journal {path}", limit, path
        self.journal = Journal.open(path)
        self._groups = _connect(path)

    def send(self, events: Sequence[Event]) -> None:
        """As in `EventLog`."""
        slowest = self._groups.execute("SELECT min(seq) FROM done").fetchone()[0]
        if self.journal.position() - (slowest or 0) + len(events) > self._limit * self.partitions:
            raise Full(self.name, self._limit * self.partitions)
        self.journal.append(events)

    def reader(self, group: str, session: float = SESSION) -> JournalReader:
        """As in `EventLog`."""
        return JournalReader(self._path, group, session, self.partitions)

    def rewind(self, group: str, places: Mapping[int, str] | None = None) -> None:
        """As in `EventLog`."""
        wanted = dict.fromkeys(range(self.partitions), "0") if places is None else places
        rows = [(group, part, digits(place, self.name)) for part, place in wanted.items()]
        self._groups.executemany("INSERT OR REPLACE INTO done VALUES (?,?,?)", rows)

    def close(self) -> None:
        """As in `EventLog`."""
        self._groups.close()
        self.journal.close()


class JournalReader:
    """One consumer; as in `Reader`."""

    def __init__(self, path: Path, group: str, session: float, partitions: int) -> None:
        self._journal, self._groups = Journal.open(path), _connect(path)
        self._group, self._session, self._partitions = group, session, partitions
        self._name, self._next_look = f"{os.getpid()}-{uuid.uuid4().hex[:8]}", 0.0
        self._at: dict[int, int] = {}
        self._given: dict[int, int] = {}

    @property
    def owned(self) -> list[int]:
        """As in `Reader`."""
        return sorted(self._at)

    def poll(self, wait: float) -> list[Piece]:
        """As in `Reader`."""
        end = time.monotonic() + wait
        while True:
            if time.monotonic() >= self._next_look:
                self._look()
            if found := self._read():
                return found
            if time.monotonic() >= end:
                return []
            time.sleep(_LOOK)

    def ack(self, pieces: Sequence[Piece]) -> None:
        """As in `Reader`."""
        done = {piece.partition: int(piece.messages[-1].place) for piece in pieces}
        self._given = {part: last for part, last in self._given.items() if last > done.get(part, -1)}
        done |= {part: at for part, at in self._at.items() if part not in self._given}  # nothing of it is under way
        with _change(self._groups) as groups:
            for part, last in done.items():
                groups.execute("UPDATE done SET seq=max(seq, ?) WHERE team=? AND part=?", (last, self._group, part))

    def lag(self) -> dict[int, int]:
        """As in `Reader`."""
        done = self._done()
        counts = dict.fromkeys(self._at, 0)
        if counts:
            for stored in self._journal.tail(min(done.get(part, 0) for part in counts), _COUNTED):
                part = partition_of(stored.event.user_id, self._partitions)
                if part in counts and stored.seq > done.get(part, 0):
                    counts[part] += 1
        return counts

    def close(self) -> None:
        """As in `Reader`."""
        with _change(self._groups) as groups:
            for table in ("member", "lease"):
                groups.execute(f"DELETE FROM {table} WHERE team=? AND name=?", (self._group, self._name))
        self._groups.close()
        self._journal.close()

    def _read(self) -> list[Piece]:
        if not self._at or self._journal.position() <= min(self._at.values()):
            return []
        found: dict[int, list[Message]] = {}
        events = self._journal.tail(min(self._at.values()), PIECE)
        for stored in events:
            part = partition_of(stored.event.user_id, self._partitions)
            if part in self._at and stored.seq > self._at[part]:
                found.setdefault(part, []).append(
                    Message(str(stored.seq), stored.event.timestamp or time.time(), encode(stored.event))
                )
        for part in self._at if events else ():
            self._at[part] = max(self._at[part], events[-1].seq)
        self._given |= {part: int(messages[-1].place) for part, messages in found.items()}
        return [Piece(part, messages) for part, messages in found.items()]

    def _look(self) -> None:
        """Who is there, and which partitions are this one's."""
        now = time.time()
        until = now + self._session
        with _change(self._groups) as groups:
            groups.execute("INSERT OR REPLACE INTO member VALUES (?,?,?)", (self._group, self._name, until))
            groups.execute("DELETE FROM member WHERE until<?", (now,))
            members = [name for (name,) in groups.execute("SELECT name FROM member WHERE team=?", (self._group,))]
            mine = share(members, self._name, self._partitions)
            for part in set(self._at) - mine:
                groups.execute("DELETE FROM lease WHERE team=? AND part=? AND name=?", (self._group, part, self._name))
            held = {
                part
                for part in mine
                if groups.execute(
                    "INSERT INTO lease VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET name=excluded.name, until=excluded.until"
                    " WHERE lease.name=excluded.name OR lease.until<?",
                    (self._group, part, self._name, until, now),
                ).rowcount
            }
            for part in held:
                groups.execute("INSERT OR IGNORE INTO done VALUES (?,?,0)", (self._group, part))
        done = self._done()
        self._at = {part: self._at.get(part, done.get(part, 0)) for part in held}
        self._next_look = time.monotonic() + self._session / 4

    def _done(self) -> dict[int, int]:
        return dict(self._groups.execute("SELECT part, seq FROM done WHERE team=?", (self._group,)).fetchall())


def _connect(path: Path) -> sqlite3.Connection:
    groups = sqlite3.connect(path / "groups.sqlite", isolation_level=None, timeout=10, check_same_thread=False)
    groups.execute("PRAGMA journal_mode=WAL")
    groups.execute("PRAGMA synchronous=NORMAL")  # what a crash takes back is read again
    groups.executescript(_SCHEMA)
    return groups


@contextmanager
def _change(groups: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        groups.execute("BEGIN IMMEDIATE")
        yield groups
        groups.execute("COMMIT")
    except sqlite3.Error as error:
        if groups.in_transaction:
            groups.execute("ROLLBACK")
        raise Unreachable(f"the groups of the journal could not be written ({error})") from None
