"""How stored events look as columns, and how columns become events again."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

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
CONTENT_ID = "^[0-9a-f]{16}$"
"""How the id of an imported event looks that has none of its own: a hash of its content."""


def event_rows(table: pl.DataFrame) -> list[StoredEvent]:
    """Rows of a table with the journal's columns as events."""
    found = []
    for row in table.iter_rows(named=True):
        seq = row.pop(Columns.SEQ)
        if row[Columns.CONTEXT] is not None:
            row[Columns.CONTEXT] = msgspec.json.decode(row[Columns.CONTEXT])
        found.append(StoredEvent(seq, Event(**{name: value for name, value in row.items() if value is not None})))
    return found
