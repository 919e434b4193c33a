"""Tallies: how unevenly events fall on people and things, and how often each value came."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluation.ranking import gini
from tastemaker.schema.baseline import TOP, CategoryBaseline

RANKS = 80
"""Points of a rank-frequency line."""


class Tail(msgspec.Struct, kw_only=True, frozen=True):
    """How events fall on users, or on items, that have at least one.

    Attributes:
        n: how many there are. events: of all of them.
        most, mean, median: events of one of them.
        single: share of them with one event only.
        top_1, top_10: share of the events that the busiest 1 % and 10 % take, at least one of them.
        gini: 0 if all have equally many, towards 1 if one has all.
        ranks: (rank, events) at growing ranks, the busiest first.
    """

    n: int
    events: int
    most: int
    mean: float
    median: float
    single: float
    top_1: float
    top_10: float
    gini: float
    ranks: list[tuple[int, int]]


def tail_of(counts: NDArray[np.int64]) -> Tail:
    """The tail of counts, int64 [n]; n is at least 1."""
    down = np.sort(counts)[::-1]
    n, events = len(down), int(down.sum())
    ranks = np.unique(np.geomspace(1, n, RANKS).round().astype(np.int64))
    return Tail(
        n=n,
        events=events,
        most=int(down[0]),
        mean=events / n,
        median=float(np.median(down)),
        single=float((down == 1).mean()),
        top_1=top_share(down, 0.01),
        top_10=top_share(down, 0.10),
        gini=gini(down.astype(np.float64)),
        ranks=[(int(rank), int(down[rank - 1])) for rank in ranks],
    )


def top_share(down: NDArray[np.int64], share: float) -> float:
    """Share of the sum of `down` (falling) that its first `share` of places hold, at least one place."""
    return float(down[: max(math.ceil(len(down) * share - 1e-9), 1)].sum() / down.sum()) if len(down) else 0.0


def each(events: pl.LazyFrame, name: str) -> NDArray[np.int64]:
    """Events of each user, or item, int64 [n]."""
    return events.group_by(name).len().select("len").collect(engine="streaming")["len"].to_numpy().astype(np.int64)


def category_of(rows: pl.LazyFrame, name: str, missing: int = 0) -> CategoryBaseline:
    """How often each value of a column of texts came.

    Args:
        rows: the table. name: the column; nulls count as missing.
        missing: rows without a value that the table does not hold.
    """
    table = rows.group_by(name).len().sort(["len", name], descending=[True, False]).collect(engine="streaming")
    known = table.drop_nulls(name)
    count, top = int(known["len"].sum()), known.head(TOP)
    return CategoryBaseline(
        count=count,
        missing=missing + int(table["len"].sum()) - count,
        distinct=known.height,
        counts=dict(top.iter_rows()),
        other=count - int(top["len"].sum()),
    )


class Tally:
    """How often each value came, gathered part by part; memory grows with the values that differ."""

    def __init__(self) -> None:
        self._table = pl.DataFrame(schema={"value": pl.Int64, "rows": pl.Int64})

    def add(self, values: pl.Series) -> None:
        """Counts more values (whole numbers)."""
        more = values.cast(pl.Int64).alias("value").value_counts(name="rows").with_columns(pl.col("rows").cast(pl.Int64))
        self._table = pl.concat([self._table, more]).group_by("value").agg(pl.col("rows").sum()).sort("value")

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self._table["rows"].sum())

    def mean(self) -> float:
        """Mean of the values; 0 where there are none."""
        return float((self._table["value"] * self._table["rows"]).sum()) / max(self.total, 1)

    def quantile(self, share: float) -> int:
        """The smallest value that at least `share` of the values do not exceed; 0 where there are none."""
        if self._table.is_empty():
            return 0
        place = np.searchsorted(np.cumsum(self._table["rows"].to_numpy()), math.ceil(share * self.total - 1e-9), side="left")
        return int(self._table["value"][int(place)])

    def between(self, edges: Sequence[int]) -> list[int]:
        """Values in [edges[i], edges[i + 1]), and those from the last edge on."""
        values, rows = self._table["value"].to_numpy(), self._table["rows"].to_numpy()
        places = np.searchsorted(np.asarray(edges), values, side="right") - 1
        return [int(rows[places == place].sum()) for place in range(len(edges))]
