"""How sure a figure is: bootstrap intervals over users, paired where two recommenders judged the same users (B. Efron, 1979)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.reports import Interval

Values = NDArray[np.float64]
Groups = NDArray[np.int64]


def interval(values: Values, resamples: int = 1_000, seed: int = 0, groups: Groups | None = None, level: float = 0.95) -> Interval:
    """Mean and percentile interval.

    Args:
        values: one number a question, [Q].
        resamples, seed: of the bootstrap.
        groups: the user of each question, int [Q]; users are resampled, not questions, as one user's questions resemble each other. None: each
            question is another user's.
        level: how sure the interval is, in (0, 1).
    """
    if not len(values):
        return Interval(0.0, 0.0, 0.0)
    low, high = np.quantile(_means(values, resamples, seed, groups), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired(
    ours: Values, theirs: Values, resamples: int = 1_000, seed: int = 0, groups: Groups | None = None
) -> tuple[Interval, float]:
    """Mean of the differences with its 95 % interval, and the two-sided bootstrap p-value that there is none.

    Raises:
        ValueError: the arrays don't belong to the same questions.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"paired figures need the same questions: {len(ours)} against {len(theirs)}")
    gap = ours - theirs
    found = interval(gap, resamples, seed, groups)
    means = _means(gap, resamples, seed, groups) if len(gap) else np.zeros(1)
    tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
    return found, min(1.0, 2 * max(tail, 1 / (resamples + 1)))


def _means(values: Values, resamples: int, seed: int, groups: Groups | None) -> Values:
    sums: Values = values
    counts: Values = np.ones(len(values))
    if groups is not None:
        sums = np.asarray(np.bincount(groups, weights=values), dtype=np.float64)
        counts = np.bincount(groups).astype(np.float64)
    rng = np.random.default_rng(seed)
    found = np.empty(resamples)
    for begin in range(0, resamples, 64):
        size = min(64, resamples - begin)
        chosen = rng.integers(0, len(sums), (size, len(sums)))
        found[begin : begin + size] = sums[chosen].sum(axis=1) / np.maximum(counts[chosen].sum(axis=1), 1e-9)
    return found
