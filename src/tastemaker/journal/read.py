"""How stored events look as columns, and how columns become events again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tastemaker.journal.identity import CONTENT_ID, Words, content_numbers, hexadecimal, id_numbers
from tastemaker.schema.columns import Columns
from tastemaker.schema.events import Event, StoredEvent

EVENT_SCHEMA: dict[str, Any] = {
    Columns.SEQ: pl.Int64,
    Columns.EVENT_ID: pl.String,
    Columns.USER_ID: pl.String,
    Columns.ITEM_ID: pl.String,
    Columns.TIMESTAMP: pl.Float64,
    Columns.EVENT_TYPE: pl.String,
    Columns.VALUE: pl.Float64,
    Columns.REQUEST_ID: pl.String,
    Columns.SESSION_ID: pl.String,
    Columns.POSITION: pl.Int64,
    Columns.PROPENSITY: pl.Float64,
    Columns.CONTEXT: pl.String,
}
"""Columns of the journal in order; `context` is JSON text."""
_PIECE = 1_000_000
NUMBER = "event_number"
"""Column of a segment: the number that names each event (`journal.identity`). `event_id` is kept beside it only where a file had ids."""


def segment_frame(path: Path, first: int) -> pl.LazyFrame:
    """A sealed segment as the journal's columns, lazily; ids of contents become text only where `event_id` is asked for.

    Args:
        path: the Parquet file; columns that it lacks are null. first: sequence number of its first row; one from which somebody was erased says
            each row's own.
    """
    table = pl.scan_parquet(path)
    there = set(table.collect_schema().names())
    if Columns.SEQ not in there:
        table, there = pl.scan_parquet(path, row_index_name=Columns.SEQ, row_index_offset=first), there | {Columns.SEQ}
    columns = [(pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name) for name, kind in EVENT_SCHEMA.items()]
    if NUMBER in there:
        texts = pl.col(NUMBER).map_batches(hexadecimal, return_dtype=pl.String, is_elementwise=True)
        place = list(EVENT_SCHEMA).index(Columns.EVENT_ID)
        columns[place] = (pl.coalesce(Columns.EVENT_ID, texts) if Columns.EVENT_ID in there else texts).alias(Columns.EVENT_ID)
    return table.select(columns)


def segment_numbers(path: Path) -> Iterator[Words]:
    """The numbers that name a segment's events, uint64, in pieces.

    Segments of older versions hold ids as text. An id of 16 hexadecimal digits may have been the sender's own or a hash of the content, so
    such an event has both numbers.
    """
    scan = pl.scan_parquet(path)
    if NUMBER in scan.collect_schema().names():
        for batch in scan.select(NUMBER).collect_batches(chunk_size=_PIECE):
            yield batch[NUMBER].to_numpy()
        return
    for batch in scan.collect_batches(chunk_size=_PIECE):
        names = batch[Columns.EVENT_ID]
        yield id_numbers(names)
        yield content_numbers(batch.filter(names.str.contains(CONTENT_ID)))


def event_rows(table: pl.DataFrame) -> list[StoredEvent]:
    """Rows of a table with the journal's columns as events."""
    found = []
    for row in table.iter_rows(named=True):
        seq = row.pop(Columns.SEQ)
        if row[Columns.CONTEXT] is not None:
            row[Columns.CONTEXT] = msgspec.json.decode(row[Columns.CONTEXT])
        found.append(StoredEvent(seq, Event(**{name: value for name, value in row.items() if value is not None})))
    return found
