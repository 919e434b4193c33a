"""Whether a journal's files agree with each other."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import polars as pl

from tastemaker.journal.append import Journal
from tastemaker.schema.columns import Columns


def faults(journal: Journal) -> list[str]:
    """What is wrong with a journal, a sentence each; empty where nothing is. Reads every page of the database and the end of every segment."""
    database, found = journal._database, list[str]()
    try:
        broken = [row[0] for row in database.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
        found += [f"live.sqlite is damaged: {words}" for words in broken]
        segments = database.execute("SELECT name, first, last FROM segment ORDER BY first").fetchall()
        live = database.execute("SELECT count(*), coalesce(max(seq), 0) FROM event").fetchone()
    except sqlite3.DatabaseError as error:
        return [f"live.sqlite can't be read: {error}."]
    before = 0
    for name, first, last in segments:
        path = journal.segments / name
        if not path.is_file():
            found.append(f"Segment {name} is missing.")
        elif (rows := _rows(path)) != last - first + 1 and not _erased(path):
            found.append(f"Segment {name} holds {rows:,} rows; expected {last - first + 1:,}.")
        if first <= before:
            found.append(f"Segment {name} begins before the end of the one before it.")
        before = last
    erased = int(database.execute("SELECT value FROM counter WHERE name='erased'").fetchone()[0])
    sizes = [(journal.segments / name, last - first + 1) for name, first, last in segments]
    numbered = live[0] + erased + sum(_rows(path) if path.is_file() and _erased(path) else size for path, size in sizes)
    position = journal.position()
    if max(live[1], before) > position or numbered != position:
        found.append(f"The counter says {position:,} events; {numbered:,} are there, the last has number {max(live[1], before):,}.")
    return found


def _rows(path: Path) -> int:
    try:
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError):
        return -1


def _erased(path: Path) -> bool:
    """Whether a person's events were taken out of a segment."""
    return Columns.SEQ in pl.read_parquet_schema(path)
