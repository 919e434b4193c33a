"""What several machines' journals tell each other: each one's own events and changes in its own order, and how far each has heard the others.

A machine's journal is complete without the others. What came from a peer is stored as if it had been sent here, so that everything that reads a journal
(answers, training) needs to know nothing of peers. An event has one id everywhere and is stored once in each journal. An item is what the latest
writer said: each write gets a stamp, a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014) and the node's name, and the
larger stamp stays; so are the attributes of a user, and an edge. Nothing here knows how the messages travel.
"""

from __future__ import annotations

import socket
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from tastemaker.journal.stores import Turn, advance, transaction
from tastemaker.schema.events import Event

_encode = msgspec.msgpack.Encoder().encode
_event = msgspec.msgpack.Decoder(Event).decode
_NEW = "INSERT OR IGNORE INTO event SELECT ?,?,? WHERE NOT EXISTS (SELECT 1 FROM imported_id WHERE event_id=?)"


class SentChange(NamedTuple):
    """A write of an item on its way: `body` is its msgpack, None for a deletion; `vector` and `version` as in `ItemChange`."""

    change: int
    clock: int
    item_id: str
    body: bytes | None
    vector: bytes | None
    version: str | None


class SentFact(NamedTuple):
    """A write of a user's attributes or of an edge on its way.

    Attributes:
        number: of the write, the sender's own. kind: `user` or `edge`. key: the user's id, or head, relation and tail as a JSON array.
        body: the user's msgpack, or the edge's weight as msgpack; None: it was deleted.
    """

    number: int
    clock: int
    kind: str
    key: str
    body: bytes | None


