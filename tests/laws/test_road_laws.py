"""Laws of the request road, whatever the scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.inference.batching import length_batches
from tastemaker.pipeline.engine import Road, Wish
from tastemaker.pipeline.explore import Explore
from tastemaker.pipeline.rerank import diversify, order
from tastemaker.pipeline.rules import Rules
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray, QueryState

SCORES = hnp.arrays(
    np.float32, st.integers(0, 40), elements=st.floats(-5, 5, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])
)


class Shelf:
    """Channels over a fixed table of scores."""

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores

    @property
    def n_items(self) -> int:
        return len(self.scores)

    def candidates(self, states: Sequence[QueryState], depth: int, allowed: BoolArray | None = None) -> list[ChannelScores]:
        found = []
        for state in states:
            keep = np.ones(self.n_items, bool) if allowed is None else allowed.copy()
            keep[state.history] = False
            items = np.flatnonzero(keep).astype(np.int32)
            safe = np.where(np.isfinite(self.scores[items]), self.scores[items], -9)
            ranks = np.argsort(np.argsort(-safe, kind="stable")).astype(np.int32)[:, None]
            counts = (items % 3).astype(np.float32)
            found.append(ChannelScores(items, ("text",), self.scores[items][:, None], ranks, counts, depth))
        return found


class Plain:
    """The score is the channel's score."""

    def score(self, found: ChannelScores, history_length: int) -> FloatArray:
        return found.scores[:, 0]

    def parts(self, found: ChannelScores, history_length: int) -> FloatArray:
        return found.scores


def unit_rows(indices: IntArray) -> FloatArray:
    rows = np.stack([np.cos(indices), np.sin(indices)], axis=1).astype(np.float32)
    return rows


@given(scores=SCORES, k=st.integers(0, 60))
def test_an_order_is_sorted_stable_and_ends_with_what_is_no_number(scores: FloatArray, k: int) -> None:
    places = order(scores, k)
    assert len(places) == min(k, len(scores)) == len(set(places.tolist()))
    safe = np.where(np.isfinite(scores), scores, -np.inf)[places]
    assert all(a > b or (a == b and i < j) for a, b, i, j in zip(safe, safe[1:], places, places[1:], strict=False))


@given(scores=SCORES, k=st.integers(0, 60), strength=st.floats(0, 1), by=st.sampled_from(["mmr", "dpp"]))
def test_a_varied_list_has_k_places_and_no_item_twice(scores: FloatArray, k: int, strength: float, by: str) -> None:
    places = diversify(scores, unit_rows(np.arange(len(scores), dtype=np.int32)), k, strength, by)
    assert len(places) == min(k, len(scores)) == len(set(places.tolist()))
    finite = int(np.isfinite(scores).sum())
    assert np.isfinite(scores[places]).sum() >= min(k, finite)


@given(
    scores=SCORES,
    k=st.integers(0, 60),
    history=st.lists(st.integers(0, 39), max_size=10),
    barred=st.sets(st.integers(0, 39)),
    newest=st.none() | st.integers(0, 40),
    diversity=st.sampled_from([0.0, 0.5]),
    fresh=st.sets(st.integers(0, 39)),
)
def test_the_road_gives_k_that_are_allowed(
    scores: FloatArray, k: int, history: list[int], barred: set[int], newest: int | None, diversity: float, fresh: set[int]
) -> None:
    n = len(scores)
    seen = np.array([item for item in history if item < n], dtype=np.int32)
    bars = np.array([place in barred for place in range(n)], dtype=bool)
    road = Road(Shelf(scores), Plain(), unit_rows, 10)
    explore = Explore(np.array(sorted(fresh), dtype=np.int32), 0.1, 3.0, 0.4)
    wish = Wish(k, bars, newest, Rules(diversity=diversity), explore)
    found = road.recommend(QueryState(seen, np.ones(2, np.float32)), wish)
    free = set(range(n)) - set(seen.tolist()) - barred
    assert len(found.items) == min(k, len(free)) == len(set(found.items.tolist()))
    assert set(found.items.tolist()) <= free
    assert len(found.sources) == len(found.near) == len(found.scores) == len(found.items)


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 64))
def test_batches_hold_each_place_once_and_like_lengths(lengths: list[int], size: int) -> None:
    batches = length_batches(lengths, size)
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[place] for place in flat] == sorted(lengths)
    assert all(0 < len(batch) <= size for batch in batches)


@given(scores=SCORES, bars=st.lists(st.none() | st.sets(st.integers(0, 39)), max_size=4))
def test_many_queries_are_answered_as_one_by_one(scores: FloatArray, bars: list[set[int] | None]) -> None:
    road = Road(Shelf(scores), Plain(), unit_rows, 10)
    barred = [None if bar is None else np.array([place in bar for place in range(len(scores))], dtype=bool) for bar in bars]
    wishes = [Wish(5, bar) for bar in barred]
    states = [QueryState(np.zeros(0, np.int32), None) for _ in wishes]
    together = road.recommend_many(states, wishes)
    for state, wish, found in zip(states, wishes, together, strict=True):
        assert found.items.tolist() == road.recommend(state, wish).items.tolist()
