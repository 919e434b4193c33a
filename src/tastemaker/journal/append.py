"""The journal: what happened, in one sequence, durable when the call returns."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tastemaker.journal.catalogue import Catalogue
from tastemaker.journal.identity import CONTENT_ID, Words, id_numbers
from tastemaker.journal.peers import Peers
from tastemaker.journal.read import EVENT_SCHEMA, NUMBER, event_rows, segment_frame, segment_numbers
from tastemaker.journal.stamp import Stamp
from tastemaker.journal.stores import Database, Habit, Turn, advance, connect, sole, sync_folder, transaction
from tastemaker.schema.columns import DEFAULT_EVENT_TYPE, Columns
from tastemaker.schema.errors import InputError, JournalError
from tastemaker.schema.events import AppendResult, Event, StoredEvent

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode
_INSERT = "INSERT OR IGNORE INTO event SELECT ?,?,? WHERE NOT EXISTS (SELECT 1 FROM imported_id WHERE event_id=?)"
LOOK_SECONDS = 0.01
"""So old may be what is known of a change that was not stamped: its process died before it told anybody, or is of an older version."""
_decode_row = msgspec.msgpack.Decoder().decode


class Journal(Catalogue):
    """Append-only log of events, plus the catalogue of items, users and edges. Safe for several processes at once."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        super().__init__(database)
        self.path = path
        self.segments = path / "segments"
        self._turn = Turn(path / "write.lock")
        self._stamp = Stamp(path / "changed")
        self._known = b"", 0.0, (0, 0)  # stamp, until when it is believed, marks: replaced in one go, as threads ask side by side
        if isinstance(database, Database):
            database.stamp = self._stamp

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Opens, or makes, the journal in a folder.

        Raises:
            JournalError: the folder holds something else.
        """
        path = Path(path)
        (path / "segments").mkdir(parents=True, exist_ok=True)
        return cls(path, connect(path / "live.sqlite"))

    def close(self) -> None:
        """Lets go of the files."""
        self._database.close()
        self._turn.close()
        self._stamp.close()

    def peers(self) -> Peers:
        """This journal's side of the exchange with other machines; the first call gives it a name."""
        return Peers(self.path, self._database, self._turn)

    def clock(self, position: int) -> dict[str, int]:
        """How far each machine's events reach at a position; empty where no machine was ever met."""
        met = self._database.execute("SELECT 1 FROM node LIMIT 1").fetchone()
        return self.peers().clock(position) if met else {}

    def since(self, position: int, change: int, clock: Mapping[str, int]) -> tuple[int, int, set[int]]:
        """From which sequence and change number on a bundle has to be told, and the later sequence numbers that it knows all the same.

        Args:
            position, change: of the bundle, in the journal that it was made from. clock: of the bundle; empty: its journal was alone.
        """
        if not clock:
            return position, change, set()
        peers = self.peers()
        start, known = peers.since(clock)
        return start, change if next(iter(clock)) == peers.name else 0, known  # numbers of changes are a journal's own

    def position(self) -> int:
        """The last sequence number given out: one growing sequence over imported and live events."""
        return int(self._database.execute("SELECT value FROM counter WHERE name='seq'").fetchone()[0])

    def marks(self) -> tuple[int, int]:
        """The last sequence number and the last change number, in one look; while nothing is changed the database is asked `LOOK_SECONDS` after the last time only."""
        stamp, now = self._stamp.read(), time.monotonic()
        seen, until, marks = self._known
        if stamp == seen and now < until:
            return marks
        rows = self._database.execute("SELECT name, value FROM counter WHERE name IN ('seq', 'change')").fetchall()
        found = dict(rows)
        marks = int(found["seq"]), int(found["change"])
        self._known = stamp, now + LOOK_SECONDS, marks
        return marks

    def append(self, events: Sequence[Event]) -> AppendResult:
        """Stores events in one transaction; an event whose id is already stored is counted as a duplicate.

        Raises:
            InputError: an id holds text that is no valid Unicode.
            JournalError: the disk refused; nothing of the batch was kept.
        """
        return self.append_batches([events])[0]

    def append_batches(self, batches: Sequence[Sequence[Event]]) -> list[AppendResult]:
        """Stores several callers' events in one transaction, so that they share one flush to disk; a result for each batch.

        Raises:
            InputError: an id holds text that is no valid Unicode.
            JournalError: the disk refused; nothing of any batch was kept.
        """
        named = [[_named(event) for event in events] for events in batches]
        results = []
        with self._turn, transaction(self._database) as database:
            last = self.position()
            for events in named:
                accepted = 0
                for event in events:
                    new = database.execute(_INSERT, (last + 1, event.event_id, _encode(event), event.event_id)).rowcount
                    accepted, last = accepted + new, last + new
                results.append(AppendResult(accepted, len(events) - accepted))
            database.execute("UPDATE counter SET value=? WHERE name='seq'", (last,))
        return results

    def tail(self, after: int, limit: int = 10_000) -> list[StoredEvent]:
        """Events after a sequence number, oldest first; cheap when there is nothing new."""
        last = self.position()
        if last <= after:
            return []
        segments = self._segments(after, last)
        rows = self._database.execute(
            "SELECT seq, body FROM event WHERE seq>? AND seq<=? ORDER BY seq LIMIT ?", (after, last, limit)
        ).fetchall()
        found = [StoredEvent(seq, _decode(body)) for seq, body in rows]
        if segments:
            new = [self._segment(name).filter(pl.col(Columns.SEQ) > after) for name in segments]
            table = pl.concat(new).head(limit).collect()
            found = sorted([*found, *event_rows(table)], key=lambda stored: stored.seq)[:limit]
        return found

    def read(self, after: int = 0, upto: int | None = None) -> pl.DataFrame:
        """All events after a sequence number as columns, in order.

        Args:
            upto: a `position()` of before, for what the journal held then; None: all.

        Returns:
            seq int64, event_id, user_id, item_id, timestamp (epoch seconds, float64, null where unknown), event_type, value and
            the optional columns of `schema.columns`; `context` is JSON text.
        """
        return self.scan(after, upto).sort(Columns.SEQ).collect()

    def scan(self, after: int = 0, upto: int | None = None) -> pl.LazyFrame:
        """The columns of `read` without an order, lazily: for counting what does not fit into memory."""
        last = self.position() if upto is None else upto
        wanted = (pl.col(Columns.SEQ) > after) & (pl.col(Columns.SEQ) <= last)
        parts = [self._segment(name).filter(wanted) for name in self._segments(after, last)]
        live = self._database.execute("SELECT seq, body FROM event WHERE seq>? AND seq<=? ORDER BY seq", (after, last)).fetchall()
        if live:
            parts.append(self._frame(live).lazy())
        return pl.concat(parts, how="vertical_relaxed") if parts else pl.LazyFrame(schema=EVENT_SCHEMA)

    def imported(self, sha256: str) -> bool:
        """True if a file with this checksum has been imported before."""
        return self._database.execute("SELECT 1 FROM import WHERE sha256=?", (sha256,)).fetchone() is not None

    def habits(self, kind: str) -> dict[str, Habit]:
        """What the columns of imported files of a kind have been like; the entry `""` counts the files."""
        rows = self._database.execute("SELECT name, holds, files, low, high FROM habit WHERE kind=?", (kind,))
        return {name: Habit(*habit) for name, *habit in rows}

    def commit_import(
        self,
        kind: str,
        files: Iterable[tuple[str, str]],
        parts: Sequence[Path] = (),
        rows: Sequence[int] = (),
        habits: Mapping[str, Habit] | None = None,
    ) -> None:
        """Makes an import visible in one transaction: all of it or nothing.

        Args:
            kind: events, items, users or edges.
            files: (sha256, name) of each source file, for the ledger.
            parts: Parquet files of events, without `seq`, written by the importer; they are moved into the journal.
            rows: number of rows in each part.
            habits: what files of this kind are like from now on.

        Raises:
            JournalError: an event of the import arrived live meanwhile, or the disk refused; nothing was added.
        """
        total = sum(rows)
        with transaction(self._database) as database:
            before = advance(database, "seq", total)
            self._claim_ids(parts)
            for part, count in zip(parts, rows, strict=True):
                first, last = before + 1, before + count
                name = f"{first:015d}-{last:015d}.parquet"
                part.replace(self.segments / name)
                database.execute("INSERT INTO segment VALUES (?,?,?)", (name, first, last))
                before = last
            sync_folder(self.segments)
            for sha256, name in files:
                database.execute("INSERT OR REPLACE INTO import VALUES (?,?,?,?)", (sha256, kind, name, total))
            for column, habit in (habits or {}).items():
                database.execute("INSERT OR REPLACE INTO habit VALUES (?,?,?,?,?,?)", (kind, column, *habit))

    @contextmanager
    def importing(self) -> Iterator[Path]:
        """The one import that may run at a time; gives an empty folder for its parts. What a killed import left is removed.

        Raises:
            JournalError: another process is importing.
        """
        staging = self.path / "staging"
        with sole(self.path / "import.lock", "Another import into this workspace is running. Repeat this one when it has ended."):
            staging.mkdir(exist_ok=True)
            known = set(self._segments(0, self.position()))
            for leftover in [*staging.iterdir(), *(file for file in self.segments.iterdir() if file.name not in known)]:
                leftover.unlink()
            yield staging

    def event_numbers(self, rows: int = 1_000_000) -> Iterator[Words]:
        """The numbers that name all events, imported, live and erased, uint64, in pieces of about `rows`."""
        erased = [number for (number,) in self._database.execute("SELECT number FROM erased_number")]
        yield np.array(erased, dtype=np.int64).astype(np.uint64)
        for name in self._segments(0, self.position()):
            yield from segment_numbers(self.segments / name)
        live = self._database.execute("SELECT event_id FROM event")
        while found := live.fetchmany(rows):
            yield id_numbers(pl.Series(Columns.EVENT_ID, [name for (name,) in found], dtype=pl.String))

    def sealed(self, folder: Path) -> list[tuple[Path, int]]:
        """All events as segments, in order, each with the sequence number of its first row; live rows are copied into `folder`."""
        last = self.position()
        found = [(self.segments / name, int(name.split("-")[0])) for name in self._segments(0, last)]
        live = self._database.execute("SELECT seq, body FROM event WHERE seq<=? ORDER BY seq", (last,))
        run: list[tuple[int, bytes]] = []
        while rows := live.fetchmany(1_000_000):
            for row in rows:
                if run and (row[0] != run[-1][0] + 1 or len(run) == 1_000_000):
                    found.append(self._seal(run, folder))
                    run = []
                run.append(row)
        if run:
            found.append(self._seal(run, folder))
        return sorted(found, key=lambda segment: segment[1])

    def _seal(self, run: list[tuple[int, bytes]], folder: Path) -> tuple[Path, int]:
        table = self._frame(run)
        path = folder / f"{run[0][0]:015d}-{run[-1][0]:015d}.parquet"
        numbers = pl.Series(NUMBER, id_numbers(table[Columns.EVENT_ID]))
        table.drop(Columns.SEQ).with_columns(numbers).write_parquet(path, compression="lz4")
        return path, run[0][0]

    def _claim_ids(self, parts: Sequence[Path]) -> None:
        """Keeps the ids that the sender of a file chose, so that a later live event with the same id is a duplicate."""
        own = 0
        for part in parts:
            scan = pl.scan_parquet(part)
            if Columns.EVENT_ID not in scan.collect_schema().names():
                continue
            chosen = scan.select(Columns.EVENT_ID).drop_nulls().filter(~pl.col(Columns.EVENT_ID).str.contains(CONTENT_ID)).collect()
            own += chosen.height
            self._database.executemany("INSERT OR IGNORE INTO imported_id VALUES (?)", chosen.iter_rows())
        if own and self._database.execute("SELECT 1 FROM event JOIN imported_id USING (event_id) LIMIT 1").fetchone():
            raise JournalError("An event of this import arrived live while it ran. Nothing was added; repeat the import.")

    def _segments(self, after: int, last: int) -> list[str]:
        """Segments with events in `(after, last]`. Readers ask for `last` first: what is committed later can't tear their answer."""
        found = self._database.execute(
            "SELECT name FROM segment WHERE last>? AND first<=? ORDER BY first", (after, last)
        ).fetchall()
        return [name for (name,) in found]

    def _segment(self, name: str) -> pl.LazyFrame:
        return segment_frame(self.segments / name, int(name.split("-")[0]))

    def _frame(self, live: list[tuple[int, bytes]]) -> pl.DataFrame:
        rows: list[dict[str, Any]] = []
        for seq, body in live:
            row = _decode_row(body)
            if row.get(Columns.CONTEXT) is not None:
                row[Columns.CONTEXT] = msgspec.json.encode(row[Columns.CONTEXT]).decode()
            rows.append({Columns.SEQ: seq, Columns.EVENT_TYPE: DEFAULT_EVENT_TYPE, **row})
        return pl.DataFrame(rows, schema=EVENT_SCHEMA)


def _named(event: Event) -> Event:
    _check_text(event)
    return event if event.event_id else msgspec.structs.replace(event, event_id=uuid.uuid4().hex)


def _check_text(event: Event) -> None:
    for name, text in (("user_id", event.user_id), ("item_id", event.item_id), ("event_id", event.event_id)):
        if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{name} {text!r} holds half of a surrogate pair, which is no valid text. Send UTF-8.")
