"""What a good event row is. Every rule has a reason in plain words; a refused row keeps its place and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.delimited import WRONG_ENCODING, Reject
from tastemaker.data.sources import Chunk
from tastemaker.data.times import ORDER_BELOW, TimeFormat, parse, scale_of
from tastemaker.journal.identity import Letters, Words, content_numbers, id_numbers, mixed
from tastemaker.journal.read import EVENT_SCHEMA, NUMBER
from tastemaker.schema.columns import DEFAULT_EVENT_TYPE, EVENT_COLUMNS, Columns

MISSING_USER = "missing user_id"
MISSING_ITEM = "missing item_id"
BAD_TIME = "unparsable timestamp"
OTHER_UNIT = "timestamp in another unit than the file's"
FUTURE_TIME = "timestamp in the future"
NOT_FINITE = "impossible value (NaN or infinite)"
NOT_NUMBER = "value is no number"
BAD_TEXT = "id is no valid UTF-8"
TOO_MANY = "inhuman rate of events (bot)"
NUMBERS = (Columns.TIMESTAMP, Columns.VALUE, Columns.PROPENSITY, Columns.POSITION)
"""Columns of events that may stay numbers on the way from a typed file."""
_IDS = (Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_ID)
_LEAST_BITS, _MOST_BITS = 23, 32
_SPARSE = 5
"""At least 2^`_SPARSE` bits of the map for each event, until it is largest: up to 3 % of new numbers are looked for in vain. A larger map costs page faults."""
_BLOCK = 1 << 15
_DAY = 86_400.0


class Seen:
    """Numbers of the events met so far: sorted runs of 8 bytes an event, and a map of bits before them that answers for most.

    A number whose bit is not set was never met; only the others, a few in a hundred, are looked for in the runs.
    """

    def __init__(self) -> None:
        self._runs: list[Words] = []
        self._count = 0
        self._bits = _LEAST_BITS
        self._map = np.zeros(1 << (self._bits - 3), dtype=np.uint8)

    def new(self, numbers: Words) -> NDArray[np.bool_]:
        """True for the first meeting of each number; all of them are remembered."""
        ordered = np.sort(numbers)
        again = np.zeros(len(ordered), dtype=bool)
        again[1:] = ordered[1:] == ordered[:-1]
        unique = ordered[~again] if again.any() else ordered
        known = self._known(unique)
        suspects = np.unique(np.concatenate([ordered[again], known]))
        self._remember(unique if not len(known) else np.setdiff1d(unique, known, assume_unique=True))
        fresh = np.ones(len(numbers), dtype=bool)
        if len(suspects):
            rows = np.flatnonzero(_among(numbers, suspects))
            values, first = np.unique(numbers[rows], return_index=True)
            fresh[rows] = False
            fresh[rows[first[~np.isin(values, known)]]] = True
        return fresh

    def _known(self, unique: Words) -> Words:
        found: list[Words] = []
        for start in range(0, len(unique), _BLOCK):
            block = unique[start : start + _BLOCK]
            bits = (block >> np.uint64(64 - self._bits)).view(np.int64)
            maybe = block[(self._map[bits >> 3] >> (bits & 7).astype(np.uint8)) & 1 == 1]
            found.append(maybe)
        maybe = np.concatenate(found) if found else unique
        known = np.zeros(len(maybe), dtype=bool)
        for run in self._runs:
            known |= run[np.minimum(np.searchsorted(run, maybe), len(run) - 1)] == maybe
        return maybe[known]

    def _remember(self, unique: Words) -> None:
        if not len(unique):
            return
        self._runs.append(unique)
        self._count += len(unique)
        if len(self._runs) > 128:
            merged = np.concatenate(self._runs)
            merged.sort()
            self._runs = [merged]
        if self._count << _SPARSE > 1 << self._bits and self._bits < _MOST_BITS:
            self._bits = min(self._bits + 3, _MOST_BITS)
            self._map = np.zeros(1 << (self._bits - 3), dtype=np.uint8)
            for run in self._runs:
                self._mark(run)
        else:
            self._mark(unique)

    def _mark(self, ordered: Words) -> None:
        for start in range(0, len(ordered), _BLOCK):
            bits = (ordered[start : start + _BLOCK] >> np.uint64(64 - self._bits)).view(np.int64)
            places = bits >> 3
            begins = np.flatnonzero(np.diff(places, prepend=-1))
            flags = np.left_shift(np.uint8(1), (bits & 7).astype(np.uint8))
            self._map[places[begins]] |= np.bitwise_or.reduceat(flags, begins)


def _among(numbers: Words, few: Words) -> NDArray[np.bool_]:
    """Which numbers are among a few: a small table of bits says no to most."""
    table = np.zeros(1 << 20, dtype=bool)
    table[(few & np.uint64(0xFFFFF)).astype(np.int64)] = True
    maybe = table[(numbers & np.uint64(0xFFFFF)).astype(np.int64)]
    maybe[maybe] = np.isin(numbers[maybe], few)
    return maybe


@dataclass
class Bursts:
    """An upper bound of the events of any user in any day: counters that several users may share, never fewer than the truth."""

    counters: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 20, dtype=np.int64))

    def add(self, users: Words, times: NDArray[np.float64]) -> None:
        """Counts events of users, by `text_numbers`, at epoch seconds."""
        timed = times > ORDER_BELOW
        if not timed.all():
            users, times = users[timed], times[timed]
        days = (times * (1.0 / _DAY)).astype(np.uint64)
        keys = mixed(users + days) >> np.uint64(44)
        self.counters += np.bincount(keys.view(np.int64), minlength=len(self.counters))

    def above(self, limit: int) -> bool:
        """Whether anyone may have had more than `limit` events in a day."""
        return bool(self.counters.max() > limit)


@dataclass
class Judged:
    """Rows of a chunk with their verdicts.

    Attributes:
        table: typed columns of events, those that the file has.
        good: bool [rows].
        rejects: the refused rows with their lines and reasons.
        numbers: names of the events, uint64 [rows].
        users: `text_numbers` of the users, uint64 [rows].
        elsewhere: rows whose time is in another unit than the file's.
    """

    table: pl.DataFrame
    good: NDArray[np.bool_]
    rejects: list[Reject]
    numbers: Words
    users: Words
    elsewhere: int

    def times(self) -> pl.Series:
        """Times of the good rows, epoch seconds."""
        times = self.table[Columns.TIMESTAMP]
        return times if self.good.all() else times.filter(pl.Series(self.good))

    def keep(self, fresh: NDArray[np.bool_]) -> pl.DataFrame:
        """The good rows that are new, as a part of the journal: their names, and no column that is empty.

        Args:
            fresh: bool [good rows].
        """
        mask = self.good.copy()
        mask[mask] = fresh
        table = self.table.with_columns(pl.Series(NUMBER, self.numbers))
        if not mask.all():
            table = table.filter(pl.Series(mask))
        filled = [name for name in table.columns if table[name].null_count() < table.height]
        return table.select(pl.col(name).cast(EVENT_SCHEMA.get(name, pl.UInt64), strict=False) for name in filled)


def judge(chunk: Chunk, form: TimeFormat, default_type: str, latest: float) -> Judged:
    """What becomes of each row of a chunk; a pure function, so that chunks can be judged side by side.

    Args:
        chunk: rows. form: how the file writes its times. default_type: event type of rows that name none.
        latest: epoch seconds after which an event is in the future.
    """
    table, letters = event_table(chunk.table, form, default_type)
    known = {name: letters[name].numbers() for name in (Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_TYPE)}
    rules = _rules(table, letters, chunk.table, form, latest)
    elsewhere = sum(int(mask.sum()) for mask, reason in rules if reason == OTHER_UNIT) + _far(table, form)
    good = np.ones(table.height, dtype=bool)
    rules = [(mask, reason) for mask, reason in rules if mask.any()]
    for mask, _ in rules:
        good &= ~mask.to_numpy()
    numbers = content_numbers(table, known)
    if Columns.EVENT_ID in table.columns:
        own = (table[Columns.EVENT_ID].fill_null("") != "").to_numpy()
        numbers[own] = id_numbers(table[Columns.EVENT_ID].filter(pl.Series(own)))
        table = table.with_columns(pl.col(Columns.EVENT_ID).replace("", None))
    return Judged(table, good, _rejects(table, chunk.lines, rules), numbers, known[Columns.USER_ID], elsewhere)


def event_table(raw: pl.DataFrame, form: TimeFormat, default_type: str) -> tuple[pl.DataFrame, dict[str, Letters]]:
    """Rows as columns of events with the journal's types, still unjudged, and the letters of the ids; other columns become `context`."""
    columns: list[pl.Series] = []
    letters: dict[str, Letters] = {}
    for name in EVENT_COLUMNS:
        column = raw[name] if name in raw.columns else None
        if name == Columns.TIMESTAMP:
            column = parse(column if column is not None else pl.repeat(None, raw.height, dtype=pl.String, eager=True), form)
        elif name == Columns.EVENT_TYPE:
            column, letters[name] = _types(column, raw.height, default_type)
        elif column is not None and name in _IDS:
            column, letters[name] = _stripped(column)
        elif column is not None and name in NUMBERS and not column.dtype.is_numeric():
            column = column.str.strip_chars().cast(pl.Float64, strict=False)
        if column is not None:
            columns.append(column.alias(name))
    extra = [name for name in raw.columns if name not in EVENT_COLUMNS]
    if extra:
        texts = raw.select(pl.struct(pl.col(extra).cast(pl.String)).struct.json_encode().alias(Columns.CONTEXT)).to_series()
        if Columns.CONTEXT in raw.columns:
            columns = [column for column in columns if column.name != Columns.CONTEXT]
            both = zip(raw[Columns.CONTEXT].cast(pl.String).to_list(), texts.to_list(), strict=True)
            texts = pl.Series(Columns.CONTEXT, [_with_context(own, more) for own, more in both], dtype=pl.String)
        columns.append(texts)
    return pl.DataFrame(columns), letters


