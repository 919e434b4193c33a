"""What files of a kind have looked like so far, and whether the next one looks the same.

The journal remembers the columns that files of events, items, users and edges had, what they held and how they wrote their times. A later
file may add columns. A file that lacks a known column which all files before it had, that holds text where numbers stood, numbers where lists
stood or the other way round, or whose times are of another nature, is refused with a sentence that says so; `accept_drift` lets it in and makes
it the new habit. Columns that the project does not know, and columns that a file has but never filled, are never a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tastemaker.data.sources import Chunk
from tastemaker.data.times import TimeFormat
from tastemaker.journal.stores import Habit
from tastemaker.schema.columns import EDGE_COLUMNS, EVENT_COLUMNS, ITEM_COLUMNS, Columns
from tastemaker.schema.errors import InputError

KNOWN = {"events": EVENT_COLUMNS, "items": ITEM_COLUMNS, "users": (Columns.USER_ID,), "edges": EDGE_COLUMNS}
_NUMBERS = (Columns.VALUE, Columns.POSITION, Columns.PROPENSITY, Columns.PRICE, Columns.WEIGHT)
_TIMES = (Columns.TIMESTAMP, Columns.CREATED_AT)
_LOOK = 10_000
_MIXED_LEAST, _MIXED_SHARE = 10, 0.01
_UNITS = {"s": "epoch seconds", "ms": "epoch milliseconds", "us": "epoch microseconds", "ns": "epoch nanoseconds", "iso": "dates"}
HOW = "If this is meant, import with --accept-drift, and it is the new habit; else export the file again as before."


@dataclass
class Contract:
    """The habits of one kind of file while an import runs.

    Attributes:
        kind: `events`, `items`, `users` or `edges`.
        habits: what the journal remembers, by column; the entry `""` counts files.
        accept: let files in that break a habit.
        told: sentences for the report.
    """

    kind: str
    habits: dict[str, Habit]
    accept: bool = False
    told: list[str] = field(default_factory=list)
    _files: list[Look] = field(default_factory=list)

    def file(self, path: Path) -> Look:
        """A look at one more file."""
        self._files.append(Look(path, self))
        return self._files[-1]

    def renewed(self) -> dict[str, Habit]:
        """The habits after this import, for the journal to remember."""
        before = self.habits.get("", Habit("", 0)).files
        habits = dict(self.habits)
        for look in self._files:
            if not look.holds and not look.there:
                continue
            for name, holds in look.holds.items():
                old = habits.get(name, Habit(holds, 0))
                habits[name] = Habit(holds, old.files, old.low, old.high)
            for name in look.there & set(habits):
                old = habits[name]
                low, high = look.bounds if name == Columns.TIMESTAMP else (None, None)
                habits[name] = Habit(old.holds, old.files + 1, _least(old.low, low), _most(old.high, high))
            before += 1
        habits[""] = Habit("", before)
        return habits


@dataclass
class Look:
    """What one file shows, chunk by chunk.

    Attributes:
        path: the file. there: its columns. holds: what those that are filled hold. bounds: first and last time, epoch seconds.
    """

    path: Path
    contract: Contract
    there: set[str] = field(default_factory=set)
    holds: dict[str, str] = field(default_factory=dict)
    bounds: tuple[float | None, float | None] = (None, None)
    _rows: int = 0
    _elsewhere: int = 0

    def see(self, chunk: Chunk) -> None:
        """Takes one chunk in.

        Raises:
            InputError: a column holds something else than before, or is gone.
        """
        self.there |= set(chunk.table.columns)
        new = {name: holds(chunk, name) for name in chunk.table.columns if name not in self.holds}
        new = {name: found for name, found in new.items() if found != "nothing"}
        self.holds |= new
        for name, found in new.items():
            old = self.contract.habits.get(name)
            if old is not None and _differs(name, old.holds, found):
                self._refuse(
                    f"{name} holds {_words(found)}{_example(chunk, name)}, but it held {_words(old.holds)} in the files before"
                )
        if chunk.whole_header:
            self._check_gone()

    def see_form(self, form: TimeFormat) -> None:
        """Takes in how the file writes its times.

        Raises:
            InputError: times became an order, or an order times.
        """
        old = self.contract.habits.get(Columns.TIMESTAMP)
        if form.name == "none":
            return
        self.holds[Columns.TIMESTAMP] = form.name
        if old is None or old.holds == form.name or old.holds not in (*_UNITS, "order"):
            return
        if "order" in (old.holds, form.name):
            span = "" if old.low is None or old.high is None else f" (from {old.low:.0f} to {old.high:.0f} in epoch seconds)"
            self._refuse(f"{form.words}, but the files before held {_UNITS.get(old.holds, 'an order, not a time')}{span}")
            return
        self.contract.told.append(f"{self.path.name}: the files before wrote {_UNITS[old.holds]}; these times are converted")

    def see_times(self, times: pl.Series, rows: int, elsewhere: int) -> None:
        """Takes parsed times in.

        Args:
            times: epoch seconds of accepted rows. rows: rows of the chunk. elsewhere: those of them whose time is in another unit.
        """
        self._rows, self._elsewhere = self._rows + rows, self._elsewhere + elsewhere
        low, high = times.min(), times.max()
        if isinstance(low, float) and isinstance(high, float) and math.isfinite(low) and math.isfinite(high):
            self.bounds = (_least(self.bounds[0], low), _most(self.bounds[1], high))

    def end(self) -> None:
        """The file has ended.

        Raises:
            InputError: a column is gone, or the file mixes units of time; the last can't be accepted.
        """
        self._check_gone()
        if self._elsewhere > max(_MIXED_LEAST, _MIXED_SHARE * self._rows):
            unit = _UNITS.get(self.holds.get(Columns.TIMESTAMP, ""), "one unit")
            raise InputError(
                f"{self.path} mixes units of time: most are {unit}, but {self._elsewhere:,} of {self._rows:,} rows are in another unit. Expected one unit "
                "a file; write all times alike, or split the file by unit. Nothing of it was kept."
            )
        files = self.contract.habits.get("", Habit("", 0)).files
        added = sorted(name for name in self.holds if files and name not in self.contract.habits)
        if added:
            self.contract.told.append(f"{self.path.name}: new since the files before: {', '.join(added)}; kept")

    def _check_gone(self) -> None:
        if not self.there:
            return  # a file without a row says nothing
        files = self.contract.habits.get("", Habit("", 0)).files
        gone = [name for name, habit in self.contract.habits.items() if name and habit.files == files and name not in self.there]
        known = [name for name in gone if name in KNOWN[self.contract.kind]]
        if known:
            self._refuse(
                f"no column for {', '.join(known)}, which every file of {self.contract.kind} before had (so far {files:,})"
            )
        other = sorted(set(gone) - set(known))
        sentence = f"{self.path.name}: gone since the files before: {', '.join(other)}"
        if other and sentence not in self.contract.told:
            self.contract.told.append(sentence)

    def _refuse(self, what: str) -> None:
        if not self.contract.accept:
            raise InputError(f"{self.path}: {what}. {HOW}")
        sentence = f"{self.path.name}: {what}; accepted"
        if sentence not in self.contract.told:
            self.contract.told.append(sentence)


def holds(chunk: Chunk, name: str) -> str:
    """What a column holds: `number`, `text`, `list`, `time` or `nothing`, by the file's own type or else by most of the first values."""
    column = chunk.table[name]
    if name in chunk.types:
        return "nothing" if column.null_count() == column.len() else chunk.types[name]
    values = column.drop_nulls()
    values = values.filter(values.str.strip_chars() != "").head(_LOOK)
    if values.is_empty():
        return "nothing"
    if (values.str.starts_with("[") & values.str.ends_with("]")).mean() > 0.5:  # type: ignore[operator]
        return "list"
    numbers = values.str.strip_chars(" $€£¥").str.replace_all(",", "", literal=True).cast(pl.Float64, strict=False)
    return "number" if numbers.null_count() * 2 < numbers.len() else "text"


def _differs(name: str, old: str, new: str) -> bool:
    """Whether a change of what a column holds is one of meaning: ids and titles may well be all digits in one file and not in another."""
    if name in _TIMES or old == new:
        return False
    if name in _NUMBERS:
        return old == "number"
    return name in {known for columns in KNOWN.values() for known in columns} and {old, new} == {"list", "number"}


def _words(found: str) -> str:
    return {"number": "numbers", "text": "text", "list": "lists", "time": "times"}.get(found, found)


def _example(chunk: Chunk, name: str) -> str:
    values = chunk.table[name].drop_nulls().cast(pl.String)
    values = values.filter(values != "")
    return "" if values.is_empty() else f" such as {values[0][:40]!r}"


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _most(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else max(one, other)
