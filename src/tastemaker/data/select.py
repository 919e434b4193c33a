"""Which events count: expressions such as `purchase`, `rating>=4`, `watch_ratio>=0.5`, as gorse writes them."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import polars as pl

from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError

_GRAMMAR = re.compile(r"^\s*([^<>=!\s]+)\s*(?:(>=|<=|==|!=|=|>|<)\s*(-?\d+(?:\.\d+)?))?\s*$")
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def parse_label(expression: str) -> pl.Expr:
    """A label as a condition on event rows: the event type, and its value where one is compared.

    Raises:
        SettingsError: the text is no such expression; the message shows the grammar.
    """
    match = _GRAMMAR.match(expression)
    if match is None:
        raise SettingsError(
            f"{expression!r} is no label. Expected an event type, as in `purchase`, or an event type with a bound on its value, "
            "as in `rating>=4` (operators: >= <= == != > <)."
        )
    name, sign, number = match.groups()
    condition = pl.col(Columns.EVENT_TYPE) == name
    return condition if sign is None else condition & _COMPARE[sign](pl.col(Columns.VALUE), float(number)).fill_null(False)


def positives(events: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """The events that satisfy at least one label; all of them where there is no label.

    Raises:
        SettingsError: no event satisfies any label; the message lists the event types that are there.
    """
    if not labels or events.is_empty():
        return events
    found = events.filter(pl.any_horizontal(*(parse_label(label) for label in labels)))
    if found.is_empty():
        kinds = ", ".join(
            f"{kind} ({count:,})" for kind, count in events[Columns.EVENT_TYPE].value_counts(sort=True).head(8).iter_rows()
        )
        raise SettingsError(
            f"No event is a positive one: data.positive is {list(labels)}, but the journal holds {kinds}. "
            "Name some of these in data.positive, or leave it empty to count every event."
        )
    return found
