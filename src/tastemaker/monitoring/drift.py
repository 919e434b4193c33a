"""Has data changed, and by more than chance: a distance, what chance alone makes of it in a sample of this size, and the least change that matters.

A fixed threshold of one statistic is wrong at every sample size: without any drift the population stability index averages .17 among 100 rows, and a
true shift of .3 standard deviations gives .09 among many. Here the threshold of a look is

    max(q, m + effect)

with m the mean of the distance between the reference and a sample drawn from it (parametric bootstrap; B. Efron and R. Tibshirani, 1993), q the quantile of
the accepted chance, taken from the gamma distribution of that mean and spread as no bootstrap reaches one in ten thousand, and `effect` the least share
of rows that must have moved. Rows of one user resemble each
other, so chance is that of (sum n_u)^2 / sum n_u^2 independent rows (L. Kish, 1965, the effective size of an unequally weighted sample).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from tastemaker.evaluation.calibration import auc
from tastemaker.schema.baseline import binned

Counts = NDArray[np.float64]
DRAWS = 400
BINS = 20
VECTOR_EFFECT = 0.5
"""Texts of new items are a little other than those of the catalogue; only what a plane tells apart in most cases counts."""


@dataclass(frozen=True)
class Drift:
    """One check.

    Attributes:
        check: its name. statistic: the distance, in [0, 1]. threshold: of this look. rows: independent rows behind it.
    """

    check: str
    statistic: float
    threshold: float
    rows: float

    @property
    def found(self) -> bool:
        """More than chance and enough to matter."""
        return self.statistic > self.threshold


@dataclass(frozen=True)
class Bins:
    """How a number was spread: inner edges at quantiles, and rows of each bin, one more than edges.

    low, high: the smallest and largest number that was seen. rows: how many independent rows stand behind the counts; None: as many as are counted.
    """

    edges: list[float]
    counts: Counts
    low: float
    high: float
    rows: float | None = None

    @classmethod
    def of(cls, values: NDArray[Any], rows: float | None = None) -> Bins | None:
        """Quantile bins of finite values; None where there are none. `rows` as in the class."""
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return None
        inner = np.unique(np.quantile(finite, np.arange(1, BINS) / BINS)).tolist()
        return cls(inner, binned(finite, inner).astype(np.float64), float(finite.min()), float(finite.max()), rows)


def independent(owners: Iterable[Hashable]) -> float:
    """How many independent rows these rows are worth, by whose each is."""
    sizes = np.array(list(Counter(owners).values()), dtype=np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def distance(reference: Counts, counts: Counts) -> float:
    """Total variation of two tables of counts [n]: the share of the rows that would have to move; 1 where nothing is common, 0 where one is empty."""
    a, b = float(reference.sum()), float(counts.sum())
    return float(0.5 * np.abs(reference / a - counts / b).sum()) if a and b else 0.0


def compare(
    check: str, reference: Counts, counts: Counts, rows: float, effect: float, chance: float, before: float | None = None
) -> Drift:
    """Counts of now against counts of before.

    Args:
        reference, counts: [n], of the same bins. rows, before: how many independent rows stand behind `counts` and behind `reference`; None: as many as are counted.
        effect: least distance that matters. chance: how seldom a look at the same data may exceed the threshold.
    """
    drawn = reference if before is None else _rounded(before) * np.round(reference / max(reference.sum(), 1.0), 2)
    mean, spread = chance_distance(tuple(drawn.tolist()), _rounded(rows))
    return Drift(check, distance(reference, counts), max(_quantile(mean, spread, chance), mean + effect), rows)


def numbers(
    check: str, reference: Bins, values: Sequence[float] | NDArray[Any], owners: Sequence[Hashable], effect: float, chance: float
) -> Drift:
    """A number of now against its spread of before. Owners as of `independent`."""
    counts = binned(np.asarray(values, dtype=np.float64), reference.edges).astype(np.float64)
    return compare(check, reference.counts, counts, independent(owners), effect, chance, reference.rows)


def names(
    check: str, reference: Mapping[str, float], other: float, values: Sequence[str], owners: Sequence[Hashable], effect: float, chance: float
) -> Drift:  # fmt: skip
    """Names of now against how often each came before; `other`: rows of all names that are not listed."""
    places = {name: place for place, name in enumerate(reference)}
    counts = np.zeros(len(places) + 1)
    for name, count in Counter(values).items():
        counts[places.get(name, len(places))] += count
    return compare(check, np.array([*reference.values(), other]), counts, independent(owners), effect, chance)


def vectors(check: str, reference: NDArray[Any], found: NDArray[Any], chance: float, seed: int = 0) -> Drift:
    """Can a plane tell vectors of now from those of before: 2 AUC - 1 of a linear discriminant judged on the half that it has not seen.

    The null distribution comes from shuffled labels (the classifier two-sample test; D. Lopez-Paz and M. Oquab, 2017).

    Args:
        reference, found: float [R, D] and [n, D].
    """
    both = np.concatenate([reference, found]).astype(np.float64)
    label = np.r_[np.zeros(len(reference)), np.ones(len(found))]
    random = np.random.default_rng(seed)
    null = np.array([_told_apart(both, random.permutation(label), random) for _ in range(20)])
    statistic = _told_apart(both, label, random)
    limit = null.mean() + max(NormalDist().inv_cdf(1 - chance) * null.std(), VECTOR_EFFECT)
    return Drift(check, statistic, float(limit), float(len(found)))


@functools.lru_cache(4_096)
def chance_distance(reference: tuple[float, ...], rows: int) -> tuple[float, float]:
    """Mean and standard deviation of the distance between a reference and `rows` draws, both drawn from the reference."""
    counts = np.array(reference)
    total = counts.sum()
    if not total or rows <= 0:
        return 0.0, 0.0
    random = np.random.default_rng(0)
    share = counts / total
    before = random.multinomial(int(min(total, 1e9)), share, DRAWS) / int(min(total, 1e9))
    now = random.multinomial(rows, share, DRAWS) / rows
    found = 0.5 * np.abs(before - now).sum(axis=1)
    return float(found.mean()), float(found.std())


def _quantile(mean: float, spread: float, chance: float) -> float:
    """Of the gamma distribution with this mean and standard deviation."""
    if spread <= 0 or mean <= 0:
        return mean
    return float(gammaincinv((mean / spread) ** 2, 1 - chance) * spread**2 / mean)


def _rounded(rows: float) -> int:
    """Two figures are enough, and let thresholds be remembered."""
    whole = max(int(rows), 0)
    step = 10 ** max(len(str(whole)) - 2, 0)
    return int(whole // step * step)


def _told_apart(both: NDArray[np.float64], label: NDArray[Any], random: np.random.Generator) -> float:
    half = random.random(len(label)) < 0.5
    scores = np.zeros(len(label))
    for learn, judge in ((half, ~half), (~half, half)):
        one, other = both[learn & (label > 0)], both[learn & (label == 0)]
        if not len(one) or not len(other):
            return 0.0
        spread = both[learn].var(axis=0) + 1e-6
        scores[judge] = (both[judge] - both[learn].mean(axis=0)) @ ((one.mean(axis=0) - other.mean(axis=0)) / spread)
    area = auc(scores, label)
    return float(max(2 * area - 1, 0.0)) if np.isfinite(area) else 0.0
