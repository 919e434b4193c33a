"""Evidence that may be looked at after every number: it is seldom strong by chance, at any time, and soon strong where something is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from tastemaker.evaluation.sequential import more_than, other_than, rate_exceeds

ALPHA = 0.05


@pytest.mark.parametrize("true", [0.1, 0.05])
def test_looking_after_every_trial_is_seldom_misled(true: float) -> None:
    random = np.random.default_rng(0)
    looks = [[more_than(int(hits), n, 0.1) for n, hits in enumerate(np.cumsum(random.random(300) < true), 1)] for _ in range(300)]
    assert np.mean([max(one) >= 1 / ALPHA for one in looks]) <= ALPHA
    other = [
        max(other_than(int(hits), n, 0.5) for n, hits in enumerate(np.cumsum(random.random(300) < 0.5), 1)) for _ in range(300)
    ]
    assert np.mean([one >= 1 / ALPHA for one in other]) <= ALPHA


def test_what_is_wrong_is_seen_soon() -> None:
    random = np.random.default_rng(0)
    hits = np.cumsum(random.random(200) < 0.4)
    assert next(n for n, found in enumerate(hits, 1) if more_than(int(found), n, 0.1) >= 1_000) < 100
    assert other_than(25, 100, 0.5) >= 1_000
    assert other_than(75, 100, 0.5) >= 1_000
    assert more_than(10, 200, 0.1) < 1, "less often is no evidence of more often"


def test_the_wager_is_the_mixture() -> None:
    for hits, trials, chance in ((3, 10, 0.2), (0, 4, 0.5), (40, 50, 0.3)):
        grown = integrate.quad(lambda p: p**hits * (1 - p) ** (trials - hits), chance, 1)[0] / (1 - chance)  # noqa: B023
        assert more_than(hits, trials, chance) == pytest.approx(grown / (chance**hits * (1 - chance) ** (trials - hits)), rel=1e-6)
        flat = integrate.quad(lambda p: p**hits * (1 - p) ** (trials - hits), 0, 1)[0]  # noqa: B023
        assert other_than(hits, trials, chance) == pytest.approx(flat / (chance**hits * (1 - chance) ** (trials - hits)), rel=1e-6)
    assert math.isfinite(more_than(100_000, 100_000, 0.001))


def test_rates_of_groups_of_any_size() -> None:
    assert rate_exceeds((0, 100), (0, 900), 2) <= 1
    assert rate_exceeds((8, 100), (0, 900), 2) >= 1_000
    assert rate_exceeds((10, 100), (90, 900), 2) < 1, "as often"
    assert rate_exceeds((30, 100), (27, 900), 2) >= 1_000, "ten times as often"
    assert rate_exceeds((5, 5), (0, 0), 2) == 1, "nobody to compare with"
    with pytest.raises(ValueError, match="3 hits in 2"):
        more_than(3, 2, 0.5)
