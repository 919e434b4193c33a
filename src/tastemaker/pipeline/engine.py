"""The request road: source, filter, score, hydrate, rank, select, record. It knows protocols only; who fits them can take the place.

When something is late, breaks, or the service is busy, the answer steps down a ladder that it tells of: fewer candidates, no ranker, a list that was made
before, what is popular.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby

import msgspec
import numpy as np

from tastemaker.pipeline.explain import reason, with_connection
from tastemaker.pipeline.gather import FAILED, Gatherer, tell
from tastemaker.pipeline.rerank import order
from tastemaker.pipeline.reserve import KEPT_ITEMS, Reserve
from tastemaker.pipeline.rules import RowOf, Rules
from tastemaker.pipeline.select import Facts
from tastemaker.pipeline.stages import Filter, Hydrate, Rank, Score, Select, Source, excluded_of, scored, with_pins
from tastemaker.pipeline.trip import LEVELS, POPULAR, PRECOMPUTED, Found, Stage, Stages, Trip, Wish
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import CandidateRanker, ChannelSource, FloatArray, FusionModel, ItemVectors, QueryState

__all__ = ["Found", "Road", "Wish", "reasons"]

AT_ONCE = 32
"""Queries that pass the stages together at most."""
Timed = Callable[[str, float], None]
"""Is told the name of a stage and the seconds that it took."""


class Road:
    """Holds the stages of the road.

    Args:
        channels: finds candidates. fusion: scores them. vectors: item vectors, for diversity and reasons. depth: candidates of each channel.
        texts: unit text vectors by item index, by which doubles are known; None: item vectors.
        row_of: fields of an item, for rules; None: items have none.
        ranker: orders the fusion's best; None: the fusion's order stays.
        popular: recent popularity of every item, for what has no source left; None: the items' order.
        seconds: what the sources have together, and again the ranker with its features; 0: no deadline. lanes: threads that share the sources.
        memory: sources and ranker only compute over memory: they earn to be called without a thread of their own.
    """

    def __init__(
        self,
        channels: ChannelSource,
        fusion: FusionModel,
        vectors: ItemVectors,
        depth: int,
        texts: ItemVectors | None = None,
        row_of: RowOf | None = None,
        ranker: CandidateRanker | None = None,
        popular: Callable[[], FloatArray] | None = None,
        seconds: float = 0.0,
        lanes: int = 1,
        memory: bool = False,
    ) -> None:
        self.channels, self.fusion, self.depth, self.ranker = channels, fusion, depth, ranker
        self.timed: Timed | None = None
        self.facts = Facts(vectors, texts or vectors, row_of or (lambda item: {"item_id": str(item)}))
        self.reserve = Reserve(popular or (lambda: _flat(channels.n_items)))
        self.gatherer = Gatherer(seconds, lanes, memory)
        self._select: Stage = Select(fusion, vectors, self.facts)
        self.after_source: list[tuple[str, Stage]] = [("filter", Filter(self.reserve)), ("score", Score(fusion))]
        if ranker is not None:
            self.after_source += [("hydrate", Hydrate(ranker, self.gatherer)), ("rank", Rank(ranker, self.gatherer))]
        self.after_source.append(("select", self._select))
        self.stages: list[tuple[str, Stage]] = [("source", Source(channels, self.gatherer, depth)), *self.after_source]

    def scored(self, found: ChannelScores, state: QueryState, tell: bool = False) -> Ranked:
        """Final scores of candidates, and their chances where a ranker decides or is asked."""
        return scored(self.fusion, self.ranker, found, state, tell)

    def recommend(self, state: QueryState, wish: Wish) -> Found:
        """The best k items that are allowed; exactly k where as many exist, whatever breaks."""
        return _sound(self.recommend_together([state], [wish])[0])

    def recommend_together(self, states: Sequence[QueryState], wishes: Sequence[Wish]) -> list[Found | InputError]:
        """Lists for requests that came at the same time, each as if it had come alone; what is wrong with a question is given back in its place."""
        trips = [Trip(state, wish) for state, wish in zip(states, wishes, strict=True)]
        for trip in trips:
            if trip.wish.level:
                trip.down(trip.wish.level, f"load: {LEVELS[trip.wish.level]}")
        return self._travel(trips, self.stages)

    def recommend_many(self, states: Sequence[QueryState], wishes: Sequence[Wish]) -> list[Found]:
        """Lists for many queries, without deadlines; neighbours in the sequence that bar the same items (the same array) are worked on together."""
        lists: list[Found] = []
        for _, run in groupby(zip(states, wishes, strict=True), key=lambda pair: id(pair[1].barred)):
            pairs = list(run)
            barred = pairs[0][1].barred
            depth = max(self.depth, max(wish.k for _, wish in pairs))
            began = time.perf_counter()
            allowed, excluded = None if barred is None else ~barred, excluded_of([wish for _, wish in pairs])
            found = self.channels.candidates([state for state, _ in pairs], depth, allowed, excluded=excluded)
            self._lap("source", began)
            trips = []
            for one, (state, wish) in zip(found, pairs, strict=True):
                trip = Trip(state, wish)
                trip.found = with_pins(self.channels, one, trip)
                trips.append(trip)
            for begin in range(0, len(trips), AT_ONCE):
                lists += [_sound(one) for one in self._travel(trips[begin : begin + AT_ONCE], self.after_source)]
        return lists

    def rank(self, found: ChannelScores, state: QueryState, tell: bool = False) -> Found:
        """The given candidates in order, whether met before or not."""
        trip = Trip(state, Wish(k=len(found.items), tell=tell), found)
        return _sound(self._travel([trip], [stage for stage in self.after_source if stage[0] != "filter"])[0])

    def with_pins(self, found: ChannelScores, state: QueryState, rules: Rules) -> ChannelScores:
        """The candidates and, behind them, pinned items that no channel found."""
        return with_pins(self.channels, found, Trip(state, Wish(0, rules=rules)))

    def _travel(self, trips: Sequence[Trip], stages: Stages) -> list[Found | InputError]:
        """The lists at the end of the stages. A stage that several trips pass together takes its time once."""
        given = [trip.found for trip in trips]
        for trip in trips:
            if trip.level >= PRECOMPUTED:
                trip.result = self._from_reserve(trip)
        whole = [trip for trip in trips if trip.result is None]
        for name, stage in stages:
            going = [trip for trip in whole if trip.error is None and not trip.fell]
            if going:
                began = time.perf_counter()
                self._pass(name, stage, going)
                self._lap(name, began)
        found: list[Found | InputError] = []
        for trip, before in zip(trips, given, strict=True):
            if trip.fell:
                trip.result = self._from_reserve(trip, before)
            elif trip.result is not None and trip.level < PRECOMPUTED:
                self._keep(trip)
            found.append(_list_of(trip))
        return found

    def _pass(self, name: str, stage: Stage, trips: Sequence[Trip]) -> None:
        """Takes trips through a stage, together where it can; one that breaks it falls alone."""
        try:
            many = getattr(stage, "many", None)  # asking a protocol costs as much as a stage
            if len(trips) == 1:
                stage(trips[0])
            elif many is not None:
                many(trips)
            else:
                for trip in trips:
                    self._pass(name, stage, [trip])
        except Exception as error:
            if len(trips) > 1:
                for trip in trips:
                    self._pass(name, stage, [trip])
            elif isinstance(error, InputError):
                trips[0].error = error
            else:  # the answer matters more than the stage
                tell(name, FAILED, error)
                trips[0].down(PRECOMPUTED, f"{name}: {FAILED}")
                trips[0].fell = True

    def _from_reserve(self, trip: Trip, given: ChannelScores | None = None) -> Found:
        """A list without sources and models: of the given candidates where they were asked for, else what was made before, else what is popular."""
        if given is not None and trip.wish.k == len(given.items) and trip.wish.barred is None:
            trip.found, trip.scores = given, -_flat(len(given.items)).cumsum()
            trip.down(POPULAR)
        else:
            self.reserve.fill(trip, trip.level)
        try:
            self._select(trip)
        except Exception as error:
            tell("rules", FAILED, error)
            trip.down(POPULAR, f"rules: {FAILED}")
            trip.wish = msgspec.structs.replace(trip.wish, rules=Rules(), explore=None)
            self._select(trip)
        if trip.result is None:
            raise LookupError("the road has no stage that selects")
        return trip.result

    def _lap(self, stage: str, began: float) -> None:
        if self.timed is not None:
            self.timed(stage, time.perf_counter() - began)

    def _keep(self, trip: Trip) -> None:
        """The best candidates of a full answer wait for worse times."""
        asker, scores = trip.state.asker, trip.scores
        whole = trip.level == 0 and (trip.state.user_vector is not None or not len(trip.state.history))
        if whole and asker is not None and asker.user_id and scores is not None:
            self.reserve.keep(asker.user_id, lambda: trip.candidates.items[order(scores, KEPT_ITEMS)], asker.now)


def _list_of(trip: Trip) -> Found | InputError:
    if trip.error is not None:
        return trip.error
    if trip.result is None:
        raise LookupError("the road has no stage that selects")
    return trip.result


def _sound(found: Found | InputError) -> Found:
    if isinstance(found, InputError):
        raise found
    return found


def _flat(count: int) -> FloatArray:
    return np.ones(count, dtype=np.float32)


def reasons(found: Found, title_of: Callable[[int], str], connected: Callable[[int], str | None] | None = None) -> list[str]:
    """A sentence for each place of the list.

    Args:
        title_of: title of an item. connected: how an item is connected with the history, or None; None: nothing is known of connections.
    """
    told = []
    for item, source, near in zip(found.items.tolist(), found.sources, found.near, strict=True):
        words = reason(source, title_of(near) if near >= 0 else None, found.segment)
        told.append(with_connection(source, words, connected(item) if connected is not None else None))
    return told
