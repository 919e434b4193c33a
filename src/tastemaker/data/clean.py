"""What a good event row is. Every rule has a reason in plain words; a refused row keeps its place and its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from tastemaker.data.sources import WRONG_ENCODING, Chunk, Reject
from tastemaker.data.times import TimeFormat, parse
from tastemaker.journal.read import CONTENT_ID
from tastemaker.schema.columns import DEFAULT_EVENT_TYPE, EVENT_COLUMNS, Columns

MISSING_USER = "missing user_id"
MISSING_ITEM = "missing item_id"
BAD_TIME = "unparsable timestamp"
FUTURE_TIME = "timestamp in the future"
NOT_FINITE = "impossible value (NaN or infinite)"
NOT_NUMBER = "value is no number"
BAD_TEXT = "id is no valid UTF-8"
TOO_MANY = "inhuman rate of events (bot)"
_REASON = "_reason"
_NUMBERS = (Columns.VALUE, Columns.PROPENSITY, Columns.POSITION)


@dataclass
class Seen:
    """Content hashes of the events met so far: a few sorted arrays of 8 bytes an event, merged now and then."""

    runs: list[NDArray[np.uint64]] = field(default_factory=list)

    def new(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """True for the first meeting of each hash; all of them are remembered."""
        unique, first = np.unique(hashes, return_index=True)
        known = np.zeros(len(unique), dtype=bool)
        for run in self.runs:
            place = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            known |= run[place] == unique
        fresh = np.zeros(len(hashes), dtype=bool)
        fresh[first[~known]] = True
        if not known.all():
            self.runs.append(unique[~known])
        if len(self.runs) > 8:
            self.runs = [np.sort(np.concatenate(self.runs))]
        return fresh


def content_hash(texts: list[str]) -> NDArray[np.uint64]:
    """A stable 64-bit hash of each text (XXH3); the chance of one clash among 20 million is about 1 in 90,000."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(text.encode()) for text in texts), dtype=np.uint64, count=len(texts))


def id_numbers(names: pl.Series) -> NDArray[np.uint64]:
    """What `Seen` remembers of event ids: 16 hexadecimal digits are a content hash already, any other id is hashed."""
    numbers = np.empty(len(names), dtype=np.uint64)
    ours = names.str.contains(CONTENT_ID)
    mask = ours.to_numpy()
    numbers[mask] = names.filter(ours).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
    numbers[~mask] = content_hash([f"id\x1f{name}" for name in names.filter(~ours).to_list()])
    return numbers


def event_table(chunk: Chunk, form: TimeFormat, default_type: str) -> pl.DataFrame:
    """Rows of a chunk as events with typed columns, a `_line` and a `_reason` (null for a good row)."""
    table = chunk.table.with_columns(pl.Series("_line", chunk.lines, dtype=pl.Int64))
    absent = [name for name in EVENT_COLUMNS if name not in table.columns]
    table = table.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent)
    extra = [name for name in chunk.table.columns if name not in EVENT_COLUMNS]
    if extra and Columns.CONTEXT in absent:
        table = table.with_columns(pl.struct(extra).struct.json_encode().alias(Columns.CONTEXT))
    raw = table.select(*EVENT_COLUMNS)
    table = table.select("_line", *EVENT_COLUMNS).with_columns(
        pl.col(Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_ID).str.strip_chars(),
        pl.col(Columns.EVENT_TYPE).str.strip_chars().replace("", None).fill_null(default_type),
        parse(raw[Columns.TIMESTAMP], form).alias(Columns.TIMESTAMP),
        *(pl.col(name).str.strip_chars().cast(pl.Float64, strict=False).alias(name) for name in _NUMBERS),
    )
    return table.with_columns(_reasons(table, raw, form).alias(_REASON))


