"""Erases a person from the journal: attributes, connections, events of the database and of the segments, and every log that names them.

What is erased is gone from the disk when this returns, or told as unfinished and done at the next look. Bundles are immutable: those that learned from the
person are told as pending until they are removed. Of a finished erasure only a hash of the id stays, so that bundles of before can be recognised.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import polars as pl

from tastemaker.journal.append import Journal
from tastemaker.journal.identity import id_numbers
from tastemaker.journal.read import NUMBER, segment_frame
from tastemaker.journal.stores import sync_file, sync_folder, transaction
from tastemaker.schema.columns import Columns
from tastemaker.schema.events import Event

LOGS = ("served", "sampled", "trials")
"""Folders of the journal with JSON lines that name a user."""
_event = msgspec.msgpack.Decoder(Event).decode


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased.

    Attributes:
        attributes: whether there were any. edges, events, lines: how many connections, events, and lines of logs.
        finished: nothing of it is left on the disk of the journal; else it is tried again.
        bundles: versions that learned from the person and still exist: they can't be changed, only be replaced and removed.
    """

    attributes: bool = False
    edges: int = 0
    events: int = 0
    lines: int = 0
    finished: bool = True
    bundles: list[str] = []


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure: its number, when it was asked for (epoch seconds), a hash of whom, and the id while it is unfinished."""

    number: int
    digest: bytes
    time: float
    user_id: str | None


def digest_of(user_id: str) -> bytes:
    """By what an erased person is recognised in a bundle, 16 bytes."""
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16, person=b"erasure").digest()


def erase(
    journal: Journal, user_id: str, reports: Path | None = None, bundles: Path | None = None, now: float | None = None
) -> Erased:
    """Erases a person; doing it again finishes what was cut short.

    Args:
        reports: folder of the workspace's reports, whose quarantine holds refused rows. bundles: folder of bundles, of which those that learned from the
            person are told. now: epoch seconds.

    Raises:
        JournalError: the disk refused; it is tried again by `finish`.
    """
    asked = time.time() if now is None else now
    database = journal._database
    with journal._turn, transaction(database):
        database.execute("DELETE FROM erasure WHERE user_id=?", (user_id,))
        database.execute("INSERT INTO erasure (digest, time, user_id) VALUES (?,?,?)", (digest_of(user_id), asked, user_id))
        attributes = database.execute("DELETE FROM user WHERE user_id=?", (user_id,)).rowcount > 0
        edges = database.execute("DELETE FROM edge WHERE head=?1 OR tail=?1", (f"user:{user_id}",)).rowcount
        events = _live_events(journal, user_id)
    events += sum(_of_segment(journal, name, user_id) for name in journal._segments(0, journal.position()))
    folders = [journal.path / name for name in LOGS]
    lines = sum(_blank(path, _names(user_id)) for folder in folders for path in sorted(folder.glob("*.jsonl")))
    if reports is not None:
        lines += sum(_blank(path, _mentions(user_id)) for path in sorted((reports / "quarantine").glob("*.jsonl")))
    finished = _finish(journal, user_id)
    return Erased(
        attributes=attributes, edges=edges, events=events, lines=lines, finished=finished,
        bundles=holders(bundles, digest_of(user_id), asked) if bundles is not None else [],
    )  # fmt: skip


def asked_since(journal: Journal, number: int = 0) -> list[Asked]:
    """Erasures after a number, oldest first."""
    rows = journal._database.execute("SELECT number, digest, time, user_id FROM erasure WHERE number>? ORDER BY number", (number,))
    return [Asked(number=place, digest=digest, time=when, user_id=user) for place, digest, when, user in rows.fetchall()]


def finish(journal: Journal, reports: Path | None = None) -> int:
    """Goes on with what was cut short; gives how many erasures are unfinished still."""
    waiting = [one for one in asked_since(journal) if one.user_id is not None]
    return sum(not erase(journal, one.user_id, reports, now=one.time).finished for one in waiting if one.user_id is not None)


def holders(bundles: Path, digest: bytes, asked: float) -> list[str]:
    """Bundles that know a person, of those that were there when the erasure was asked for (epoch seconds)."""
    return [path.parents[1].name for path in _lists_of_users(bundles, asked) if digest in _digests(path)]


def pending(journal: Journal, bundles: Path) -> list[Asked]:
    """Erasures that are not complete: the journal's part is unfinished, or a bundle of before knows the person."""
    return [one for one in asked_since(journal) if one.user_id is not None or holders(bundles, one.digest, one.time)]


_known: dict[tuple[Path, float], frozenset[bytes]] = {}


def _lists_of_users(bundles: Path, asked: float) -> Iterator[Path]:
    for path in sorted(bundles.glob("*/users/user_ids.parquet")):
        with suppress(OSError):
            if not path.parents[1].name.startswith(".") and path.stat().st_mtime <= asked:
                yield path


