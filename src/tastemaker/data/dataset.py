"""Clean tables in memory: what training and evaluation read."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.select import positives
from tastemaker.data.times import ORDER_BELOW
from tastemaker.journal.append import Journal
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError
from tastemaker.schema.settings import Settings

Source = str | Path | Sequence[str | Path] | pl.DataFrame


@dataclass(frozen=True)
class Dataset:
    """Events, items, users and edges.

    Attributes:
        events: user_id, item_id, timestamp (epoch seconds, or an order, or null), event_type, value and more; in the order in which
            they happened, ties in the order in which they were read.
        log: every event whatever its type, where `events` holds only positive ones; what features read. None: `events`.
        items: the catalogue, `journal.catalogue.ITEM_SCHEMA`.
        users: user_id and extra.
        edges: head, relation, tail, weight.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame = field(default_factory=pl.DataFrame)
    edges: pl.DataFrame = field(default_factory=pl.DataFrame)
    log: pl.DataFrame | None = None

    @classmethod
    def read(
        cls,
        events: Source,
        items: Source | None = None,
        users: Source | None = None,
        edges: Source | None = None,
        settings: Settings | None = None,
    ) -> Dataset:
        """Reads files or data frames with the same checks as `tastemaker import`, without a workspace.

        Args:
            events, items, users, edges: paths, globs, lists of these, or polars data frames; columns may be called by any alias.
            settings: what counts as positive and how rows are cleaned.

        Raises:
            InputError: a file is missing or makes no sense.
        """
        settings = settings or Settings()
        with tempfile.TemporaryDirectory(prefix="tastemaker-") as folder:
            journal = Journal.open(Path(folder) / "journal")
            intake = Intake(journal, settings.data, Quarantine(Path(folder) / "reports"))
            intake.events(_paths(events, Path(folder), "events"))
            for source, name, take in (
                (items, "items", intake.items),
                (users, "users", intake.users),
                (edges, "edges", intake.edges),
            ):
                if source is not None:
                    take(_paths(source, Path(folder), name))
            intake.quarantine.close()
            data = cls.from_journal(journal, settings)
            journal.close()
        return data

    @classmethod
    def from_journal(cls, journal: Journal, settings: Settings | None = None, upto: tuple[int, int] | None = None) -> Dataset:
        """All that a journal holds, positives only where the settings name labels.

        Args:
            upto: position and change of before, as `Journal.marks` gives them: later events and items are left out. None: nothing is.
        """
        position, change = upto or journal.marks()
        log = journal.read(upto=position)
        events = log if settings is None else positives(log, settings.data.positive)
        return cls(happened(events), journal.items(change), journal.users(), journal.edges(), log)

    @property
    def time_is_order(self) -> bool:
        """True where times are missing or only give an order inside one user's history."""
        times = self.events[Columns.TIMESTAMP]
        latest = times.max()
        return times.null_count() > 0 or latest is None or float(latest) < ORDER_BELOW  # type: ignore[arg-type]

    def item_ids(self) -> list[str]:
        """All items: those of the catalogue in its order, then those that only events name."""
        known = self.items[Columns.ITEM_ID] if self.items.height else pl.Series(Columns.ITEM_ID, [], dtype=pl.String)
        met = self.events[Columns.ITEM_ID].unique(maintain_order=True)
        return [*known.to_list(), *met.filter(~met.is_in(known.implode())).to_list()]

    def catalogue(self) -> pl.DataFrame:
        """One row for each of `item_ids()`, with nulls where only events name the item."""
        ids = pl.DataFrame({Columns.ITEM_ID: self.item_ids()}, schema={Columns.ITEM_ID: pl.String})
        items = self.items if self.items.height else pl.DataFrame(schema=ITEM_SCHEMA)
        return ids.join(items, on=Columns.ITEM_ID, how="left", maintain_order="left")

    def with_events(self, events: pl.DataFrame) -> Dataset:
        """The same catalogue with other events, and no log besides them."""
        return replace(self, events=events, log=None)

    def fingerprint(self) -> str:
        """Hash over who met what, when, in which order, and over the edges, if there are any."""
        digest = hashlib.sha256()
        for name in (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP):
            digest.update(self.events[name].hash(seed=0).to_numpy().tobytes())
        for name in self.edges.columns if self.edges.height else ():
            digest.update(self.edges[name].hash(seed=0).to_numpy().tobytes())
        return digest.hexdigest()


def happened(events: pl.DataFrame) -> pl.DataFrame:
    """Events in the order in which they happened; ties in time keep the order of the log, for where times are whole days that order tells."""
    return events if events[Columns.TIMESTAMP].null_count() else events.sort(Columns.TIMESTAMP, maintain_order=True)


def _paths(source: Source, folder: Path, name: str) -> list[str | Path]:
    if isinstance(source, pl.DataFrame):
        path = folder / f"{name}.parquet"
        source.write_parquet(path)
        return [path]
    if isinstance(source, str | Path):
        return [source]
    paths = list(source)
    if not paths:
        raise InputError(f"{name}: an empty list of files. Give at least one path, glob or data frame.")
    return paths
