"""How sure a figure is: bootstrap intervals over users, paired where two recommenders judged the same users (B. Efron, 1979)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.reports import Interval

Values = NDArray[np.float64]


def interval(values: Values, resamples: int = 1_000, seed: int = 0) -> Interval:
    """Mean and 95 % percentile interval of one number a user."""
    if not len(values):
        return Interval(0.0, 0.0, 0.0)
    low, high = np.quantile(_means(values, resamples, seed), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def paired(ours: Values, theirs: Values, resamples: int = 1_000, seed: int = 0) -> tuple[Interval, float]:
    """Mean of the differences with its 95 % interval, and the two-sided bootstrap p-value that there is none.

    Raises:
        ValueError: the arrays don't belong to the same users.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"paired figures need the same users: {len(ours)} against {len(theirs)}")
    gap = ours - theirs
    found = interval(gap, resamples, seed)
    means = _means(gap, resamples, seed) if len(gap) else np.zeros(1)
    tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
    return found, min(1.0, 2 * max(tail, 1 / (resamples + 1)))


def _means(values: Values, resamples: int, seed: int) -> Values:
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for begin in range(0, resamples, 64):
        size = min(64, resamples - begin)
        found[begin : begin + size] = values[rng.integers(0, len(values), (size, len(values)))].mean(axis=1)
    return found