class Peers:
    """One journal's side of the exchange.

    Args:
        path: of the journal. database, turn: the journal's.

    Attributes:
        name: of this journal among its peers. A copy of a journal gets a name of its own.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, turn: Turn) -> None:
        self._database, self._turn = database, turn
        status = (path / "live.sqlite").stat()
        self.name, self._born, self._born_change = self._identity(f"{socket.gethostname()}:{status.st_dev}:{status.st_ino}")

    def _identity(self, here: str) -> tuple[str, int, int]:
        """Name, and the sequence and change numbers at which it began: what is older, all copies of the workspace have."""
        sought = "SELECT name, born, born_change FROM node WHERE here=?"
        with self._turn, transaction(self._database) as database:
            row = database.execute(sought, (here,)).fetchone()
            if row is None:
                seq, change = advance(database, "seq", 0), advance(database, "change", 0)
                row = (uuid.uuid4().hex[:12], seq, change)
                database.execute("INSERT INTO node VALUES (?,?,?,?)", (here, *row))
                database.execute("DELETE FROM fact WHERE node=''")  # a copy's: written before it had this name
        return str(row[0]), int(row[1]), int(row[2])

    # ---- what others have told

    def heard(self, node: str) -> tuple[int, int, int]:
        """Up to which of a peer's own numbers of events, of changes of items, and of facts (users, edges) everything is here."""
        row = self._database.execute("SELECT seq, change FROM peer WHERE node=?", (node,)).fetchone() or (0, 0)
        facts = self._database.execute("SELECT number FROM peer_fact WHERE node=?", (node,)).fetchone() or (0,)
        return int(row[0]), int(row[1]), int(facts[0])

    def marks(self) -> tuple[int, int, int]:
        """The last numbers given out here, in the order of `heard`."""
        found = dict(self._database.execute("SELECT name, value FROM counter WHERE name IN ('seq', 'change', 'fact')").fetchall())
        return int(found["seq"]), int(found["change"]), int(found["fact"])

    def receive_events(self, node: str, upto: int, rows: Sequence[tuple[int, Event]]) -> int:
        """Stores a peer's events durably, each once; gives how many were new.

        Args:
            upto: the peer's number up to which it has told everything. rows: its numbers and events, ascending.
        """
        with self._turn, transaction(self._database) as database:
            before = last = advance(database, "seq", 0)
            for origin, event in rows:
                if database.execute(_NEW, (last + 1, event.event_id, _encode(event), event.event_id)).rowcount:
                    last += 1
                    database.execute("INSERT INTO received VALUES (?,?,?)", (last, node, origin))
            database.execute("UPDATE counter SET value=? WHERE name='seq'", (last,))
            _note(database, node, "seq", upto)
        return last - before

    def receive_changes(self, node: str, upto: int, rows: Sequence[SentChange]) -> int:
        """Stores a peer's writes of items where they are later than what is here; gives how many were."""
        written = 0
        with self._turn, transaction(self._database) as database:
            change = advance(database, "change", 0)
            latest = max((row.clock for row in rows), default=0)
            database.execute("UPDATE counter SET value=max(value, ?) WHERE name='clock'", (latest,))
            for row in rows:
                stored = database.execute("SELECT change, body, vector FROM item WHERE item_id=?", (row.item_id,)).fetchone()
                stamp = self._stamp(row.item_id, None if stored is None else stored[0])
                if stamp is None or stamp >= (row.clock, node):  # None: written here a moment ago, so later than all that came
                    continue
                at = stored[0] if stored is not None and (stored[1], stored[2]) == (row.body, row.vector) else change + 1
                if at > change:
                    change, written = at, written + 1
                    new = (row.item_id, row.body, change, row.vector, row.version)
                    database.execute("INSERT OR REPLACE INTO item VALUES (?,?,?,?,?)", new)
                database.execute("INSERT OR REPLACE INTO stamp VALUES (?,?,?,?)", (row.item_id, row.clock, node, at))
            database.execute("UPDATE counter SET value=? WHERE name='change'", (change,))
            _note(database, node, "change", upto)
        return written

    def _stamp(self, item_id: str, change: int | None) -> tuple[int, str] | None:
        """Clock and node of what is stored; None for a write of here that has no stamp yet."""
        row = self._database.execute("SELECT clock, node, change FROM stamp WHERE item_id=?", (item_id,)).fetchone()
        if row is not None and row[2] == change:
            return int(row[0]), str(row[1])
        return None if change is not None and change > self._born_change else (0, "")

    def receive_facts(self, node: str, upto: int, rows: Sequence[SentFact]) -> int:
        """Stores a peer's writes of users and edges where they are later than what is here; gives how many were."""
        written = 0
        with self._turn, transaction(self._database) as database:
            latest = max((row.clock for row in rows), default=0)
            database.execute("UPDATE counter SET value=max(value, ?) WHERE name='clock'", (latest,))
            for row in rows:
                known = database.execute("SELECT clock, node FROM fact WHERE kind=? AND key=?", (row.kind, row.key)).fetchone()
                if known is not None and (not known[1] or tuple(known) >= (row.clock, node)):  # no node: written here a moment ago
                    continue
                _write(database, row)
                number = advance(database, "fact", 1) + 1
                database.execute("INSERT OR REPLACE INTO fact VALUES (?,?,?,?,?)", (row.kind, row.key, number, row.clock, node))
                written += 1
            database.execute(
                "INSERT INTO peer_fact VALUES (?,?) ON CONFLICT DO UPDATE SET number=max(number, excluded.number)", (node, upto)
            )
        return written

    # ---- what is to be told

    def own_facts(self, after: int, limit: int) -> tuple[int, list[SentFact]]:
        """Writes of users and edges that came to this machine, after a number, each with its stamp; and the number up to which these are all."""
        last = self.marks()[2]
        if last <= after:
            return after, []
        found = []
        with self._turn, transaction(self._database) as database:
            rows = database.execute(
                "SELECT number, clock, node, kind, key FROM fact WHERE number>? AND number<=? ORDER BY number LIMIT ?",
                (after, last, limit),
            ).fetchall()
            for number, clock, node, kind, key in rows:
                if not node:
                    clock, node = self._tick(database), self.name
                    database.execute("UPDATE fact SET clock=?, node=? WHERE kind=? AND key=?", (clock, node, kind, key))
                if node == self.name:
                    found.append(SentFact(number, clock, kind, key, _read(database, kind, key)))
        return int(rows[-1][0] if len(rows) == limit else last), found

    def _tick(self, database: sqlite3.Connection) -> int:
        """A stamp that is later than all that were given or heard."""
        clock = max(time.time_ns() // 1_000, advance(database, "clock", 0) + 1)
        database.execute("UPDATE counter SET value=? WHERE name='clock'", (clock,))
        return clock

    def own_events(self, after: int, limit: int) -> tuple[int, list[tuple[int, Event]]]:
        """Events that came to this machine, after a sequence number; and the number up to which these are all."""
        after = max(after, self._born)
        last = int(self._database.execute("SELECT value FROM counter WHERE name='seq'").fetchone()[0])
        rows = self._database.execute(
            "SELECT seq, body FROM event WHERE seq>? AND seq<=? AND NOT EXISTS (SELECT 1 FROM received WHERE received.seq=event.seq)"
            " ORDER BY seq LIMIT ?",
            (after, last, limit),
        ).fetchall()
        upto = rows[-1][0] if len(rows) == limit else max(last, after)
        return int(upto), [(int(seq), _event(body)) for seq, body in rows]

    def own_changes(self, after: int, limit: int) -> tuple[int, list[SentChange]]:
        """Writes of items that came to this machine, after a change number, each with its stamp; and the number up to which these are all."""
        after = max(after, self._born_change)
        last = int(self._database.execute("SELECT value FROM counter WHERE name='change'").fetchone()[0])
        if last <= after:
            return after, []
        with self._turn, transaction(self._database) as database:
            rows = database.execute(
                "SELECT i.change, item_id, body, vector, vector_version, s.clock, s.node, s.change FROM item AS i"
                " LEFT JOIN stamp AS s USING (item_id) WHERE i.change>? AND i.change<=? ORDER BY i.change LIMIT ?",
                (after, last, limit),
            ).fetchall()
            found = []
            for change, item_id, body, vector, version, clock, node, stamped in rows:
                if stamped != change:
                    clock, node = self._tick(database), self.name
                    database.execute("INSERT OR REPLACE INTO stamp VALUES (?,?,?,?)", (item_id, clock, node, change))
                if node == self.name:
                    found.append(SentChange(change, clock, item_id, body, vector, version))
        return int(rows[-1][0] if len(rows) == limit else last), found

    # ---- what a bundle knows

    def clock(self, position: int) -> dict[str, int]:
        """How far each machine's events reach in what this journal held at a position, this one first: tells others what a bundle has learned."""
        rows = self._database.execute("SELECT node, max(origin) FROM received WHERE seq<=? GROUP BY node", (position,))
        return {self.name: position, **dict(rows)}

    def since(self, clock: Mapping[str, int]) -> tuple[int, set[int]]:
        """From which sequence number on events have to be folded that a bundle with this clock does not know; and those after it that it does."""
        own = max(clock.get(self.name, 0), self._born)  # what is older than the name, the bundle's maker had too
        last = int(self._database.execute("SELECT value FROM counter WHERE name='seq'").fetchone()[0])
        ask = self._database.execute
        alone = "FROM event WHERE NOT EXISTS (SELECT 1 FROM received WHERE received.seq=event.seq)"
        nodes = [row[0] for row in ask("SELECT DISTINCT node FROM received")]
        of_node = "SELECT min(seq) FROM received WHERE node=? AND origin>?"
        firsts = [ask(of_node, (node, clock.get(node, 0))).fetchone()[0] for node in nodes]
        firsts.append(ask(f"SELECT min(seq) {alone} AND seq>?", (own,)).fetchone()[0])
        start = min([first for first in firsts if first is not None], default=last + 1) - 1
        known = {seq for (seq,) in ask(f"SELECT seq {alone} AND seq>? AND seq<=?", (start, own))}
        for node in nodes:
            known |= {seq for (seq,) in ask("SELECT seq FROM received WHERE node=? AND origin<=? AND seq>?", (node, clock.get(node, 0), start))}  # fmt: skip
        return start, known


def _note(database: sqlite3.Connection, node: str, what: str, upto: int) -> None:
    database.execute("INSERT OR IGNORE INTO peer VALUES (?,0,0)", (node,))
    database.execute(f"UPDATE peer SET {what}=max({what}, ?) WHERE node=?", (upto, node))


def _write(database: sqlite3.Connection, row: SentFact) -> None:
    """A user or an edge becomes what a peer said."""
    if row.kind == "user":
        if row.body is None:
            database.execute("DELETE FROM user WHERE user_id=?", (row.key,))
        else:
            database.execute("INSERT OR REPLACE INTO user VALUES (?,?)", (row.key, row.body))
        return
    edge = msgspec.json.decode(row.key, type=tuple[str, str, str])
    if row.body is None:
        database.execute("DELETE FROM edge WHERE head=? AND relation=? AND tail=?", edge)
    else:
        database.execute("INSERT OR REPLACE INTO edge VALUES (?,?,?,?)", (*edge, msgspec.msgpack.decode(row.body, type=float)))


def _read(database: sqlite3.Connection, kind: str, key: str) -> bytes | None:
    """What is told of a user or an edge; None where it is gone."""
    if kind == "user":
        row = database.execute("SELECT body FROM user WHERE user_id=?", (key,)).fetchone()
        return None if row is None else bytes(row[0])
    edge = msgspec.json.decode(key, type=tuple[str, str, str])
    row = database.execute("SELECT weight FROM edge WHERE head=? AND relation=? AND tail=?", edge).fetchone()
    return None if row is None else _encode(float(row[0]))