def _digests(path: Path) -> frozenset[bytes]:
    """Hashes of a bundle's users, remembered, as a bundle never changes."""
    key = (path, path.stat().st_mtime)
    if key not in _known:
        _known[key] = frozenset(digest_of(user) for user in pl.read_parquet(path)[Columns.USER_ID].to_list())
    return _known[key]


def _live_events(journal: Journal, user_id: str) -> int:
    """Deletes events of the database inside a transaction. The numbers that name them stay, so that a file that is imported again does not bring them back."""
    database, sought = journal._database, user_id.encode("utf-8", "surrogatepass")
    rows = database.execute("SELECT seq, event_id, body FROM event WHERE instr(body, ?)", (sought,)).fetchall()
    mine = [(seq, event_id) for seq, event_id, body in rows if _event(body).user_id == user_id]
    numbers = id_numbers(pl.Series(Columns.EVENT_ID, [event_id for _, event_id in mine], dtype=pl.String)).tolist()
    _note_numbers(journal, numbers, len(mine))
    database.executemany("DELETE FROM event WHERE seq=?", [(seq,) for seq, _ in mine])
    database.executemany("DELETE FROM imported_id WHERE event_id=?", [(event_id,) for _, event_id in mine])
    return len(mine)


def _of_segment(journal: Journal, name: str, user_id: str) -> int:
    """Writes a segment anew without a person's events, each with its own sequence number; gives how many they were."""
    path, first = journal.segments / name, int(name.split("-")[0])
    mine = pl.col(Columns.USER_ID) == user_id
    count = int(pl.scan_parquet(path).filter(mine).select(pl.len()).collect().item())
    if not count:
        return 0
    raw = pl.scan_parquet(path)
    if Columns.SEQ not in raw.collect_schema().names():
        raw = pl.scan_parquet(path, row_index_name=Columns.SEQ, row_index_offset=first).with_columns(
            pl.col(Columns.SEQ).cast(pl.Int64)
        )
    numbers = _numbers(path, first, user_id)
    temporary = path.with_suffix(".erasing")
    raw.filter(mine.not_().fill_null(True)).sink_parquet(temporary, compression="lz4")
    sync_file(temporary)
    with journal._turn, transaction(journal._database):
        _note_numbers(journal, numbers, count)
        temporary.replace(path)
        sync_folder(journal.segments)
    return count


def _numbers(path: Path, first: int, user_id: str) -> list[int]:
    table = pl.scan_parquet(path).filter(pl.col(Columns.USER_ID) == user_id)
    if NUMBER in table.collect_schema().names():
        return table.select(NUMBER).collect()[NUMBER].to_list()
    ids = segment_frame(path, first).filter(pl.col(Columns.USER_ID) == user_id).select(Columns.EVENT_ID).collect()
    return [int(number) for number in id_numbers(ids[Columns.EVENT_ID])]


def _note_numbers(journal: Journal, numbers: list[int], count: int) -> None:
    database = journal._database
    rows = [(number - 2**64 if number >= 2**63 else number,) for number in numbers]  # SQLite's integers have a sign
    database.executemany("INSERT OR IGNORE INTO erased_number VALUES (?)", rows)
    database.execute("UPDATE counter SET value=value+? WHERE name='erased'", (count,))


def _names(user_id: str) -> Callable[[bytes], bool]:
    """Whether a JSON line's `user_id` is this one."""
    sought = msgspec.json.encode(user_id.encode("utf-8", "replace").decode())

    def names(line: bytes) -> bool:
        if sought not in line:
            return False
        try:
            return bool(msgspec.json.decode(line).get("user_id") == user_id)
        except (msgspec.DecodeError, AttributeError):
            return True  # a line that was cut off

    return names


def _mentions(user_id: str) -> Callable[[bytes], bool]:
    """Whether a refused row mentions an id: as a word, as nothing is known of its columns."""
    inner = msgspec.json.encode(user_id.encode("utf-8", "replace").decode())[1:-1]
    word = re.compile(rb"(?<![\w-])" + re.escape(inner) + rb"(?![\w-])")
    return lambda line: word.search(line) is not None


def _blank(path: Path, mine: Callable[[bytes], bool]) -> int:
    """Writes spaces over lines of a file to which others may be appending; gives how many."""
    blanked, place = 0, 0
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # its time was over
        return 0
    try:
        with path.open("rb") as file:
            for line in file:
                if mine(line):
                    os.pwrite(handle, b" " * len(line.rstrip(b"\n")), place)
                    blanked += 1
                place += len(line)
        if blanked:
            os.fsync(handle)
    finally:
        os.close(handle)
    return blanked


def _finish(journal: Journal, user_id: str) -> bool:
    """Takes the id out of the list of erasures, and what was deleted out of the write-ahead log; False while a reader holds the log."""
    busy = journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        return False
    with journal._turn, transaction(journal._database) as database:
        database.execute("UPDATE erasure SET user_id=NULL WHERE user_id=?", (user_id,))
    return not journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