def _with_context(own: str | None, more: str) -> str:
    """Further columns of a row beside the fields of its own context, which win; a context that is no JSON object is kept as the field `context`."""
    fields = msgspec.json.decode(more)
    try:
        found = msgspec.json.decode(own) if own and own.strip() else {}
    except msgspec.DecodeError:
        found = own
    fields |= found if isinstance(found, dict) else {Columns.CONTEXT: found}
    return msgspec.json.encode(fields).decode()


def _stripped(column: pl.Series) -> tuple[pl.Series, Letters]:
    letters = Letters(column)
    if letters.plain:
        return column, letters
    column = column.str.strip_chars()
    return column, Letters(column)


def _types(column: pl.Series | None, rows: int, default_type: str) -> tuple[pl.Series, Letters]:
    if column is None:
        column = pl.repeat(default_type, rows, dtype=pl.String, eager=True)
    letters = Letters(column)
    if letters.plain and (letters.sizes > 0).all():
        return column, letters
    column = column.str.strip_chars().replace("", None).fill_null(default_type)
    return column, Letters(column)


def _rules(
    table: pl.DataFrame, letters: dict[str, Letters], raw: pl.DataFrame, form: TimeFormat, latest: float
) -> list[tuple[pl.Series, str]]:
    """For each reason to refuse a row the rows it holds for, the first reason counts."""
    user, item, time = table[Columns.USER_ID], table[Columns.ITEM_ID], table[Columns.TIMESTAMP]
    rules = [
        (pl.Series(letters[Columns.USER_ID].sizes == 0), MISSING_USER),
        (pl.Series(letters[Columns.ITEM_ID].sizes == 0), MISSING_ITEM),
    ]
    if not (letters[Columns.USER_ID].ascii and letters[Columns.ITEM_ID].ascii):
        rules.append((user.str.starts_with(WRONG_ENCODING) | item.str.starts_with(WRONG_ENCODING), BAD_TEXT))
    if form.name not in ("none", "order"):
        rules.append(((~time.is_finite()).fill_null(True), BAD_TIME))
        if scale_of(form) > 1.0:
            rules.append((time.abs() < ORDER_BELOW, OTHER_UNIT))
        rules.append((time > latest, FUTURE_TIME))
    elif form.name == "order" and not raw[Columns.TIMESTAMP].dtype.is_numeric():
        rules.append((time.is_null() & _said(raw[Columns.TIMESTAMP]), BAD_TIME))
        rules.append((time > latest, FUTURE_TIME))
    if Columns.VALUE in table.columns:
        value = table[Columns.VALUE]
        if not raw[Columns.VALUE].dtype.is_numeric():
            rules.append((value.is_null() & _said(raw[Columns.VALUE]), NOT_NUMBER))
        rules.append((value.is_nan() | value.is_infinite(), NOT_FINITE))
    return [(mask.fill_null(False), reason) for mask, reason in rules]


