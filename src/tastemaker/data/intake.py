"""Import: files to clean rows to the journal. All of a call or nothing of it; the same file twice adds nothing."""

from __future__ import annotations

import csv
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data import clean
from tastemaker.data.contract import Contract, Look
from tastemaker.data.edges import judge_edges, links_of
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.sources import Chunk, expand, read_chunks, sha256
from tastemaker.data.tables import items_from, users_from
from tastemaker.data.times import ORDER_BELOW, TimeFormat, guess
from tastemaker.journal.append import Journal
from tastemaker.journal.read import NUMBER
from tastemaker.journal.stores import sync_file
from tastemaker.schema.columns import EDGE_ALIASES, EVENT_ALIASES, ITEM_ALIASES, USER_ALIASES, Columns, alias_key
from tastemaker.schema.reports import ImportReport
from tastemaker.schema.settings import DataSettings

Tell = Callable[[str, int, int], None]
_WORKERS = 2
_WHO_AND_WHEN = {Columns.USER_ID: pl.String, Columns.TIMESTAMP: pl.Float64}


@dataclass
class Intake:
    """One import call.

    Attributes:
        journal: where the rows go.
        settings: what a good row is.
        quarantine: where refused rows are kept with their reasons.
        tell: progress callback (what, rows done, 0).
        accept_drift: let files in that look different from those before them (`data.contract`).
    """

    journal: Journal
    settings: DataSettings
    quarantine: Quarantine
    tell: Tell = field(default=lambda what, done, total: None)
    accept_drift: bool = False

    def events(self, patterns: Sequence[str | Path]) -> ImportReport:
        """Imports event files.

        Raises:
            InputError: a file is missing, damaged or has no user and item columns; nothing was added.
            JournalError: another import is running.
        """
        with self.journal.importing() as staging:
            return self._events(patterns, staging)

    def items(self, patterns: Sequence[str | Path]) -> ImportReport:
        """Imports item files; an item that is known is replaced by its new row, and a row like the stored one is a duplicate."""
        with self.journal.importing():
            return self._rows("items", patterns, ITEM_ALIASES, (Columns.ITEM_ID,), items_from, self.journal.put_items)

    def users(self, patterns: Sequence[str | Path]) -> ImportReport:
        """Imports user files."""
        with self.journal.importing():
            return self._rows("users", patterns, USER_ALIASES, (Columns.USER_ID,), users_from, self.journal.put_users)

    def edges(self, patterns: Sequence[str | Path]) -> ImportReport:
        """Imports edges of the social and knowledge graph."""
        with self.journal.importing():
            return self._edges(patterns)

    def _events(self, patterns: Sequence[str | Path], staging: Path) -> ImportReport:
        report, files = self._begin("events", patterns)
        seen, bursts, parts = self._known_numbers(), clean.Bursts(), Parts(staging)
        contract = Contract("events", self.journal.habits("events"), self.accept_drift)
        with parts:
            for path, _ in files:
                look = contract.file(path)
                for judged in self._judged(path, look, report):
                    self.quarantine.add("events", path, judged.rejects, report)
                    fresh = seen.new(judged.numbers[judged.good])
                    report.duplicates += int((~fresh).sum())
                    if fresh.any():
                        parts.add(judged.keep, fresh)
                        bursts.add(judged.users, judged.table[Columns.TIMESTAMP].to_numpy())
                    self.tell(f"import {path.name}", report.read, 0)
                look.end()
        if bursts.above(self.settings.bot_events_per_day):
            self._drop_bots(parts, report)
        kept = [(part, count) for part, count in zip(parts.paths, parts.rows, strict=True) if count]
        for part, _ in kept:
            sync_file(part)
        ledger = [(sha, path.name) for path, sha in files]
        self.journal.commit_import("events", ledger, [part for part, _ in kept], [n for _, n in kept], contract.renewed())
        report.guesses += contract.told
        report.accepted = sum(parts.rows)
        return self._end(report)

    def _judged(self, path: Path, look: Look, report: ImportReport) -> Iterator[clean.Judged]:
        """The chunks of a file, judged side by side and given in their order."""
        form: TimeFormat | None = None
        kind = clean.default_type([], _value_name(path))
        latest = time.time() + self.settings.future_tolerance
        waiting: deque[tuple[Chunk, Future[clean.Judged]]] = deque()

        def next_one() -> clean.Judged:
            chunk, judged = waiting.popleft()
            report.read += chunk.table.height + len(chunk.rejects)
            self.quarantine.add("events", path, chunk.rejects, report)
            found = judged.result()
            look.see_times(found.times(), len(found.good), found.elsewhere)
            return found

        with ThreadPoolExecutor(_WORKERS) as workers:
            for chunk in read_chunks(path, EVENT_ALIASES, (Columns.USER_ID, Columns.ITEM_ID), keep_numbers=clean.NUMBERS):
                if form is None:
                    form = _guess_time(chunk)
                    report.guesses.append(f"{path.name}: {form.words}")
                    look.see_form(form)
                look.see(chunk)
                waiting.append((chunk, workers.submit(clean.judge, chunk, form, kind, latest)))
                if len(waiting) > _WORKERS:
                    yield next_one()
            while waiting:
                yield next_one()

    def _edges(self, patterns: Sequence[str | Path]) -> ImportReport:
        report, files = self._begin("edges", patterns)
        tables, names = [], []
        contract = Contract("edges", self.journal.habits("edges"), self.accept_drift)
        for path, _ in files:
            look, links = contract.file(path), links_of(path)
            for chunk in read_chunks(path, EDGE_ALIASES, (Columns.HEAD, Columns.RELATION, Columns.TAIL)):
                look.see(chunk)
                report.read += chunk.table.height + len(chunk.rejects)
                good, named, rejects = judge_edges(chunk, links)
                self.quarantine.add("edges", path, [*chunk.rejects, *rejects], report)
                tables.append(good)
                names.append(named)
                self.tell(f"import {path.name}", report.read, 0)
            if links is not None:
                report.guesses.append(
                    f"{path.name}: {len(links):,} of its ids are items, by {path.with_suffix('.link').name} beside it"
                )
            look.end()
        if tables:
            report.accepted, report.duplicates = self.journal.put_edges(pl.concat(tables))
            self.journal.put_edges(pl.concat(names))
        self.journal.commit_import("edges", [(sha, path.name) for path, sha in files], habits=contract.renewed())
        report.guesses += contract.told
        return self._end(report)

    def _rows(
        self,
        kind: str,
        patterns: Sequence[str | Path],
        aliases: dict[str, str],
        needed: tuple[str, ...],
        build: Callable[[Chunk, ImportReport], tuple[list[Any], list[Any]]],
        put: Callable[[Sequence[Any]], tuple[int, int]],
    ) -> ImportReport:
        report, files = self._begin(kind, patterns)
        rows: list[Any] = []
        contract = Contract(kind, self.journal.habits(kind), self.accept_drift)
        for path, _ in files:
            look = contract.file(path)
            for chunk in read_chunks(path, aliases, needed):
                look.see(chunk)
                report.read += chunk.table.height + len(chunk.rejects)
                good, rejects = build(chunk, report)
                rows += good
                self.quarantine.add(kind, path, [*chunk.rejects, *rejects], report)
                self.tell(f"import {path.name}", report.read, 0)
            look.end()
        last: dict[str, Any] = {}
        for row in rows:
            last[row.item_id if kind == "items" else row.user_id] = row
        report.accepted, same = put(list(last.values()))
        report.duplicates += same + len(rows) - len(last)
        self.journal.commit_import(kind, [(sha, path.name) for path, sha in files], habits=contract.renewed())
        report.guesses += contract.told
        return self._end(report)

    def _begin(self, kind: str, patterns: Sequence[str | Path]) -> tuple[ImportReport, list[tuple[Path, str]]]:
        self._clock = time.perf_counter()
        report = ImportReport(kind=kind)
        files = []
        for path in expand(patterns):
            digest = sha256(path)
            if self.journal.imported(digest):
                report.guesses.append(f"{path.name}: exactly this file was imported before; it adds nothing")
            else:
                files.append((path, digest))
            report.files.append(str(path))
        return report, files

    def _end(self, report: ImportReport) -> ImportReport:
        report.seconds = time.perf_counter() - self._clock
        return report

    def _known_numbers(self) -> clean.Seen:
        seen = clean.Seen()
        for numbers in self.journal.event_numbers():
            seen.new(numbers)
        return seen

    def _drop_bots(self, parts: Parts, report: ImportReport) -> None:
        """Takes users out who did more in a day than a person can."""
        if not parts.paths:
            return
        limit = self.settings.bot_events_per_day
        tables = pl.scan_parquet(parts.paths, missing_columns="insert", extra_columns="ignore", schema=_WHO_AND_WHEN)
        users = tables.group_by(Columns.USER_ID).len().filter(pl.col("len") > limit).collect(engine="streaming")
        day = (pl.col(Columns.TIMESTAMP).fill_null(0.0) / 86_400).floor()
        busy = tables.filter(
            pl.col(Columns.USER_ID).is_in(users[Columns.USER_ID].implode()), pl.col(Columns.TIMESTAMP) > ORDER_BELOW
        )
        bots = busy.group_by(Columns.USER_ID, day).len().filter(pl.col("len") > limit).collect()[Columns.USER_ID].unique()
        if bots.is_empty():
            return
        for place, part in enumerate(parts.paths):
            robot = pl.read_parquet(part, columns=[Columns.USER_ID]).to_series().is_in(bots.implode())
            if robot.any():
                table = pl.read_parquet(part)
                self.quarantine.add_table("events", part, table.filter(robot).drop(NUMBER), clean.TOO_MANY, report)
                write_part(table.filter(~robot), part)
                parts.rows[place] = int((~robot).sum())


