"""The stages of the request road, each of one shape: it takes a trip and leaves it richer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from tastemaker.models.segments import newcomer_scores
from tastemaker.pipeline.explain import sources
from tastemaker.pipeline.gather import FAILED, Gatherer
from tastemaker.pipeline.reserve import Reserve
from tastemaker.pipeline.select import FRESH_SLOT, Facts, Picked, pick
from tastemaker.pipeline.trip import FEWER, NO_RANKER, POPULAR, PRECOMPUTED, Found, Trip, Wish
from tastemaker.schema.candidates import ChannelScores, Ranked, joined, part
from tastemaker.schema.protocols import (
    Asked,
    BoolArray,
    CandidateRanker,
    ChannelSource,
    FloatArray,
    FusionModel,
    IntArray,
    ItemVectors,
    QueryState,
)
from tastemaker.schema.unwritten import FILTERS, OfLatest, any_of, unwritten

CONTENT = ("text", "taste", "graph")
"""Channels that know an item before anybody has met it."""
LEAST_SHARE = 3
"""When the service is busy every channel gives so many times fewer candidates."""


class Source:
    """Candidates of all channels, asked side by side; a late one is left out. Pinned items come along.

    Args:
        channels: what finds. gatherer: makes the calls. depth: candidates of each channel.
    """

    def __init__(self, channels: ChannelSource, gatherer: Gatherer, depth: int) -> None:
        self.channels, self.gatherer, self.depth = channels, gatherer, depth
        self._allowed = OfLatest(_complement, FILTERS)

    def __call__(self, trip: Trip) -> None:
        """Fills `found`."""
        self._look([trip], self._depth(trip))

    def many(self, trips: Sequence[Trip]) -> None:
        """The same for several; those who bar the same items (the same array) are looked for together."""
        alike: dict[tuple[int, int], list[Trip]] = {}
        for trip in trips:
            alike.setdefault((id(trip.wish.barred), self._depth(trip)), []).append(trip)
        for (_, depth), some in alike.items():
            self._look(some, depth)

    def _depth(self, trip: Trip) -> int:
        wish = trip.wish
        return max(self.depth if wish.level < FEWER else -(-self.depth // LEAST_SHARE), wish.k)

    def _look(self, trips: Sequence[Trip], depth: int) -> None:
        barred = trips[0].wish.barred
        allowed = None if barred is None else self._allowed(barred)

        def gather(calls: Mapping[str, Callable[[], FloatArray]]) -> Mapping[str, FloatArray]:
            done, missing = self.gatherer.run(calls)
            for trip in trips if missing else ():
                trip.down(FEWER, *(f"source {name}: {why}" for name, why in missing.items()))
            if not done:
                raise LookupError(f"none of {len(calls)} sources answered")
            return done

        states, excluded = [trip.state for trip in trips], excluded_of([trip.wish for trip in trips])
        found = self.channels.candidates(states, depth, allowed, gather=gather, excluded=excluded)
        for trip, one in zip(trips, found, strict=True):
            trip.found = with_pins(self.channels, one, trip)


def excluded_of(wishes: Sequence[Wish]) -> list[IntArray] | None:
    """What each wish excludes; None: nothing at all."""
    excluded = [wish.excluded for wish in wishes]
    return excluded if any(map(len, excluded)) else None


def _complement(barred: BoolArray) -> BoolArray | None:
    """Items that are not barred; None: nothing is."""
    return unwritten(~barred) if barred.any() else None


def with_pins(channels: ChannelSource, found: ChannelScores, trip: Trip) -> ChannelScores:
    """The candidates and, behind them, pinned items that no channel found."""
    pins = trip.wish.rules.pins
    missing = [item for item in pins.values() if item not in found.items] if pins else []
    if not missing:
        return found
    items = np.array(missing, dtype=np.int32)
    if trip.degraded:  # what scores them may be what is late
        return with_rows(found, items)
    more = channels.score_items(trip.state, items, found.depth)
    pairs = [(getattr(found, name), getattr(more, name)) for name in ("items", "scores", "ranks", "counts")]
    items, scores, ranks, counts = (np.concatenate(pair) for pair in pairs)
    return ChannelScores(items, found.channels, scores, ranks, counts, found.depth)


def with_rows(found: ChannelScores, items: IntArray) -> ChannelScores:
    """The candidates and, behind them, items of which no channel says anything."""
    shape = (len(items), len(found.channels))
    return ChannelScores(
        np.concatenate([found.items, items]),
        found.channels,
        np.concatenate([found.scores, np.zeros(shape, np.float32)]),
        np.concatenate([found.ranks, np.full(shape, found.depth, np.int32)]),
        np.concatenate([found.counts, np.ones(len(items), np.float32)]),
        found.depth,
    )


class Filter:
    """Nothing barred or excluded, nothing met before and nothing twice goes on, whatever a source brought; where fewer than k are left, popular items come along.

    The same filters are applied inside the sources: this is the lock behind the door.
    """

    def __init__(self, reserve: Reserve) -> None:
        self._reserve, self._bars = reserve, OfLatest(any_of, FILTERS)
        self._met = np.zeros(0, dtype=bool)

    def __call__(self, trip: Trip) -> None:
        """Narrows `found`."""
        found, wish, away = trip.candidates, trip.wish, trip.away
        if wish.barred is not None and len(self._met) < len(wish.barred):
            self._met = np.zeros(len(wish.barred) * 3 // 2, dtype=bool)
        bars = wish.barred is not None and self._bars(wish.barred)
        keep = kept(found.items, wish.barred, away, self._met, bars)
        if keep is not None:
            found = part(found, np.flatnonzero(keep))
        if len(found.items) < wish.k:
            standing = set(away.tolist()) | set(found.items.tolist())
            more = self._reserve.most_popular(wish.k - len(found.items), wish.barred, standing)
            if more:
                found = with_rows(found, np.array(more, dtype=np.int32))
        trip.found = found


def kept(items: IntArray, barred: BoolArray | None, away: IntArray, marks: BoolArray, bars: bool = True) -> BoolArray | None:
    """Which candidates may go on, bool [M]; None: all of them.

    Args:
        items: item indices, int32 [M]. barred: bool [N]; None: nothing is. away: item indices that may not either.
        marks: as long as `barred`, all False before and after. bars: whether anything of `barred` is true.
    """
    if barred is not None:
        places = away.astype(np.int64)  # looked up by in a third of the time
        marks[places] = True
        bad = marks.take(items)
        marks[places] = False
        if bars:
            bad |= barred[items]
    else:
        bad = np.isin(items, away) if len(away) else np.zeros(len(items), dtype=bool)
    if np.count_nonzero(items[1:] > items[:-1]) < len(items) - 1:  # not in growing order: there may be doubles
        again = np.ones(len(items), dtype=bool)
        again[np.unique(items, return_index=True)[1]] = False
        bad |= again
    return ~bad if np.count_nonzero(bad) else None


class Score:
    """One number a candidate: the fusion's."""

    def __init__(self, fusion: FusionModel) -> None:
        self._fusion = fusion

    def __call__(self, trip: Trip) -> None:
        """Fills `scores`."""
        trip.scores = self._fusion.score(trip.candidates, len(trip.state.history))

    def many(self, trips: Sequence[Trip]) -> None:
        """The same for several, whose candidates stand one behind the other."""
        for some in of_one_kind(trips):
            sizes = [len(trip.candidates.items) for trip in some]
            lengths = np.repeat([len(trip.state.history) for trip in some], sizes)
            scores = self._fusion.score(joined([trip.candidates for trip in some]), lengths)
            for trip, mine in zip(some, np.split(scores, np.cumsum(sizes)[:-1]), strict=True):
                trip.scores = mine