def _said(column: pl.Series) -> pl.Series:
    return column.is_not_null() & (column.str.strip_chars() != "")


def _far(table: pl.DataFrame, form: TimeFormat) -> int:
    """Rows beyond the year 5000: times of a smaller unit in a file of a larger one."""
    times = table[Columns.TIMESTAMP]
    return 0 if form.name in ("none", "order", "iso") else int(((times >= 1e11) & times.is_finite()).sum())


def _rejects(table: pl.DataFrame, lines: NDArray[np.int64], rules: list[tuple[pl.Series, str]]) -> list[Reject]:
    if not rules:
        return []
    reasons = np.full(table.height, -1, dtype=np.int8)
    for place in reversed(range(len(rules))):
        reasons[rules[place][0].to_numpy()] = place
    bad = np.flatnonzero(reasons >= 0)
    names, words, encode = table.columns, [reason for _, reason in rules], msgspec.json.encode
    texts = [
        encode({name: value for name, value in zip(names, row, strict=False) if value is not None}).decode()
        for row in table[bad].rows()
    ]
    return [
        Reject(line, words[place], text)
        for line, place, text in zip(lines[bad].tolist(), reasons[bad].tolist(), texts, strict=True)
    ]


def default_type(columns: list[str], renamed_value: str | None) -> str:
    """The event type of rows that name none: `rating` where the value column was called so."""
    return "rating" if renamed_value and renamed_value.lower() in ("rating", "overall") else DEFAULT_EVENT_TYPE