@dataclass
class Parts:
    """The parts of an import, written behind the back of the reader, in order; an error of a write is raised by the next one.

    Attributes:
        folder: where they go.
        paths, rows: the parts and how many events each holds.
    """

    folder: Path
    paths: list[Path] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def __enter__(self) -> Parts:
        self._writer = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True)
        for done in self._pending:
            done.result()

    def add(self, keep: Callable[[NDArray[np.bool_]], pl.DataFrame], fresh: NDArray[np.bool_]) -> None:
        """One more part: the rows of a chunk that `keep` gives for those that are new."""
        path = self.folder / f"{len(self.paths):06d}.parquet"
        self.paths.append(path)
        self.rows.append(int(fresh.sum()))
        self._pending.append(self._writer.submit(lambda: write_part(keep(fresh), path)))
        while len(self._pending) > 2:
            self._pending.popleft().result()


def write_part(table: pl.DataFrame, path: Path) -> None:
    """A part of the journal as one row group; lz4, because it is written and read much faster than zstd and is only half as long again."""
    table.write_parquet(path, compression="lz4", statistics=False, row_group_size=max(table.height, 1))


def _guess_time(chunk: Chunk) -> TimeFormat:
    if Columns.TIMESTAMP not in chunk.table.columns:
        return TimeFormat("none", "no time column: the order of the rows is taken as the order of events")
    if chunk.types.get(Columns.TIMESTAMP) == "time" and chunk.table[Columns.TIMESTAMP].dtype.is_numeric():
        return TimeFormat("s", "timestamps are dates of the file's own type (UTC where no zone is given)")
    return guess(chunk.table[Columns.TIMESTAMP].head(10_000))


def _value_name(path: Path) -> str | None:
    """What the value column of a delimited file is called there."""
    if any(ending in path.name for ending in (".gz", ".zst", ".parquet", ".json")):
        return None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline()
    names = next(csv.reader([line.replace("\t", ",").replace(";", ",")]), [])
    return next((name.split(":")[0] for name in names if EVENT_ALIASES.get(alias_key(name)) == Columns.VALUE), None)


def warn_about_links(journal: Journal, report: ImportReport) -> None:
    """Counts events whose item is not in the catalogue, and items without text, as warnings."""
    items = journal.items()
    if items.is_empty():
        return
    met = journal.scan().group_by(Columns.ITEM_ID).len().collect(engine="streaming")
    orphans = int(met.join(items.select(Columns.ITEM_ID), on=Columns.ITEM_ID, how="anti")["len"].sum())
    if orphans:
        report.warnings["events whose item is not in the catalogue"] = orphans
    silent = items.filter(pl.col(Columns.TITLE).fill_null("") + pl.col(Columns.TEXT).fill_null("") == "").height
    if silent:
        report.warnings["items without title and text"] = silent


def as_json(reports: list[ImportReport]) -> bytes:
    """The reports of one call as JSON."""
    return msgspec.json.encode({"imports": reports})
