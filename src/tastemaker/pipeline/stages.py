"""The stages of the request road, each of one shape: it takes a trip and leaves it richer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tastemaker.models.segments import newcomer_scores
from tastemaker.pipeline.explain import sources
from tastemaker.pipeline.gather import Gatherer
from tastemaker.pipeline.reserve import Reserve
from tastemaker.pipeline.select import FRESH_SLOT, Facts, pick
from tastemaker.pipeline.trip import FEWER, NO_RANKER, POPULAR, PRECOMPUTED, Found, Trip
from tastemaker.schema.candidates import ChannelScores, Ranked, part
from tastemaker.schema.protocols import (
    BoolArray,
    CandidateRanker,
    ChannelSource,
    FloatArray,
    FusionModel,
    IntArray,
    ItemVectors,
    QueryState,
)

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

    def __call__(self, trip: Trip) -> None:
        """Fills `found`."""
        wish = trip.wish
        depth = max(self.depth if wish.level < FEWER else -(-self.depth // LEAST_SHARE), wish.k)
        allowed = None if wish.barred is None else ~wish.barred

        def gather(calls: Mapping[str, Callable[[], FloatArray]]) -> Mapping[str, FloatArray]:
            done, missing = self.gatherer.run(calls)
            if missing:
                trip.down(FEWER, *(f"source {name}: {why}" for name, why in missing.items()))
            if not done:
                raise LookupError(f"none of {len(calls)} sources answered")
            return done

        found = self.channels.candidates([trip.state], depth, allowed, gather=gather)[0]
        trip.found = with_pins(self.channels, found, trip)


def with_pins(channels: ChannelSource, found: ChannelScores, trip: Trip) -> ChannelScores:
    """The candidates and, behind them, pinned items that no channel found."""
    missing = [item for item in trip.wish.rules.pins.values() if item not in found.items]
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
    """Nothing barred, nothing met before and nothing twice goes on, whatever a source brought; where fewer than k are left, popular items come along.

    The same filters are applied inside the sources: this is the lock behind the door.
    """

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def __call__(self, trip: Trip) -> None:
        """Narrows `found`."""
        found, wish, history = trip.candidates, trip.wish, trip.state.history
        keep = kept(found.items, wish.barred, history)
        if keep is not None:
            found = part(found, np.flatnonzero(keep))
        if len(found.items) < wish.k:
            met = set(history.tolist()) | set(found.items.tolist())
            more = self._reserve.most_popular(wish.k - len(found.items), wish.barred, met)
            if more:
                found = with_rows(found, np.array(more, dtype=np.int32))
        trip.found = found


def kept(items: IntArray, barred: BoolArray | None, history: IntArray) -> BoolArray | None:
    """Which candidates may go on, bool [M]; None: all of them."""
    keep = np.ones(len(items), dtype=bool)
    if barred is not None:
        out = barred
        if len(history):
            out = barred.copy()
            out[history] = True
        keep = ~out[items]
    elif len(history):
        keep = ~np.isin(items, history)
    if len(items) > 1 and not (items[1:] > items[:-1]).all():  # not in growing order: there may be doubles
        first = np.zeros(len(items), dtype=bool)
        first[np.unique(items, return_index=True)[1]] = True
        keep &= first
    return None if keep.all() else keep


class Score:
    """One number a candidate: the fusion's."""

    def __init__(self, fusion: FusionModel) -> None:
        self._fusion = fusion

    def __call__(self, trip: Trip) -> None:
        """Fills `scores`."""
        trip.scores = self._fusion.score(trip.candidates, len(trip.state.history))


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


class Select:
    """Who stands where, by scores and rules, and where each comes from.

    Args:
        fusion: tells what each channel brought. vectors: unit item vectors. facts: what rules read.
    """

    def __init__(self, fusion: FusionModel, vectors: ItemVectors, facts: Facts) -> None:
        self._fusion, self._vectors, self._facts = fusion, vectors, facts

    def __call__(self, trip: Trip) -> None:
        """Fills `result`."""
        found, state, wish, scores = trip.candidates, trip.state, trip.wish, trip.scored
        full = trip.level < PRECOMPUTED
        if full:
            if wish.newest is not None and len(state.history):
                scores = modest(scores, found, wish.newest)
            scores = newcomer_scores(scores, found, state)
        explore = wish.explore if len(state.history) and full else None
        picked = pick(found, scores, wish.k, wish.rules, explore, self._facts)
        places = picked.places
        chosen = part(found, places)
        parts, names, near = None, ["popular" if trip.level >= POPULAR else "precomputed"] * len(places), [-1] * len(places)
        if full:
            parts = self._fusion.parts(chosen, len(state.history))
            names = _sources(parts, chosen, state)
            names = [FRESH_SLOT if slot else name for slot, name in zip(picked.slot.tolist(), names, strict=True)]
            near = self._near(chosen.items, state)
        chances = None if trip.chances is None else trip.chances[places]
        trip.result = Found(
            chosen.items, scores[places], names, near, parts, picked, found.items, state.segment, chances, trip.heads,
            trip.level, trip.degraded, scores,
        )  # fmt: skip

    def _near(self, items: IntArray, state: QueryState) -> list[int]:
        recent = state.history[-20:]
        if not len(recent) or not len(items):
            return [-1] * len(items)
        alike = self._vectors(items) @ self._vectors(recent).T
        return [int(recent[place]) for place in np.argmax(alike, axis=1)]


def modest(scores: FloatArray, found: ChannelScores, newest: int) -> FloatArray:
    """New items stand no higher among the others than their text does: they suit some people, not everybody."""
    new = found.items >= newest
    others = np.sort(np.where(np.isfinite(scores[~new]), scores[~new], -np.inf))[::-1]
    if not new.any() or not len(others):
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
