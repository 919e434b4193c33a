"""Laws of the request road, whatever the scores."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.inference.batching import length_batches
from tastemaker.pipeline.engine import Road, Wish
from tastemaker.pipeline.explore import Explore
from tastemaker.pipeline.rerank import diversify, order
from tastemaker.pipeline.reserve import bare
from tastemaker.pipeline.rules import Rules
from tastemaker.pipeline.stages import Filter
from tastemaker.pipeline.trip import FEWER, NO_RANKER, POPULAR, PRECOMPUTED, Trip
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.protocols import BoolArray, FloatArray, Gather, IntArray, QueryState
from tastemaker.schema.queries import LEVELS

SCORES = hnp.arrays(
    np.float32, st.integers(0, 40), elements=st.floats(-5, 5, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])
)


class Shelf:
    """Two channels over a fixed table of scores: one that knows the scores, one that knows everything alike."""

    def __init__(self, scores: FloatArray, broken: dict[str, str] | None = None, careless: bool = False, most: int = 99) -> None:
        self.scores, self._broken, self._careless, self._most = scores, broken or {}, careless, most

    @property
    def n_items(self) -> int:
        return len(self.scores)

    def candidates(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None = None,
        filter_seen: bool = True,
        gather: Gather | None = None,
        excluded: Sequence[IntArray] | None = None,
    ) -> list[ChannelScores]:
        calls = {name: functools.partial(self._call, name) for name in ("text", "popular")}
        done = {name: call() for name, call in calls.items()} if gather is None else gather(calls)
        found = []
        for at, state in enumerate(states):
            keep = np.ones(self.n_items, bool) if allowed is None or self._careless else allowed.copy()
            if not self._careless:
                keep[state.history] = False
                keep[excluded[at] if excluded is not None else []] = False
            items = np.flatnonzero(keep).astype(np.int32)[: self._most]
            if self._careless:  # a source that brings what is barred and met, and some of it twice
                items = np.concatenate([items, items[::2]])
            columns = [done.get(name, np.zeros(self.n_items, np.float32))[items] for name in calls]
            safe = np.where(np.isfinite(columns[0]), columns[0], -9)
            ranks = np.argsort(np.argsort(-safe, kind="stable")).astype(np.int32)
            counts = (items % 3).astype(np.float32)
            found.append(
                ChannelScores(items, tuple(calls), np.stack(columns, axis=1), np.stack([ranks, ranks], axis=1), counts, depth)
            )
        return found

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        scores = np.stack([self.scores[items], np.zeros(len(items), np.float32)], axis=1)
        nothing = np.full((len(items), 2), depth, np.int32)
        return ChannelScores(items, ("text", "popular"), scores, nothing, np.ones(len(items), np.float32), depth)

    def _call(self, name: str) -> FloatArray:
        if self._broken.get(name) == "late":
            time.sleep(0.04)
        if self._broken.get(name) == "failed":
            raise ValueError("a source that breaks")
        return self.scores if name == "text" else np.zeros(self.n_items, np.float32)


class Plain:
    """The score is the channel's score."""

    def score(self, found: ChannelScores, history_length: int) -> FloatArray:
        return found.scores[:, 0]

    def parts(self, found: ChannelScores, history_length: int, begin: object = None) -> FloatArray:
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


@settings(deadline=None)
@given(
    scores=SCORES,
    k=st.integers(0, 60),
    history=st.lists(st.integers(0, 39), max_size=10),
    barred=st.sets(st.integers(0, 39)),
    excluded=st.sets(st.integers(0, 39), max_size=20),
    newest=st.none() | st.integers(0, 40),
    diversity=st.sampled_from([0.0, 0.5]),
    fresh=st.sets(st.integers(0, 39)),
    broken=st.dictionaries(st.sampled_from(["text", "popular"]), st.sampled_from(["failed"])),
    careless=st.booleans(),
    level=st.integers(0, 4),
    most=st.sampled_from([99, 3]),
)
def test_the_road_gives_k_that_are_allowed_whatever_breaks(
    scores: FloatArray,
    k: int,
    history: list[int],
    barred: set[int],
    excluded: set[int],
    newest: int | None,
    diversity: float,
    fresh: set[int],
    broken: dict[str, str],
    careless: bool,
    level: int,
    most: int,
) -> None:
    n = len(scores)
    seen = np.array([item for item in history if item < n], dtype=np.int32)
    bars = np.array([place in barred for place in range(n)], dtype=bool)
    road = Road(Shelf(scores, broken, careless, most), Plain(), unit_rows, 10)
    explore = Explore(np.array(sorted(fresh), dtype=np.int32), 0.1, 3.0, 0.4)
    gone = np.array(sorted(item for item in excluded if item < n), dtype=np.int32)
    wish = Wish(k, bars, newest, Rules(diversity=diversity), explore, level=level, excluded=gone)
    found = road.recommend(QueryState(seen, np.ones(2, np.float32)), wish)
    free = set(range(n)) - set(seen.tolist()) - barred - excluded
    assert len(found.items) == min(k, len(free)) == len(set(found.items.tolist()))
    assert set(found.items.tolist()) <= free
    assert len(found.sources) == len(found.near) == len(found.scores) == len(found.items)
    expected = [f"load: {LEVELS[level]}"] if level else []
    if level < PRECOMPUTED:
        expected += [f"source {name}: failed" for name in ("text", "popular") if name in broken]
        expected += ["source: failed"] if len(broken) == 2 else []
    assert found.degraded == expected
    assert found.level == (POPULAR if level >= PRECOMPUTED or len(broken) == 2 else max(level, FEWER if broken else 0))
    if not broken and not diversity and newest is None and level < PRECOMPUTED and not fresh and most == 99:
        finite = np.isfinite(scores[found.items])
        assert not (np.diff(finite.astype(int)) > 0).any(), "what is no number stands below what is one"


