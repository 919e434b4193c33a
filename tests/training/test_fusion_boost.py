"""The fusion learns which channel to trust, and gives new items what they need but not more than it may cost."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.schema.settings import FusionSettings
from tastemaker.training.fusion import Examples, _moments, train_fusion

ROWS, EACH = 400, 20


def _examples(hidden: float, lost: int = 0) -> Examples:
    """The first feature tells the target, apart from noise; new items (one row in ten) carry `hidden` less of it, `lost` more were not found at all."""
    random = np.random.default_rng(0)
    given = random.normal(size=(ROWS, EACH, 26)).astype(np.float32)
    new = random.random((ROWS, EACH)) < 0.1
    target = np.zeros(ROWS, dtype=np.int64)
    new[:, 0] = np.arange(ROWS) % 10 == 0
    given[:, 0, 0] += 3.0 - hidden * new[:, 0]
    begin = np.arange(ROWS + 1, dtype=np.int64) * EACH
    return Examples(given.reshape(-1, 26), begin, target, new.ravel(), new.ravel(), ROWS // 10 + lost, ROWS - ROWS // 10)


def test_new_items_get_a_boost_only_where_they_need_it() -> None:
    needy, quality = train_fusion(_examples(hidden=2.0), FusionSettings(cold_price=0.2), 0)
    assert quality is not None
    assert quality > 0.6
    assert needy.cold_boost > 0
    equal, _ = train_fusion(_examples(hidden=-1.0), FusionSettings(), 0)
    assert equal.cold_boost == 0
    free, _ = train_fusion(_examples(hidden=2.0), FusionSettings(cold_price=0.0, cold_boost=0.5), 0)
    assert free.cold_boost == pytest.approx(0.5)


def test_new_items_that_no_channel_found_count_as_badly_served() -> None:
    settings = FusionSettings(cold_price=0.2)
    whole, _ = train_fusion(_examples(hidden=0.0), settings, 0)
    assert whole.cold_boost <= 0.5
    half, _ = train_fusion(_examples(hidden=0.0, lost=ROWS // 10), settings, 0)
    assert half.cold_boost > whole.cold_boost


def test_too_few_rows_give_the_sum_of_reciprocal_ranks() -> None:
    few = _examples(0.0)
    short = Examples(few.given[: 5 * EACH], few.begin[:6], few.target[:5], few.new[: 5 * EACH], few.boosted[: 5 * EACH], 1, 4)
    fusion, quality = train_fusion(short, FusionSettings(), 0)
    assert quality is None
    assert not fusion.hidden.any()


def test_moments_in_half_precision_are_those_of_the_numbers() -> None:
    given = np.random.default_rng(0).normal([3.0, -0.2, 0.0], [0.01, 4.0, 0.0], (250_000, 3)).astype(np.float16)
    mean, scale = _moments(given)
    np.testing.assert_allclose(mean, given.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, given.astype(np.float64).std(axis=0) + 1e-6, rtol=1e-5)
