"""The law of features: a log read at once and the same events folded one by one, in any order, give the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.features.base import Feature
from tastemaker.features.item_counts import Count, DecayedCount
from tastemaker.features.user_history import NEVER, Recency

KEYS = 6
LOG = st.lists(st.tuples(st.integers(0, KEYS - 2), st.floats(0, 1e7, allow_nan=False)), max_size=40)


@pytest.mark.parametrize("make", [Count, lambda: DecayedCount(86_400.0), Recency])
@settings(max_examples=60, deadline=None)
@given(log=LOG, shuffle=st.randoms(use_true_random=False), later=st.floats(0, 1e6))
def test_law_batch_equals_fold(make: type[Feature], log: list[tuple[int, float]], shuffle: object, later: float) -> None:
    now = max((time for _, time in log), default=0.0) + later
    keys, times = np.array([key for key, _ in log], dtype=np.int64), np.array([time for _, time in log])
    batch = make().batch(keys, times, KEYS, now)
    fold = make()
    arrived = list(log)
    shuffle.shuffle(arrived)  # type: ignore[attr-defined]
    for key, time in arrived:
        fold.update(key, time)
    assert [fold.read(key, now) for key in range(KEYS)] == pytest.approx(batch.tolist(), abs=1e-9)
    assert np.isfinite(batch).all()


def test_numbers_by_hand() -> None:
    count = DecayedCount(10.0)
    for time in (0.0, 10.0, 5.0):
        count.update("x", time)
    assert count.read("x", 20.0) == pytest.approx(np.log1p(0.25 + 0.5 + 0.5**1.5))
    assert count.read("unknown", 20.0) == 0
    recency = Recency()
    recency.update("x", 3.0)
    assert recency.read("x", 10.0) == pytest.approx(np.log1p(7))
    assert recency.read("unknown", 10.0) == pytest.approx(np.log1p(NEVER))