def of_one_kind(trips: Sequence[Trip]) -> list[list[Trip]]:
    """Trips whose candidates have the same channels and depth, side by side."""
    kinds: dict[tuple[tuple[str, ...], int], list[Trip]] = {}
    for trip in trips:
        kinds.setdefault((trip.candidates.channels, trip.candidates.depth), []).append(trip)
    return list(kinds.values())


class Hydrate:
    """What the ranker reads of the fusion's best, in their order and their number; of all candidates it would cost ten times as much.

    Args:
        ranker: whose reader it is. gatherer: cuts it off when it is late.
    """

    def __init__(self, ranker: CandidateRanker, gatherer: Gatherer) -> None:
        self._ranker, self._gatherer = ranker, gatherer

    def __call__(self, trip: Trip) -> None:
        """Fills `first` and `told`."""
        if trip.wish.level >= NO_RANKER:
            return
        first = self._ranker.first(trip.scored, trip.wish.tell)
        if first is None:
            return
        items, state = trip.candidates.items[first], trip.state
        told, why = self._gatherer.one("hydrate", lambda: self._ranker.hydrate(items, state))
        if why is None and told is not None and len(told) != len(items):
            why = f"gave {len(told)} rows for {len(items)} items"
        if why is not None:
            trip.down(NO_RANKER, f"features: {why}")
            return
        trip.first, trip.told = first, told


