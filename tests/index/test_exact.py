"""Laws of the exact index."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.index.exact import DenseIndex, top


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)), st.integers(0, 40))
def test_top_is_sorted_complete_and_stable_and_nan_never_wins(scores: np.ndarray, depth: int) -> None:
    found = top(scores, depth)
    assert found.shape == (len(scores), min(depth, scores.shape[1]))
    for row, places in zip(scores, found, strict=True):
        assert len(set(places.tolist())) == len(places)
        safe = np.where(np.isfinite(row), row, -np.inf)
        wanted = np.sort(safe)[::-1][: len(places)]
        assert np.array_equal(safe[places], wanted)
        for before, after in itertools.pairwise(places):
            assert safe[before] > safe[after] or before < after


def test_ties_at_the_cut_go_to_the_smaller_index() -> None:
    assert top(np.zeros((1, 100), dtype=np.float32), 5).tolist() == [[0, 1, 2, 3, 4]]
    scores = np.array([[1, 2, 1, 2, 1, 1]], dtype=np.float32)
    assert top(scores, 4).tolist() == [[1, 3, 0, 2]]


def test_rows_can_be_added_and_replaced_over_a_memory_map(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    index = DenseIndex(np.load(tmp_path / "v.npy", mmap_mode="r"))
    assert index.append(np.ones(4, np.float32)) == 20
    index.replace(3, np.full(4, 9, np.float32))
    index.replace(20, np.full(4, 7, np.float32))
    wanted = np.vstack([vectors, np.full((1, 4), 7)])
    wanted[3] = 9
    query = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    assert np.allclose(index.scores(query), query @ wanted.T, atol=1e-5)
    assert np.allclose(index.rows(np.arange(21)), wanted)
    assert np.array_equal(np.load(tmp_path / "v.npy"), vectors)
