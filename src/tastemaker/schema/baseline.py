"""The baseline profile: what the data looked like when a brain learned from it, so that later data can be compared with it.

It holds counts, not shares: a test of drift needs to know how many rows stand behind a share. Fixed thresholds of one statistic (0.1 and 0.2
of the population stability index) call every small sample drifted and no large one.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

BINS = 20
"""Quantile bins of a number: 5 % of the rows each, where values are not tied."""
TOP = 50
"""Values of a category that are counted by name; the others are counted together."""


class NumberBaseline(msgspec.Struct, kw_only=True, frozen=True):
    """How a number was spread.

    Attributes:
        count: rows with a finite number. missing: rows without.
        mean, std: of the finite numbers (std divides by the count). low, high: the smallest and the largest.
        edges: inner edges of the bins, growing, at quantiles; bin i holds edges[i - 1] < x <= edges[i], the outer bins are open.
        counts: rows in each bin, one more than there are edges.
    """

    count: int
    missing: int
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    edges: list[float] = []
    counts: list[int] = []

    def binned(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Rows of other data in the same bins, int64 [bins]; what is not finite is left out."""
        return binned(values, self.edges)


class CategoryBaseline(msgspec.Struct, kw_only=True, frozen=True):
    """How often each value came.

    Attributes:
        count: rows with a value. missing: rows without.
        distinct: how many different values there were.
        counts: the most frequent values with their rows, most frequent first, at most `TOP`.
        other: rows of all other values.
    """

    count: int
    missing: int
    distinct: int
    counts: dict[str, int]
    other: int


class PopularityBaseline(msgspec.Struct, kw_only=True, frozen=True):
    """How events were shared out among items.

    Attributes:
        items: the most met items with their events.
        top_1, top_10: share of the events that the top 1 % and 10 % of the met items take, at least one item.
        gini: 0 if all met items are met equally often, towards 1 if one takes all.
    """

    items: CategoryBaseline
    top_1: float
    top_10: float
    gini: float


class Baseline(msgspec.Struct, kw_only=True, frozen=True):
    """All of it.

    Attributes:
        positive: the labels of the events that were counted; empty: every event. Compare like with like.
        events, users, items, catalogue: rows, users with events, items with events, items in the catalogue.
        first, last: epoch seconds of the earliest and the latest event, or None where times are missing or only an order.
        event_types, value: of the events. events_per_user: one row a user.
        popularity: how events fall on items.
        missing: for `events.timestamp`, `items.title`, …: rows without. The rows looked at are `events` and `catalogue`.
        numbers, categories: of the catalogue: price, letters of the text; categories (one row for each category of an item).
        features: by the name of a feature.
    """

    version: int = 1
    positive: list[str] = []
    events: int = 0
    users: int = 0
    items: int = 0
    catalogue: int = 0
    first: float | None = None
    last: float | None = None
    event_types: CategoryBaseline
    value: NumberBaseline
    events_per_user: NumberBaseline
    popularity: PopularityBaseline
    missing: dict[str, int] = {}
    numbers: dict[str, NumberBaseline] = {}
    categories: dict[str, CategoryBaseline] = {}
    features: dict[str, NumberBaseline] = {}


def binned(values: NDArray[Any], edges: list[float]) -> NDArray[np.int64]:
    """Finite values in each bin, int64 [edges + 1]; bin i holds edges[i - 1] < x <= edges[i]."""
    finite = values[np.isfinite(values)]
    places = np.searchsorted(np.asarray(edges, dtype=np.float64), finite, side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.int64)
