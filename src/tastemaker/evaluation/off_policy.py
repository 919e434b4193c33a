"""What another policy would have earned, judged by the log of the one that answered: IPS, SNIPS and DR, with intervals and how much the log can say.

A place of a list that was served by chance has a propensity. Where the other policy would show the same thing more often, the reward counts more.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
ENOUGH = 1_000.0
"""With a smaller effective sample an estimate is told, but nothing should be decided by it."""


@dataclass(frozen=True)
class Estimate:
    """Mean reward of a policy.

    Attributes:
        value, low, high: the estimate and its interval (normal, by the estimator's own variance).
        effective: effective sample size (sum w)^2 / sum w^2 of the weights (A. Owen, 2013, "Monte Carlo theory", 9.3).
        enough: whether that is large enough to decide by.
    """

    value: float
    low: float
    high: float
    effective: float

    @property
    def enough(self) -> bool:
        """Whether the effective sample is `ENOUGH`."""
        return self.effective >= ENOUGH


def ips(rewards: Values, logged: Values, target: Values, level: float = 0.95, clip: float | None = None) -> Estimate:
    """Inverse propensity score (D. Horvitz and D. Thompson, 1952): unbiased where every thing that the target shows could be shown.

    Args:
        rewards: of each place served, [n]. logged: the chance with which it was served, in (0, 1], [n].
        target: the chance with which the other policy would serve it, in [0, 1], [n].
        level: of the interval. clip: weights are at most this (less variance, a bias towards zero); None: as they are.

    Raises:
        ValueError: arrays of different lengths, none at all, or propensities outside (0, 1].
    """
    weights = _weights(rewards, logged, target, clip)
    return _estimate(weights * rewards, weights, level)


def snips(rewards: Values, logged: Values, target: Values, level: float = 0.95, clip: float | None = None) -> Estimate:
    """Self-normalised IPS (A. Swaminathan and T. Joachims, 2015): a small bias, much less variance, never outside the rewards' range. Arguments as of `ips`."""
    weights = _weights(rewards, logged, target, clip)
    total = weights.sum()
    if total == 0:
        raise ValueError("The other policy would have shown nothing of what was shown: this log can say nothing of it.")
    value = float((weights * rewards).sum() / total)
    # the influence of each place on the ratio, by the delta method
    influence = weights * (rewards - value) / weights.mean()
    return _estimate(value + influence, weights, level)


def doubly_robust(
    rewards: Values,
    logged: Values,
    target: Values,
    guessed: Values,
    expected: Values,
    level: float = 0.95,
    clip: float | None = None,
) -> Estimate:
    """Doubly robust (M. Dudik, J. Langford and L. Li, 2011): a model's guess, mended where the log shows it wrong.

    Args:
        guessed: a model's reward of each place served, [n]. expected: its mean reward under the target policy in the same situation, [n]; of a model
            that has not learned from these rewards, else the interval is too narrow. The others as of `ips`.
    """
    weights = _weights(rewards, logged, target, clip)
    if not len(guessed) == len(expected) == len(rewards):
        raise ValueError(f"{len(rewards)} rewards, but {len(guessed)} guesses and {len(expected)} expectations.")
    return _estimate(expected + weights * (rewards - guessed), weights, level)


def _weights(rewards: Values, logged: Values, target: Values, clip: float | None) -> Values:
    if not len(rewards) == len(logged) == len(target):
        raise ValueError(
            f"{len(rewards)} rewards, {len(logged)} propensities of the log and {len(target)} of the other policy; as many are needed."
        )
    if not len(rewards):
        raise ValueError("Nothing was served: there is no log to judge by.")
    if not ((logged > 0) & (logged <= 1)).all():
        raise ValueError("A propensity of the log is not in (0, 1]: what was served had a chance to be served.")
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError("A propensity of the other policy is not in [0, 1].")
    weights: Values = target / logged
    return weights if clip is None else np.minimum(weights, clip)


def _estimate(terms: Values, weights: Values, level: float) -> Estimate:
    value, spread = float(terms.mean()), 0.0
    if len(terms) > 1:
        spread = NormalDist().inv_cdf((1 + level) / 2) * float(terms.std(ddof=1)) / len(terms) ** 0.5
    squares = float((weights**2).sum())
    return Estimate(value, value - spread, value + spread, float(weights.sum()) ** 2 / squares if squares else 0.0)