@given(
    items=st.lists(st.integers(0, 19), max_size=30),
    history=st.lists(st.integers(0, 19), max_size=5),
    barred=st.sets(st.integers(0, 19)),
    excluded=st.sets(st.integers(0, 19), max_size=5),
)
def test_the_filter_loses_nothing_and_lets_nothing_pass(
    items: list[int], history: list[int], barred: set[int], excluded: set[int]
) -> None:
    bars = np.array([place in barred for place in range(20)], dtype=bool)
    trip = Trip(
        QueryState(np.array(history, dtype=np.int32), None),
        Wish(0, bars, excluded=np.array(sorted(excluded), np.int32)),
        bare(np.array(items, dtype=np.int32)),
    )
    Filter(Road(Shelf(np.zeros(20, np.float32)), Plain(), unit_rows, 10).reserve)(trip)
    left = trip.candidates.items.tolist()
    assert left == [item for item in dict.fromkeys(items) if item not in barred | excluded | set(history)]


class Reader:
    """A ranker whose features are the items' own numbers, or something else."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def first(self, scores: FloatArray, tell: bool = False) -> IntArray:
        return np.argsort(-scores, kind="stable")[:5]

    def hydrate(self, items: IntArray, state: QueryState) -> FloatArray:
        if self.fault == "raises":
            raise KeyError("no features")
        if self.fault == "late":
            time.sleep(0.1)
        return items[: len(items) - (self.fault == "short"), None].astype(np.float32)

    def rank(self, found: ChannelScores, scores: FloatArray, state: QueryState, first: IntArray, told: FloatArray | None) -> Ranked:
        assert told is not None
        assert told[:, 0].tolist() == found.items[first].tolist(), "hydrated in another order"
        final = scores.copy()
        final[first] = 100 + told[:, 0]
        return Ranked(final)


@given(order=st.permutations(range(12)), fault=st.sampled_from(["none", "none", "none", "short", "raises"]))
def test_hydrators_keep_order_and_length(order: list[int], fault: str) -> None:
    scores = np.array([*order, 0], dtype=np.float32)
    road = Road(Shelf(scores), Plain(), unit_rows, 10, ranker=Reader(fault))
    found = road.recommend(QueryState(np.array([12], np.int32), np.ones(2, np.float32)), Wish(12))
    best = np.argsort(-scores[:12], kind="stable")
    if fault == "none":
        assert found.items.tolist() == [*sorted(best[:5].tolist(), reverse=True), *best[5:].tolist()]
        assert (found.level, found.degraded) == (0, [])
    else:
        assert found.items.tolist() == best.tolist(), "without its features the ranker is left out, and the fusion's order stays"
        assert found.level == NO_RANKER
        assert found.degraded == [f"features: {'failed' if fault == 'raises' else 'gave 4 rows for 5 items'}"]


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 64))
def test_batches_hold_each_place_once_and_like_lengths(lengths: list[int], size: int) -> None:
    batches = length_batches(lengths, size)
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[place] for place in flat] == sorted(lengths)
    assert all(0 < len(batch) <= size for batch in batches)


@given(scores=SCORES, bars=st.lists(st.none() | st.sets(st.integers(0, 39)), max_size=4), excluded=st.sets(st.integers(0, 9)))
def test_many_queries_are_answered_as_one_by_one(scores: FloatArray, bars: list[set[int] | None], excluded: set[int]) -> None:
    road = Road(Shelf(scores), Plain(), unit_rows, 10)
    barred = [None if bar is None else np.array([place in bar for place in range(len(scores))], dtype=bool) for bar in bars]
    gone = np.array(sorted(item for item in excluded if item < len(scores)), dtype=np.int32)
    wishes = [Wish(5, bar, excluded=gone[at:]) for at, bar in enumerate(barred)]
    states = [QueryState(np.zeros(0, np.int32), None) for _ in wishes]
    together = road.recommend_many(states, wishes)
    for state, wish, found in zip(states, wishes, together, strict=True):
        assert found.items.tolist() == road.recommend(state, wish).items.tolist()


def test_others_are_looked_for_in_place_of_what_is_excluded() -> None:
    road = Road(Shelf(np.arange(30, dtype=np.float32), most=8), Plain(), unit_rows, 10)
    state, wish = QueryState(np.array([8], np.int32), np.ones(2, np.float32)), Wish(5, excluded=np.arange(6, dtype=np.int32))
    for found in (road.recommend(state, wish), *road.recommend_many([state, state], [wish, wish])):
        assert found.items.tolist() == [14, 13, 12, 11, 10]


class ByLength(Plain):
    """Askers with a long history want the opposite of the others."""

    def score(self, found: ChannelScores, history_length: int | IntArray) -> FloatArray:
        return (found.scores[:, 0] * np.where(np.asarray(history_length) > 1, -1, 1)).astype(np.float32)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_those_who_pass_together_keep_their_own_histories(lengths: list[int]) -> None:
    road = Road(Shelf(np.arange(30, dtype=np.float32)), ByLength(), unit_rows, 40)
    states = [QueryState(np.arange(length, dtype=np.int32), np.ones(2, np.float32)) for length in lengths]
    together = road.recommend_together(states, [Wish(5)] * len(states))
    for state, found in zip(states, together, strict=True):
        assert not isinstance(found, Exception)
        assert found.items.tolist() == road.recommend(state, Wish(5)).items.tolist()
