"""The request road: sources, filter, score, select, reasons. It knows protocols only; who fits them can take the place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np

from tastemaker.models.segments import newcomer_scores
from tastemaker.pipeline.explain import reason, sources, with_connection
from tastemaker.pipeline.explore import Explore
from tastemaker.pipeline.rules import RowOf, Rules
from tastemaker.pipeline.select import FRESH_SLOT, Facts, Picked, pick
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.protocols import BoolArray, CandidateRanker, ChannelSource, FloatArray, FusionModel, IntArray, QueryState

CONTENT = ("text", "taste", "graph")
"""Channels that know an item before anybody has met it."""


Timed = Callable[[str, float], None]
"""Is told the name of a stage and the seconds that it took."""


class ItemVectors(Protocol):
    """Item vectors by index."""

    def __call__(self, indices: IntArray) -> FloatArray:
        """Unit rows, float32 [n, D]."""


@dataclass(frozen=True)
class Wish:
    """What one request wants of the road.

    Attributes:
        k: length of the list.
        barred: bool [N], items that must not appear; the history's own items are always left out.
        newest: item indices from here on are newer than the bundle; None: none are.
        rules: everything besides relevance that the list obeys.
        explore: the fresh slot, for askers with a history; None: there is none.
        tell: the chances of the ranker are wanted, even where they decide nothing.
    """

    k: int
    barred: BoolArray | None = None
    newest: int | None = None
    rules: Rules = field(default_factory=Rules)
    explore: Explore | None = None
    tell: bool = False


@dataclass
class Found:
    """The list: item indices, scores and sources, best first.

    Attributes:
        near: for each place the item of the history that is closest, or -1.
        parts: how much each channel brought, float32 [n, C]; None unless asked for.
        picked: how the list came about, its places those of `candidates` (item indices, int32 [M]); None where nothing was picked.
        segment: whose popularity it was, in words; empty where nobody's.
        chances: by head, float32 [n, heads]; None where no ranker was asked.
        heads: names of the chances.
    """

    items: IntArray
    scores: FloatArray
    sources: list[str]
    near: list[int] = field(default_factory=list)
    parts: FloatArray | None = None
    picked: Picked | None = None
    candidates: IntArray | None = None
    segment: str = ""
    chances: FloatArray | None = None
    heads: tuple[str, ...] = ()


class Road:
    """Holds the parts of the road.

    Args:
        channels: finds candidates. fusion: scores them. vectors: item vectors, for diversity and reasons. depth: candidates of each channel.
        texts: unit text vectors by item index, by which doubles are known; None: item vectors.
        row_of: fields of an item, for rules; None: items have none.
        ranker: orders the fusion's best; None: the fusion's order stays.
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
    ) -> None:
        self.channels, self.fusion, self.vectors, self.depth, self.ranker = channels, fusion, vectors, depth, ranker
        self.timed: Timed | None = None
        self.facts = Facts(vectors, texts or vectors, row_of or (lambda item: {"item_id": str(item)}))

    def scored(self, found: ChannelScores, state: QueryState, tell: bool = False) -> Ranked:
        """Final scores of candidates, and their chances where a ranker decides or is asked."""
        scores = self.fusion.score(found, len(state.history))
        return Ranked(scores) if self.ranker is None else self.ranker.rank(found, scores, state, tell)

    def recommend(self, state: QueryState, wish: Wish) -> Found:
        """The best k items that are allowed; exactly k where as many exist."""
        return self.recommend_many([state], [wish])[0]

    def recommend_many(self, states: Sequence[QueryState], wishes: Sequence[Wish]) -> list[Found]:
        """Lists for many queries; neighbours in the sequence that bar the same items (the same array) are worked on together."""
        lists: list[Found] = []
        for _, run in groupby(zip(states, wishes, strict=True), key=lambda pair: id(pair[1].barred)):
            pairs = list(run)
            barred = pairs[0][1].barred
            depth = max(self.depth, max(wish.k for _, wish in pairs))
            began = time.perf_counter()
            found = self.channels.candidates([state for state, _ in pairs], depth, None if barred is None else ~barred)
            self._lap("candidates", began)
            lists += [
                self._select(self.with_pins(one, state, wish.rules), state, wish)
                for one, (state, wish) in zip(found, pairs, strict=True)
            ]
        return lists

    def rank(self, found: ChannelScores, state: QueryState, tell: bool = False) -> Found:
        """The given candidates in order."""
        return self._select(found, state, Wish(k=len(found.items), tell=tell))

    def with_pins(self, found: ChannelScores, state: QueryState, rules: Rules) -> ChannelScores:
        """The candidates and, behind them, pinned items that no channel found."""
        missing = [item for item in rules.pins.values() if item not in found.items]
        if not missing:
            return found
        more = self.channels.score_items(state, np.array(missing, dtype=np.int32), found.depth)
        pairs = [(getattr(found, name), getattr(more, name)) for name in ("items", "scores", "ranks", "counts")]
        items, scores, ranks, counts = (np.concatenate(pair) for pair in pairs)
        return ChannelScores(items, found.channels, scores, ranks, counts, found.depth)

    def _select(self, found: ChannelScores, state: QueryState, wish: Wish) -> Found:
        began = time.perf_counter()
        ranked = self.scored(found, state, wish.tell)
        began = self._lap("score", began)
        scores = ranked.scores
        if wish.newest is not None and len(state.history):
            scores = self._modest(scores, found, wish.newest)
        scores = newcomer_scores(scores, found, state)
        explore = wish.explore if len(state.history) else None
        picked = pick(found, scores, wish.k, wish.rules, explore, self.facts)
        places = picked.places
        self._lap("select", began)
        chosen = ChannelScores(
            found.items[places], found.channels, found.scores[places], found.ranks[places], found.counts[places], found.depth
        )
        parts = self.fusion.parts(chosen, len(state.history))
        names = self._sources(parts, chosen, state)
        names = [FRESH_SLOT if slot else name for slot, name in zip(picked.slot.tolist(), names, strict=True)]
        chances = None if ranked.chances is None else ranked.chances[places]
        near = self._near(chosen.items, state)
        return Found(chosen.items, scores[places], names, near, parts, picked, found.items, state.segment, chances, ranked.heads)

    def _lap(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        if self.timed is not None:
            self.timed(stage, now - began)
        return now

    def _modest(self, scores: FloatArray, found: ChannelScores, newest: int) -> FloatArray:
        """New items stand no higher among the others than their text does: they suit some people, not everybody."""
        new = found.items >= newest
        others = np.sort(np.where(np.isfinite(scores[~new]), scores[~new], -np.inf))[::-1]
        if not new.any() or not len(others):
            return scores
        known = [place for place, name in enumerate(found.channels) if name in CONTENT] or list(range(len(found.channels)))
        closest = np.minimum(found.ranks[new][:, known].min(axis=1), len(others) - 1)
        kept = scores.copy()
        kept[new] = np.where(closest > 0, np.minimum(scores[new], others[closest] - 1e-6), scores[new])
        return kept

    def _sources(self, parts: FloatArray, chosen: ChannelScores, state: QueryState) -> list[str]:
        unknown, known = "popular" if state.popular is None else "segment", len(state.history) or state.user_vector is not None
        names = sources(parts, chosen.channels) if known else [unknown] * len(chosen.items)
        popular = ("popular", "segment")
        return ["fresh" if count == 0 and name not in popular else name for name, count in zip(names, chosen.counts, strict=True)]

    def _near(self, items: IntArray, state: QueryState) -> list[int]:
        recent = state.history[-20:]
        if not len(recent) or not len(items):
            return [-1] * len(items)
        alike = self.vectors(items) @ self.vectors(recent).T
        return [int(recent[place]) for place in np.argmax(alike, axis=1)]


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
