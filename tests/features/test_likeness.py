"""How a candidate compares with a history: together as alone, and as written out."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.likeness import FADE, LATEST, LIKENESS, likenesses
from tastemaker.features.ranker_input import unit

random = np.random.default_rng(0)
TEXTS, VECTORS = (unit(random.standard_normal((90, width)).astype(np.float32)) for width in (5, 3))
TEXTS[7] = 0.0  # an item without a text


def written_out(item: int, history: list[int]) -> list[float]:
    found = []
    for rows in (TEXTS, VECTORS):
        cosines = [float(rows[item] @ rows[met]) for met in history[-LATEST:]]
        weights = [FADE**age for age in range(len(cosines))][::-1]
        fading = sum(weight * cosine for weight, cosine in zip(weights, cosines, strict=True)) / sum(weights)
        found += [cosines[-1], max(cosines), fading, sum(cosines) / len(cosines)]
    return found


LISTS = st.lists(st.tuples(st.lists(st.integers(0, 89), max_size=5), st.lists(st.integers(0, 89), max_size=60)), max_size=4)


@given(LISTS)
def test_law_each_candidate_is_compared_with_its_own_askers_history(lists: list[tuple[list[int], list[int]]]) -> None:
    items = np.array([item for some, _ in lists for item in some], dtype=np.int32)
    begin = np.cumsum([0, *(len(some) for some, _ in lists)])
    histories = [np.array(history, dtype=np.int32) for _, history in lists]
    told = likenesses(items, histories, begin, TEXTS.__getitem__, VECTORS.__getitem__)
    assert told.shape == (len(items), len(LIKENESS))
    for (start, end), (some, history) in zip(itertools.pairwise(begin.tolist()), lists, strict=True):
        wanted = [written_out(item, history) if history else [0.0] * len(LIKENESS) for item in some]
        np.testing.assert_allclose(told[start:end], np.array(wanted).reshape(-1, len(LIKENESS)), atol=1e-5)
