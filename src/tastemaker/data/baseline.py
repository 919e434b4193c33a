"""Measures the baseline profile: of a data set in memory, or of a log that does not fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.numbers import numbers_of
from tastemaker.data.profile_catalogue import categories_of, letters, missing_of
from tastemaker.data.profile_times import timed_only
from tastemaker.data.select import condition
from tastemaker.data.tallies import category_of, each, top_share
from tastemaker.evaluation.ranking import gini
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.schema.baseline import Baseline, NumberBaseline, PopularityBaseline
from tastemaker.schema.columns import Columns

_NO_VALUE = pl.lit(None, dtype=pl.Float64).alias(Columns.VALUE)


def baseline_of(dataset: Dataset, labels: Sequence[str] = ()) -> Baseline:
    """The baseline of what a brain learns from.

    Args:
        dataset: its events are counted as they are.
        labels: by which they were chosen, `settings.data.positive`; they are only noted.
    """
    events = dataset.events if Columns.VALUE in dataset.events.columns else dataset.events.with_columns(_NO_VALUE)
    items = dataset.items if dataset.items.height else pl.DataFrame(schema=ITEM_SCHEMA)
    return _measure(events.lazy(), items, labels)


def baseline_of_log(events: pl.LazyFrame, items: pl.DataFrame, labels: Sequence[str] = ()) -> Baseline:
    """The same of a log, of which the events with one of the labels are counted; all of them where there is no label."""
    chosen = events.filter(pl.any_horizontal(*(condition(label) for label in labels))) if labels else events
    return _measure(chosen, items, labels)


def features_of(names: Sequence[str], values: NDArray[np.float32]) -> dict[str, NumberBaseline]:
    """How each feature of a ranker's rows was spread, before scaling.

    Args:
        names, values: of the raw columns, float32 [R, F].
    """
    table = pl.LazyFrame({name: values[:, place] for place, name in enumerate(names)})
    return {name: numbers_of(table, name).baseline for name in names}


def _measure(events: pl.LazyFrame, items: pl.DataFrame, labels: Sequence[str]) -> Baseline:
    time = pl.col(Columns.TIMESTAMP)
    total = int(events.select(pl.len()).collect(engine="streaming").item())
    timed, first, last = (
        timed_only(events).select(pl.len(), time.min().alias("a"), time.max().alias("b")).collect(engine="streaming").row(0)
    )
    users, of_items = each(events, Columns.USER_ID), each(events, Columns.ITEM_ID)
    value = numbers_of(events, Columns.VALUE).baseline
    down = np.sort(of_items)[::-1]
    numbers = {Columns.PRICE: numbers_of(items.lazy(), Columns.PRICE), "letters": numbers_of(letters(items).lazy(), "letters")}
    return Baseline(
        positive=list(labels),
        events=total,
        users=len(users),
        items=len(of_items),
        catalogue=items.height,
        first=first,
        last=last,
        event_types=category_of(events, Columns.EVENT_TYPE),
        value=value,
        events_per_user=numbers_of(pl.LazyFrame({"events": users}), "events").baseline,
        popularity=PopularityBaseline(
            items=category_of(events, Columns.ITEM_ID),
            top_1=top_share(down, 0.01),
            top_10=top_share(down, 0.10),
            gini=gini(of_items.astype(np.float64)),
        ),
        missing={
            "events.timestamp": total - timed,
            "events.value": value.missing,
            **{f"items.{name}": count for name, count in missing_of(items).items()},
        },
        numbers={name: one.baseline for name, one in numbers.items()},
        categories={Columns.CATEGORIES: categories_of(items)},
    )