def _reasons(table: pl.DataFrame, raw: pl.DataFrame, form: TimeFormat) -> pl.Series:
    def said(name: str) -> pl.Series:
        return raw[name].is_not_null() & (raw[name].str.strip_chars() != "")

    def empty(name: str) -> pl.Series:
        return table[name].is_null() | (table[name] == "")

    wrong = table[Columns.USER_ID].str.starts_with(WRONG_ENCODING) | table[Columns.ITEM_ID].str.starts_with(WRONG_ENCODING)
    time = table[Columns.TIMESTAMP]
    bad_time = time.is_null() & said(Columns.TIMESTAMP) if form.name != "none" else pl.Series([False] * table.height)
    if form.name not in ("none", "order"):
        bad_time |= time.is_null() | time.is_nan() | time.is_infinite()
    value = table[Columns.VALUE]
    rules = [
        (empty(Columns.USER_ID), MISSING_USER),
        (empty(Columns.ITEM_ID), MISSING_ITEM),
        (wrong, BAD_TEXT),
        (bad_time, BAD_TIME),
        (value.is_null() & said(Columns.VALUE), NOT_NUMBER),
        (value.is_nan() | value.is_infinite(), NOT_FINITE),
    ]
    frame = pl.DataFrame({str(place): mask.fill_null(False) for place, (mask, _) in enumerate(rules)})
    choice = pl.coalesce(pl.when(pl.col(str(place))).then(pl.lit(reason)) for place, (_, reason) in enumerate(rules))
    return frame.select(choice).to_series()


def refuse_future(table: pl.DataFrame, latest: float) -> pl.DataFrame:
    """Marks rows later than `latest` (epoch seconds)."""
    late = (pl.col(Columns.TIMESTAMP) > latest) & pl.col(_REASON).is_null()
    return table.with_columns(pl.when(late).then(pl.lit(FUTURE_TIME)).otherwise(pl.col(_REASON)).alias(_REASON))


def split_rejects(table: pl.DataFrame) -> tuple[pl.DataFrame, list[Reject]]:
    """Good rows, and the refused ones with their line and reason."""
    bad = table.filter(pl.col(_REASON).is_not_null())
    rejects = [
        Reject(
            row["_line"],
            row[_REASON],
            msgspec.json.encode({k: v for k, v in row.items() if k[0] != "_" and v is not None}).decode(),
        )
        for row in bad.iter_rows(named=True)
    ]
    return table.filter(pl.col(_REASON).is_null()).drop(_REASON), rejects


def name_events(table: pl.DataFrame, seen: Seen) -> tuple[pl.DataFrame, int]:
    """Gives every event an id (its own, or a hash of its content) and drops repeats; also gives how many were repeats."""
    content = [name for name in EVENT_COLUMNS if name != Columns.EVENT_ID]
    own = (table[Columns.EVENT_ID].fill_null("") != "").to_numpy()
    texts = table.filter(pl.Series(~own)).select(
        pl.concat_str([pl.col(name).cast(pl.String).fill_null("") for name in content], separator="\x1f")
    )
    hashes = np.empty(table.height, dtype=np.uint64)
    hashes[~own] = content_hash(texts.to_series().to_list())
    hashes[own] = id_numbers(table.filter(pl.Series(own))[Columns.EVENT_ID])
    fresh = seen.new(hashes)
    names = pl.Series(Columns.EVENT_ID, [f"{value:016x}" for value in hashes.tolist()], dtype=pl.String)
    table = table.with_columns(
        pl.when(pl.col(Columns.EVENT_ID).fill_null("") != "")
        .then(pl.col(Columns.EVENT_ID))
        .otherwise(names)
        .alias(Columns.EVENT_ID)
    )
    return table.filter(pl.Series(fresh)), int((~fresh).sum())


def default_type(columns: list[str], renamed_value: str | None) -> str:
    """The event type of rows that name none: `rating` where the value column was called so."""
    return "rating" if renamed_value and renamed_value.lower() in ("rating", "overall") else DEFAULT_EVENT_TYPE
