"""The journal's files: a SQLite database for live rows and bookkeeping, and a folder of sealed Parquet segments.

Why SQLite with `synchronous=FULL`: an acknowledged event must survive power loss, several serving processes write at once,
and an event id must be unique across all of them. Group commit by the caller makes it fast enough (13,000 events a second in
groups of 100 where one fsync takes 4 ms). Why Parquet beside it: twenty million imported events are read as columns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tastemaker.journal.stamp import Stamp
from tastemaker.schema.errors import JournalError

try:
    import fcntl
except ImportError:  # Windows: SQLite's own waiting does
    fcntl = None  # type: ignore[assignment]

SCHEMA = """
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('seq', 0), ('change', 0), ('layout', 1);
CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS segment (name TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS import (sha256 TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imported_id (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS habit (kind TEXT, name TEXT, holds TEXT NOT NULL, files INTEGER NOT NULL, low REAL, high REAL,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item (item_id TEXT PRIMARY KEY, body BLOB, change INTEGER NOT NULL, vector BLOB, vector_version TEXT);
CREATE INDEX IF NOT EXISTS item_change ON item (change);
CREATE TABLE IF NOT EXISTS user (user_id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS edge (head TEXT, relation TEXT, tail TEXT, weight REAL, PRIMARY KEY (head, relation, tail))
    WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('clock', 0), ('erased', 0);
CREATE TABLE IF NOT EXISTS erasure (number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, time REAL NOT NULL, user_id TEXT);
CREATE TABLE IF NOT EXISTS erased_number (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS node (here TEXT PRIMARY KEY, name TEXT NOT NULL, born INTEGER NOT NULL, born_change INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peer (node TEXT PRIMARY KEY, seq INTEGER NOT NULL, change INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS received (seq INTEGER PRIMARY KEY, node TEXT NOT NULL, origin INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS received_origin ON received (node, origin);
CREATE TABLE IF NOT EXISTS stamp (item_id TEXT PRIMARY KEY, clock INTEGER NOT NULL, node TEXT NOT NULL, change INTEGER NOT NULL)
    WITHOUT ROWID;
INSERT OR IGNORE INTO counter VALUES ('fact', 0);
CREATE TABLE IF NOT EXISTS fact (kind TEXT, key TEXT, number INTEGER NOT NULL UNIQUE, clock INTEGER NOT NULL, node TEXT NOT NULL, PRIMARY KEY (kind, key))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peer_fact (node TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""
_NUMBERED = """
CREATE TRIGGER IF NOT EXISTS {table}_{verb} AFTER {verb} ON {table} WHEN EXISTS (SELECT 1 FROM node) BEGIN
    UPDATE counter SET value=value+1 WHERE name='fact';
    INSERT INTO fact VALUES ('{table}', {key}, (SELECT value FROM counter WHERE name='fact'), 0, '')
        ON CONFLICT (kind, key) DO UPDATE SET number=excluded.number, clock=0, node='';
END;
"""
SCHEMA += "".join(
    _NUMBERED.format(table=table, verb=verb, key=key.format(row="OLD" if verb == "DELETE" else "NEW"))
    for table, key in (("user", "{row}.user_id"), ("edge", "json_array({row}.head, {row}.relation, {row}.tail)"))
    for verb in ("INSERT", "UPDATE", "DELETE")
)
"""Every write of a user or an edge gets a number once the journal has peers: whoever writes, they are told."""


class Habit(NamedTuple):
    """What a column of imported files has been like: what it holds, how many files had it, and for times the bounds in epoch seconds."""

    holds: str
    files: int
    low: float | None = None
    high: float | None = None


class Database(sqlite3.Connection):
    """A connection that stamps what it has changed.

    Attributes:
        stamp: is changed by every transaction; None: nobody looks at one.
    """

    stamp: Stamp | None = None


def connect(path: Path) -> Database:
    """Opens the live database: write-ahead log, every commit flushed to disk, other writers waited for.

    Raises:
        JournalError: the file is no journal or can't be opened.
    """
    try:
        database = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False, factory=Database)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA busy_timeout=30000")
        database.execute("PRAGMA secure_delete=ON")
        database.executescript(SCHEMA)
    except sqlite3.Error as error:
        raise JournalError(f"The journal {path} can't be opened ({error}). Is it a file of another program?") from None
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One durable, all-or-nothing change.

    Raises:
        JournalError: the disk is full or fails; nothing of the change was kept.
    """
    try:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        if isinstance(database, Database) and database.stamp is not None:
            database.stamp.change()
    except sqlite3.Error as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise JournalError(f"The journal could not be written ({error}); nothing of this change was kept.") from None


def advance(database: sqlite3.Connection, name: str, by: int) -> int:
    """Reserves `by` numbers of a counter inside a transaction and gives the last number before them."""
    before: int = database.execute("SELECT value FROM counter WHERE name=?", (name,)).fetchone()[0]
    database.execute("UPDATE counter SET value=? WHERE name=?", (before + by, name))
    return before


@contextmanager
def sole(path: Path, words: str) -> Iterator[None]:
    """A lock between processes that ends with its holder, however that ends; works wherever SQLite does.

    Raises:
        JournalError: another process holds it; the message is `words`.
    """
    lock = sqlite3.connect(path, isolation_level=None, timeout=0.2, check_same_thread=False)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise JournalError(words) from None
        yield
    finally:
        lock.close()


class Turn:
    """A queue between writing processes: the kernel wakes the next one at once, where SQLite alone would sleep up to .1 s between looks.

    Args:
        path: of the lock file. It ends with its holder, however that ends.

    Raises:
        JournalError: the file can't be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise JournalError(f"The journal can't be opened for writing: {path} ({error.strerror}).") from None

    def __enter__(self) -> None:
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._file)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Makes a written file durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
