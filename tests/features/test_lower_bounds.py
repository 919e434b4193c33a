"""Bounds in groups are those of bisection, whatever the numbers."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.runs import Bounds

TIMES = st.one_of(st.integers(-3, 12).map(float), st.floats(allow_nan=False), st.floats(1.6e9, 1.6e9 + 1e-3))


@given(
    st.lists(st.lists(TIMES, max_size=12).map(sorted), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), TIMES), max_size=20),
)
def test_law_a_bound_is_that_of_bisection(groups: list[list[float]], asked: list[tuple[int, float]]) -> None:
    """In any order of questions, with ties, infinities and times that differ by less than their group's key can hold."""
    starts = np.append(0, np.cumsum([len(group) for group in groups]))
    times = np.array([time for group in groups for time in group], dtype=float)
    of = np.array([group % len(groups) for group, _ in asked], dtype=np.int64)
    found = Bounds(times, starts).lower(of, np.array([wanted for _, wanted in asked], dtype=float))
    assert found.tolist() == [
        starts[group] + bisect_left(groups[group], wanted) for group, (_, wanted) in zip(of.tolist(), asked, strict=True)
    ]


def test_long_ascending_questions_are_answered_by_the_stretch() -> None:
    """Forty thousand events of 300 keys with many ties, each asked for what lies 50 seconds back."""
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, 300, 40_000))
    times = rng.integers(0, 500, 40_000).astype(float)
    times = times[np.lexsort((times, group))]
    starts = np.searchsorted(group, np.arange(301))
    found = Bounds(times, starts).lower(group, times - 50.0)
    assert found.tolist() == [
        starts[of] + np.searchsorted(times[starts[of] : starts[of + 1]], when - 50.0) for of, when in zip(group, times, strict=True)
    ]


def test_times_closer_than_a_groups_key_can_tell_are_looked_at_themselves() -> None:
    """Thousands of groups of decades, in each of which times lie millionths of a second apart."""
    close = np.append(0.0, 1.6e9 + np.arange(20) * 2.0**-21)
    groups, times = 3_000, np.tile(close, 3_000)
    of = np.repeat(np.arange(groups), len(close))
    found = Bounds(times, np.arange(groups + 1) * len(close)).lower(of, times)
    assert found.tolist() == list(range(len(times)))
