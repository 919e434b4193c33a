"""How numbers are spread: measured in pieces, so that a column never has to fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.baseline import BINS, NumberBaseline, binned

PIECE = 1_000_000
SAMPLE = 1_000_000
"""Rows from which quantiles are taken; all rows are counted."""
COLUMNS = 40
"""Columns of a histogram."""
FEW = 30
"""Up to this many different values each have a column of their own."""
WIDE = 1_000.0
"""From this ratio of the largest to the smallest (positive) number on, the columns grow by a factor."""
ABSURD = 1e100
"""Numbers from here on are no measurement: they count as missing, and their squares would overflow."""


class Histogram(msgspec.Struct, kw_only=True, frozen=True):
    """Columns of a histogram.

    Attributes:
        edges: column i holds edges[i] <= x < edges[i + 1], the last one its right edge too; empty where `values` are given.
        values: the different values, where there are few.
        counts: rows in each column.
        log: True where the columns grow by a factor.
    """

    edges: list[float] = []
    values: list[float] = []
    counts: list[int] = []
    log: bool = False


class Numbers(msgspec.Struct, kw_only=True, frozen=True):
    """A number's spread: its baseline and a histogram to look at. `median` is of the sample."""

    baseline: NumberBaseline
    median: float
    histogram: Histogram


@dataclass
class _Moments:
    """Count, mean and sum of squared distances, gathered piece by piece (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979)."""

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True

    def add(self, values: NDArray[np.float64], missing: int) -> None:
        self.missing += missing
        n = len(values)
        if not n:
            return
        mean, total = float(values.mean()), self.count + n
        apart = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + apart**2 * self.count * n / total
        self.mean += apart * n / total
        self.count = total
        self.whole = self.whole and bool((values == np.round(values)).all())
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))


def numbers_of(rows: pl.LazyFrame, name: str) -> Numbers:
    """Measures a column; what is null, not finite or absurdly large counts as missing."""
    total = int(rows.select(pl.len()).collect(engine="streaming").item())
    every = max(-(-total // SAMPLE), 1)
    moments, kept, values = _Moments(), [], _Values()
    for finite, missing in _pieces(rows, name):
        moments.add(finite, missing)
        kept.append(finite[::every])
        values.add(finite)
    if not moments.count:
        return Numbers(baseline=NumberBaseline(count=0, missing=moments.missing), median=0.0, histogram=Histogram())
    sample = np.sort(np.concatenate(kept))
    edges = _quantile_edges(sample)
    bars = _histogram_edges(moments)
    counts, columns = np.zeros(len(edges) + 1, dtype=np.int64), np.zeros(max(len(bars) - 1, 1), dtype=np.int64)
    for finite, _ in _pieces(rows, name):
        counts += binned(finite, edges)
        columns += np.histogram(finite, bins=bars)[0]
    baseline = NumberBaseline(
        count=moments.count,
        missing=moments.missing,
        mean=moments.mean,
        std=float(np.sqrt(moments.squares / moments.count)),
        low=moments.low,
        high=moments.high,
        edges=edges,
        counts=counts.tolist(),
    )
    log = moments.low > 0 and moments.high / moments.low >= WIDE
    histogram = values.histogram() or Histogram(edges=bars.tolist(), counts=columns.tolist(), log=log)
    return Numbers(baseline=baseline, median=float(np.median(sample)), histogram=histogram)


@dataclass
class _Values:
    """The different values and their rows, as long as they are few."""

    rows: dict[float, int] | None = None

    def add(self, finite: NDArray[np.float64]) -> None:
        if self.rows is None:
            self.rows = {}
        if len(self.rows) > FEW:
            return
        found, counts = np.unique(finite, return_counts=True)
        for value, count in zip(found[: FEW + 1].tolist(), counts[: FEW + 1].tolist(), strict=True):
            self.rows[value] = self.rows.get(value, 0) + count

    def histogram(self) -> Histogram | None:
        if not self.rows or len(self.rows) > FEW:
            return None
        values = sorted(self.rows)
        return Histogram(values=values, counts=[self.rows[value] for value in values])


def _pieces(rows: pl.LazyFrame, name: str) -> Iterator[tuple[NDArray[np.float64], int]]:
    """Finite values and the number of other rows, piece by piece."""
    for piece in rows.select(pl.col(name).cast(pl.Float64)).collect_batches(chunk_size=PIECE):
        values: NDArray[Any] = piece[name].fill_null(float("nan")).to_numpy()
        finite = values[np.abs(values) < ABSURD].astype(np.float64)
        yield finite, len(values) - len(finite)


def _quantile_edges(sample: NDArray[np.float64]) -> list[float]:
    """Inner edges at the quantiles of a sorted sample; ties make fewer bins, and no bin is empty of the sample."""
    places = np.ceil(np.arange(1, BINS) / BINS * len(sample)).astype(np.int64) - 1
    edges = np.unique(sample[np.maximum(places, 0)])
    return [float(edge) for edge in edges if edge < sample[-1]]


def _histogram_edges(moments: _Moments) -> NDArray[np.float64]:
    """Edges from the smallest to the largest or just beyond; those of whole numbers are whole, so that no column has more of them than another."""
    low, high = moments.low, moments.high
    if low > 0 and high / low >= WIDE:
        edges = np.geomspace(low, high, COLUMNS + 1)
        edges[0], edges[-1] = low, high
        return np.unique(np.round(edges)) if moments.whole else edges
    if moments.whole and high < low + 2.0**52:
        width = np.ceil((high - low + 1) / COLUMNS)
        return np.arange(low, high + width + 0.5, width)
    return np.linspace(low, high, COLUMNS + 1) if high > low else np.array([low, low + abs(low) + 1.0])
