"""Many short rows are sorted as NumPy's stable sort has it, whatever their numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tastemaker.index.ranks import FEW_ROWS, growing, ranks_of

NUMBERS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf]), st.floats(width=32, allow_nan=False))


@given(arrays(np.float32, st.tuples(st.integers(FEW_ROWS + 1, FEW_ROWS + 9), st.integers(0, 40)), elements=NUMBERS))
def test_law_many_rows_are_sorted_as_few(values: np.ndarray) -> None:
    values = 0.0 + values  # both zeros are one
    assert growing(values).tolist() == np.argsort(values, axis=1, kind="stable").tolist()


@given(
    arrays(np.float32, st.tuples(st.just(3), st.integers(1, 60)), elements=st.one_of(NUMBERS, st.just(np.nan))),
    st.integers(1, 12),
    st.lists(st.integers(0, 59), max_size=9),
)
def test_law_lists_have_the_places_that_each_has_alone(scores: np.ndarray, depth: int, cuts: list[int]) -> None:
    count = scores.shape[1]
    begin, floors = np.array([0, *sorted(min(cut, count) for cut in cuts), count]), np.array([-np.inf, 0.0, 1.0], np.float32)
    together = ranks_of(scores, floors, depth, begin)
    for start, end in itertools.pairwise(begin.tolist()):
        for channel, floor in enumerate(floors):
            mine = scores[channel, start:end]
            good = [place for place in np.argsort(-mine, kind="stable").tolist() if mine[place] > floor][:depth]
            expected = np.full(len(mine), depth)
            expected[good] = np.arange(len(good))
            assert together[channel, start:end].tolist() == expected.tolist()


@pytest.mark.parametrize("lists", [1, 16])
def test_what_nothing_is_known_of_has_no_places(lists: int) -> None:
    begin = np.arange(lists + 1) * 3
    found = ranks_of(np.zeros((2, 3 * lists), np.float32), np.zeros(2, np.float32), 5, begin)
    assert (found == 5).all()


def test_the_last_bit_counts() -> None:
    near = np.nextafter(np.float32(-1.0), np.float32([-2.0, 0.0] * (FEW_ROWS + 1)))[:, None]
    values = np.concatenate([np.full_like(near, -1.0), near], axis=1)
    assert growing(values).tolist() == [[1, 0], [0, 1]] * (FEW_ROWS + 1)