class Rank:
    """The fusion's best in the ranker's order, where it decides; chances where they are wanted."""

    def __init__(self, ranker: CandidateRanker, gatherer: Gatherer) -> None:
        self._ranker, self._gatherer = ranker, gatherer

    def __call__(self, trip: Trip) -> None:
        """Renews `scores`, fills `chances`."""
        first = trip.first
        if first is None:
            return
        found, scores, state, told = trip.candidates, trip.scored, trip.state, trip.told
        ranked, why = self._gatherer.one("ranker", lambda: self._ranker.rank(found, scores, state, first, told))
        if ranked is None:
            trip.down(NO_RANKER, f"ranker: {why}")
            return
        trip.scores, trip.chances, trip.heads = ranked.scores, ranked.chances, ranked.heads

    def many(self, trips: Sequence[Trip]) -> None:
        """The same for several in one piece; where that fails, one by one."""
        asked = [(trip, first) for trip in trips if (first := trip.first) is not None]
        if not asked:
            return
        questions = [Asked(trip.candidates, trip.scored, trip.state, first, trip.told) for trip, first in asked]
        ranked, why = self._gatherer.one("ranker", lambda: self._ranker.rank_many(questions))
        if ranked is None and why == FAILED and len(asked) > 1:
            for trip, _ in asked:
                self(trip)
            return
        for place, (trip, _) in enumerate(asked):
            if ranked is None:
                trip.down(NO_RANKER, f"ranker: {why}")
            else:
                trip.scores, trip.chances, trip.heads = ranked[place].scores, ranked[place].chances, ranked[place].heads


