"""What a ranker's rows are labelled with: which labels of the settings hold for an item that was offered, because such an event followed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tastemaker.data.select import condition
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings

MOST_HEADS = 4
"""Event types that become heads where the settings name none."""
DAY = 86_400.0
_WHEN = "_when"


def heads_of(log: pl.DataFrame, settings: Settings) -> tuple[str, ...]:
    """The labels of the settings; where there are none, the most frequent event types but those that say that an item was shown.

    Raises:
        SettingsError: a text is no label, or one is named twice.
    """
    heads = settings.ranker.heads
    if len(set(heads)) < len(heads):
        raise SettingsError(f"ranker.heads names a label twice: {', '.join(heads)}. Name each once.")
    for head in heads:
        condition(head)
    if heads or Columns.EVENT_TYPE not in log.columns:
        return heads
    kinds = log[Columns.EVENT_TYPE].drop_nulls()
    kinds = kinds.filter(~kinds.is_in(list(settings.sampling.shown)) & ~kinds.str.contains(r"[<>=!\s]"))
    return tuple(kinds.value_counts().sort("count", Columns.EVENT_TYPE, descending=[True, False])[Columns.EVENT_TYPE][:MOST_HEADS])


def labels_of(log: pl.DataFrame, asked: pl.DataFrame, heads: Sequence[str], horizon_days: float = 0.0) -> FloatArray:
    """1 where an event of the asker with the item bears the label, at the moment of the question or later, float32 [R, H].

    Where the log has no times, any such event counts: the histories of the questions do not hold it.

    Args:
        log: every event, whatever its type. asked: user_id, item_id, timestamp of each row. heads: labels.
        horizon_days: events later than this many days after the question do not count; 0: all do.
    """
    pair = [Columns.USER_ID, Columns.ITEM_ID]
    rows = asked.select(*pair, pl.col(Columns.TIMESTAMP).cast(pl.Float64)).with_row_index("_row")
    timeless = log[Columns.TIMESTAMP].null_count() > 0
    found = np.zeros((asked.height, len(heads)), dtype=np.float32)
    for place, head in enumerate(heads):
        events = log.filter(condition(head)).select(*pair, pl.col(Columns.TIMESTAMP).cast(pl.Float64))
        if timeless:
            held = rows.join(events, on=pair, how="semi")["_row"]
        else:
            events = events.with_columns(pl.col(Columns.TIMESTAMP).alias(_WHEN)).sort(Columns.TIMESTAMP)
            ordered = rows.sort(Columns.TIMESTAMP, maintain_order=True)
            joined = ordered.join_asof(events, on=Columns.TIMESTAMP, by=pair, strategy="forward", check_sortedness=False)
            late = pl.col(_WHEN) - pl.col(Columns.TIMESTAMP)
            near = late.is_not_null() if horizon_days <= 0 else late.fill_null(np.inf) <= horizon_days * DAY
            held = joined.filter(near)["_row"]
        found[held.to_numpy(), place] = 1.0
    return found
