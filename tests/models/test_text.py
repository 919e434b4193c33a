"""Templates, batches by length, whitening."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.models.text import Whitening, length_batches, pad_tokens
from tastemaker.models.text_template import fill

DEFAULT = "{title}. {categories}. {text}"


@pytest.mark.parametrize(
    ("title", "text", "categories", "made"),
    [
        ("Heat (1995)", "A  thief.\nA cop.", ["Crime", "Drama"], "Heat (1995). Crime, Drama. A thief. A cop"),
        ("Heat", None, None, "Heat"),
        (None, "Only words", [], "Only words"),
        (None, None, ["A", None, "B"], "A, B"),
        (None, None, None, ""),
        ("{text}", "x", [], "{text}. x"),
    ],
)
def test_a_template_leaves_out_what_is_empty(
    title: str | None, text: str | None, categories: list[str | None] | None, made: str
) -> None:
    assert fill(DEFAULT, title, text, categories) == made


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 9), st.integers(1, 200))
def test_batches_hold_each_text_once_and_keep_their_size(lengths: list[int], size: int, area: int) -> None:
    tokens = [[1] * length for length in lengths]
    batches = length_batches(tokens, size, area)
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= area


def test_padding_marks_real_tokens() -> None:
    ids, mask = pad_tokens([[5, 6], [], [7]])
    assert ids.tolist() == [[5, 6], [0, 0], [7, 0]]
    assert mask.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_whitening_spreads_a_narrow_cone_and_keeps_empty_rows_zero() -> None:
    random = np.random.default_rng(0)
    cone = (random.normal(size=(500, 8)) * [9, 3, 1, 1, 1, 0.3, 0.1, 0.1] + 40).astype(np.float32)
    whitening = Whitening.fit(cone, dim=6)
    found = whitening.apply(cone, np.arange(500) == 7)
    assert found.shape == (500, 6)
    assert np.allclose(np.linalg.norm(np.delete(found, 7, axis=0), axis=1), 1, atol=1e-5)
    assert not found[7].any()
    spread = ((cone - whitening.mean) @ whitening.components.T).std(axis=0)
    assert np.allclose(spread, 1, atol=0.02)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_whitening_of_few_or_equal_texts_is_finite(rows: int) -> None:
    same = np.ones((rows, 4), dtype=np.float32)
    assert np.isfinite(Whitening.fit(same, 3).apply(same)).all()