class Select:
    """Who stands where, by scores and rules, and where each comes from.

    Args:
        fusion: tells what each channel brought. vectors: unit item vectors. facts: what rules read.
    """

    def __init__(self, fusion: FusionModel, vectors: ItemVectors, facts: Facts) -> None:
        self._fusion, self._vectors, self._facts = fusion, vectors, facts

    def __call__(self, trip: Trip) -> None:
        """Fills `result`."""
        self.many([trip])

    def many(self, trips: Sequence[Trip]) -> None:
        """The same for several; what each channel brought is computed in one piece."""
        chosen = {id(trip): self._chosen(trip) for trip in trips}
        parts: dict[int, FloatArray] = {}
        for some in of_one_kind([trip for trip in trips if trip.level < PRECOMPUTED]):
            brought = self._parts(some, [chosen[id(trip)].best for trip in some])
            parts |= {id(trip): mine for trip, mine in zip(some, brought, strict=True)}
        for trip in trips:
            trip.result = self._result(trip, chosen[id(trip)], parts.get(id(trip)))

    def _chosen(self, trip: Trip) -> _Chosen:
        """Who stands in a list."""
        found, state, wish, scores = trip.candidates, trip.state, trip.wish, trip.scored
        full = trip.level < PRECOMPUTED
        if full:
            if wish.newest is not None and len(state.history):
                scores = modest(scores, found, wish.newest)
            scores = newcomer_scores(scores, found, state)
        explore = wish.explore if len(state.history) and full else None
        picked = pick(found, scores, wish.k, wish.rules, explore, self._facts)
        return _Chosen(picked, part(found, picked.places, vectors=False), scores)

    def _parts(self, trips: Sequence[Trip], chosen: Sequence[ChannelScores]) -> list[FloatArray]:
        """What each channel brought of the lists."""
        if len(trips) == 1:
            return [self._fusion.parts(chosen[0], len(trips[0].state.history))]
        sizes = [len(one.items) for one in chosen]
        begin = np.concatenate([[0], np.cumsum(sizes)])
        lengths = np.repeat([len(trip.state.history) for trip in trips], sizes)
        return np.split(self._fusion.parts(joined(chosen), lengths, begin), begin[1:-1])

    def _result(self, trip: Trip, chosen: _Chosen, parts: FloatArray | None) -> Found:
        found, state, picked, best = trip.candidates, trip.state, chosen.picked, chosen.best
        places = picked.places
        names = ["popular" if trip.level >= POPULAR else "precomputed"] * len(places)
        if parts is not None:
            names = _sources(parts, best, state)
            if np.count_nonzero(picked.slot):
                names = [FRESH_SLOT if slot else name for slot, name in zip(picked.slot.tolist(), names, strict=True)]
        nearest = partial(self._near, best.items, state) if parts is not None else partial(_nothing_near, len(places))
        chances = None if trip.chances is None else trip.chances[places]
        return Found(
            best.items, chosen.scores[places], names, nearest, parts, picked, found.items, state.segment, chances, trip.heads,
            trip.level, trip.degraded, chosen.scores,
        )  # fmt: skip

    def _near(self, items: IntArray, state: QueryState) -> list[int]:
        recent = state.history[-20:]
        if not len(recent) or not len(items):
            return _nothing_near(len(items))
        alike = self._vectors(items) @ self._vectors(recent).T
        return [int(recent[place]) for place in np.argmax(alike, axis=1)]


class _Chosen(msgspec.Struct, frozen=True, eq=False):
    """How a list came about, its candidates, and the scores of all candidates by which they were picked."""

    picked: Picked
    best: ChannelScores
    scores: FloatArray


def _nothing_near(count: int) -> list[int]:
    return [-1] * count


def modest(scores: FloatArray, found: ChannelScores, newest: int) -> FloatArray:
    """New items stand no higher among the others than their text does: they suit some people, not everybody."""
    new = found.items >= newest
    if not np.count_nonzero(new):
        return scores
    others = np.sort(np.where(np.isfinite(scores[~new]), scores[~new], -np.inf))[::-1]
    if not len(others):
        return scores
    known = [place for place, name in enumerate(found.channels) if name in CONTENT] or list(range(len(found.channels)))
    closest = np.minimum(found.ranks[new][:, known].min(axis=1), len(others) - 1)
    lowered = scores.copy()
    lowered[new] = np.where(closest > 0, np.minimum(scores[new], others[closest] - 1e-6), scores[new])
    return lowered


def _sources(parts: FloatArray, chosen: ChannelScores, state: QueryState) -> list[str]:
    unknown, known = "popular" if state.popular is None else "segment", len(state.history) or state.user_vector is not None
    names = sources(parts, chosen.channels) if known else [unknown] * len(chosen.items)
    popular = ("popular", "segment")
    return ["fresh" if count == 0 and name not in popular else name for name, count in zip(names, chosen.counts, strict=True)]


def scored(
    fusion: FusionModel, ranker: CandidateRanker | None, found: ChannelScores, state: QueryState, tell: bool = False
) -> Ranked:
    """Final scores of candidates, and their chances where a ranker decides or is asked: score, hydrate and rank without deadlines."""
    scores = fusion.score(found, len(state.history))
    first = None if ranker is None else ranker.first(scores, tell)
    if ranker is None or first is None:
        return Ranked(scores)
    return ranker.rank(found, scores, state, first, ranker.hydrate(found.items[first], state))
