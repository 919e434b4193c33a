"""What a ranker reads of several lists is what it reads of each alone."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.ranker_input import channel_columns, channel_names, compared
from tastemaker.schema.candidates import ChannelScores, joined

CHANNELS, DEPTH = ("sequence", "popular"), 4


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 300)), min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_law_lists_have_the_columns_that_each_has_alone(lists: list[tuple[int, int]], seed: int, odd: bool) -> None:
    random = np.random.default_rng(seed)
    sizes, histories = [size for size, _ in lists], [history for _, history in lists]
    begin = np.cumsum([0, *sizes])
    founds = []
    for size in sizes:
        scores = random.standard_normal((2, size)).astype(np.float32)
        if odd:
            scores[:, :2] = -np.inf
        ranks = random.integers(0, DEPTH + 1, (2, size)).astype(np.int32)
        items, counts = np.arange(size, dtype=np.int32), random.integers(0, 3, size).astype(np.float32)
        founds.append(ChannelScores(items, CHANNELS, scores.T, ranks.T, counts, DEPTH))
    best = [random.standard_normal(size + 2).astype(np.float32) for size in sizes]
    cosine = random.standard_normal(begin[-1]).astype(np.float32)
    fusion = np.concatenate([scores[:size] for scores, size in zip(best, sizes, strict=True)])
    whole = channel_columns(joined(founds), fusion, best, histories, cosine, begin)
    told = compared(whole, None, begin)[0]
    assert whole.shape == (begin[-1], len(channel_names(CHANNELS)))
    assert np.isfinite(told).all()
    for place, (start, end) in enumerate(itertools.pairwise(begin.tolist())):
        part, own = slice(start, end), np.array([0, end - start])
        alone = channel_columns(founds[place], fusion[part], [best[place]], [histories[place]], cosine[part], own)
        np.testing.assert_array_equal(whole[part], alone)
        np.testing.assert_allclose(told[part], compared(alone, None, own)[0], rtol=1e-6, atol=1e-6)
