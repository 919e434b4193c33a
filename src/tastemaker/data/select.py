"""Which events count as positive, by the labels of the settings."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.labels import COMPARE, parse_label


def condition(expression: str) -> pl.Expr:
    """A label as a condition on event rows.

    Raises:
        SettingsError: the text is no label.
    """
    label = parse_label(expression)
    of_type = pl.col(Columns.EVENT_TYPE) == label.event_type
    if label.sign is None:
        return of_type
    compared: pl.Expr = COMPARE[label.sign](pl.col(Columns.VALUE), label.bound)  # type: ignore[arg-type, assignment]
    return of_type & compared.fill_null(False)


def positives(events: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """The events that satisfy at least one label; all of them where there is no label.

    Raises:
        SettingsError: no event satisfies any label; the message lists the event types that are there.
    """
    if not labels or events.is_empty():
        return events
    found = events.filter(pl.any_horizontal(*(condition(label) for label in labels)))
    if found.is_empty():
        kinds = ", ".join(
            f"{kind} ({count:,})" for kind, count in events[Columns.EVENT_TYPE].value_counts(sort=True).head(8).iter_rows()
        )
        raise SettingsError(
            f"No event is a positive one: data.positive is {list(labels)}, but the journal holds {kinds}. "
            "Name some of these in data.positive, or leave it empty to count every event."
        )
    return found
