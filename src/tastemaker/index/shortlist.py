"""Candidates of a large catalogue without a look at every item: each channel's best by its own index, then every channel's score of these alone.

What `Channels` computes in whole rows for a small catalogue, for a large one is
    sequence, text, taste, graph    searched in an approximate index; then exact products with the items that any channel found
    neighbours, together            summed over the neighbours of the history's items, the same numbers
    popular                         read from the head of an order that is made once
A place in a channel is the place among all that was found, so an item that one channel's index missed and another channel found has its place all the same. The
normaliser of `sequence` is a sum over what was found and over a sample of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.exact import DenseIndex, top
from tastemaker.index.neighbours import LATEST, Neighbours, fading
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, Gather, IntArray, QueryState
from tastemaker.schema.signals import GRAPH

if TYPE_CHECKING:
    from tastemaker.index.channels import Channels

SAMPLE = 1_024
"""Items by which the rest of a normaliser is estimated."""
HEAD = 4_096
"""Items of an order that is made once."""
SIMILAR, LEAST_SIMILAR = 4, 200
"""Items like an item are looked for among so many times as many by each of their likenesses, and at least so many."""
_FEW_ALLOWED = 4
"""If at most the catalogue's size divided by this is allowed, what is allowed is listed."""
_NONE = np.zeros(0, dtype=np.int64)


class Shortlists:
    """Candidates of the items of some channels."""

    def __init__(self, channels: Channels) -> None:
        self._of = channels
        self._sums = [_Sums(channels.neighbours), _Sums(channels.together)]
        self._popular, self._prior = _Head(), _Head()
        self._met = np.zeros(0, dtype=bool)
        size = min(SAMPLE, len(channels.items))
        self._sample = np.sort(np.random.default_rng(0).choice(len(channels.items), size, replace=False))
        self._sample_rows = channels.items.rows(self._sample)
        self._prior_sum: tuple[int, float] = -1, 0.0

    def candidates(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None,
        filter_seen: bool,
        gather: Gather | None = None,
    ) -> list[ChannelScores]:
        """As of `Channels`; the searches in indexes are the calls of `gather`, that of `text` for `taste`, too."""
        if allowed is not None and allowed.all():
            allowed = None
        listed = None
        if allowed is not None and np.count_nonzero(allowed) * _FEW_ALLOWED <= len(allowed):
            listed = np.flatnonzero(allowed)
        none = np.zeros(0, np.int32)
        return [
            self._found(state, _Open(allowed, listed, self._marked(state.history if filter_seen else none)), depth, gather=gather)
            for state in states
        ]

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """As of `Channels`."""
        whole = self._found(state, _Open(None, None, self._marked(np.zeros(0, np.int32))), depth, items.astype(np.int64))
        at = np.searchsorted(whole.items, items)
        return ChannelScores(items.astype(np.int32), whole.channels, whole.scores[at], whole.ranks[at], whole.counts[at], depth)

    def similar(self, index: int, depth: int, allowed: BoolArray | None) -> tuple[IntArray, FloatArray]:
        """As of `Channels`."""
        channels, query = self._of, np.array([index])
        text, vector = channels.text.rows(query), channels.items.rows(query)
        near, weights = channels.neighbours.of(index, depth)
        wanted = max(SIMILAR * depth, LEAST_SIMILAR)  # what is good in sum may be the best in nothing
        parts = [near] + [found for found, _ in channels.text.search(text, wanted, allowed)] * bool(text.any())
        parts += [found for found, _ in channels.items.search(self._plain(vector), wanted, allowed)]
        items = np.unique(np.concatenate(parts)).astype(np.int64)
        items = items[items != index]
        items = items if allowed is None else items[allowed[items]]
        scores = channels.text.rows(items) @ text[0] + 0.5 * (channels.items.rows(items) @ vector[0])
        scores += _sparse(near, weights, items)
        order = np.lexsort((items, -scores))[:depth]
        return items[order].astype(np.int32), scores[order].astype(np.float32)

    def _plain(self, vectors: FloatArray) -> FloatArray:
        """Item vectors as queries so long that what is added to each item hardly counts."""
        return vectors * np.float32(1e3)

    def _found(
        self, state: QueryState, open_: _Open, depth: int, more: NDArray[np.int64] = _NONE, gather: Gather | None = None
    ) -> ChannelScores:
        """Candidates of one query, growing; with `more` these items too, whatever their places."""
        channels = self._of
        user = state.user_vector if state.user_vector is not None else np.zeros(channels.items.dim, np.float32)
        text = self._content(channels.text, state.history, (channels.decays.text, channels.decays.taste))
        graph = None if channels.graph is None else self._content(channels.graph, state.history, (channels.decays.text,))
        popular, friends = self._people(state)
        calls: dict[str, Callable[[], Any]] = {
            "sequence": lambda: self._sequence(user, open_, depth),
            "text": lambda: _searched(channels.text, text, open_, depth),
        }
        if channels.graph is not None and graph is not None:
            calls[GRAPH] = partial(_searched, channels.graph, graph, open_, depth)
        done = {name: call() for name, call in calls.items()} if gather is None else gather(calls)
        best, normaliser = done.get("sequence", (_NONE, 0.0))
        parts = [best, *done.get("text", ()), *done.get(GRAPH, ())]
        for sums, decay in zip(self._sums, (channels.decays.neighbours, channels.decays.together), strict=True):
            parts.append(open_.largest(*sums.add(state.history, decay, channels.n_items), depth))
        parts.append(self._popular.best(channels.popular, open_, depth) if popular is None else open_.best(popular, depth))
        if friends is not None:
            met = np.flatnonzero(friends > 0)
            parts.append(open_.largest(met, friends[met], depth))
        items = np.unique(np.concatenate([*parts, more])).astype(np.int64)
        columns = [
            channels.items.rows(items) @ user + channels.bias[items] - normaliser,
            *(sums.take(items) for sums in self._sums),
            *(text @ channels.text.rows(items).T if text.any() else np.zeros((2, len(items)), np.float32)),
            (channels.popular if popular is None else popular)[items],
            *(() if channels.graph is None or graph is None else graph @ channels.graph.rows(items).T),
            *(() if friends is None else [friends[items]]),
        ]
        open_.close()
        scores = np.stack(columns, axis=1).astype(np.float32)
        for name in calls.keys() - done.keys():
            for channel in ("text", "taste") if name == "text" else (name,):
                at = channels.names.index(channel)
                scores[:, at] = channels.floors[at]
        places = _places(scores, channels.floors, depth)
        return ChannelScores(items.astype(np.int32), channels.names, scores, places, channels.counts[items], depth)

    def _marked(self, history: IntArray) -> _Met:
        """The items of a history, marked in a table that is kept."""
        if len(self._met) < self._of.n_items:
            self._met = np.zeros(self._of.n_items * 3 // 2 + 16, dtype=bool)
        return _Met(self._met, history)

    def _people(self, state: QueryState) -> tuple[FloatArray | None, FloatArray | None]:
        """Popularity with the asker's own kind of people, and what friends met; None where it is everybody's, or nobody's are known."""
        channels, popular, friends = self._of, None, None
        if state.popular is not None:
            popular = channels.popular.copy()
            popular[: len(state.popular)] = state.popular
        if channels.companions is not None:
            friends = channels.companions.scores(np.array([state.user], dtype=np.int32), channels.n_items)[0]
        return popular, friends

    def _content(self, index: DenseIndex, history: IntArray, decays: tuple[float, ...]) -> FloatArray:
        """What the latest events are, by how fast older ones fade, float32 [decays, C]."""
        latest = history[-LATEST:][::-1]
        if not len(latest):
            return np.zeros((len(decays), index.dim), dtype=np.float32)
        found: FloatArray = fading(decays, len(latest)) @ index.rows(latest)
        return found

    def _sequence(self, user: FloatArray, open_: _Open, depth: int) -> tuple[NDArray[np.int64], float]:
        """The items that are most likely next, and the logarithm of the sum over all items."""
        channels = self._of
        if not user.any():
            return self._prior.best(channels.bias, open_, depth), self._prior_normaliser()
        items, logits = channels.items.search(user[None], open_.wanted(depth), open_.allowed)[0]
        best = open_.free(items)[:depth]
        sample = self._sample_rows @ user + channels.bias[self._sample]
        cut = float(logits[-1]) if len(logits) else np.inf
        rest = sample < cut if open_.allowed is None else (sample < cut) | ~open_.allowed[self._sample]
        largest = max(float(sample.max(initial=-np.inf)), float(logits.max(initial=-np.inf)))
        left = (
            max(channels.n_items - len(items), 0) / max(int(rest.sum()), 1)
            if open_.allowed is None
            else channels.n_items / len(sample)
        )
        total = float(np.exp(logits - largest).sum()) + left * float(np.exp(sample[rest] - largest).sum())
        return best, largest + float(np.log(max(total, 1e-30)))

    def _prior_normaliser(self) -> float:
        """That of somebody of whom nothing is known."""
        n, bias = self._of.n_items, self._of.bias
        if self._prior_sum[0] != n:
            largest = float(bias.max(initial=-np.inf))
            self._prior_sum = n, largest + float(np.log(np.exp(bias - largest).sum()))
        return self._prior_sum[1]


@dataclass
class _Met:
    """Items marked in a table until `close`."""

    table: BoolArray
    history: IntArray

    def __post_init__(self) -> None:
        self.table[self.history] = True


@dataclass(frozen=True)
class _Open:
    """Which items a query may find.

    Attributes:
        allowed: bool [N]; None: all. listed: the same as item indices, where they are few. met: those that the asker has met.
    """

    allowed: BoolArray | None
    listed: NDArray[np.int64] | None
    met: _Met

    def wanted(self, depth: int) -> int:
        """How many items to ask for so that `depth` are left without those that the asker has met."""
        return depth + len(self.met.history)

    def free(self, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Those that may be found, in their order."""
        keep = ~self.met.table[items]
        if self.allowed is not None:
            keep &= self.allowed[items]
        found: NDArray[np.int64] = items[keep].astype(np.int64, copy=False)
        return found

    def largest(self, items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
        """Of the items that may be found the `depth` with the largest values above zero; of equals the smaller indices."""
        keep = ~self.met.table[items] & (values > 0)
        if self.allowed is not None:
            keep &= self.allowed[items]
        return _largest(items[keep], values[keep], depth)

    def best(self, values: FloatArray, depth: int) -> NDArray[np.int64]:
        """The `depth` items that may be found with the largest of all values, whatever they are."""
        items = self.free(np.arange(len(values)) if self.listed is None else self.listed)
        return _largest(items, values[items], depth)

    def close(self) -> None:
        """The marks are taken away."""
        self.met.table[self.met.history] = False


class _Head:
    """The first items of an order that hardly ever changes."""

    def __init__(self) -> None:
        self._first, self._of = _NONE, -1

    def best(self, values: FloatArray, open_: _Open, depth: int) -> NDArray[np.int64]:
        """The `depth` items with the largest values that may be found."""
        if open_.listed is None:
            if self._of < 0 or (self._of != len(values) and len(self._first) < HEAD):
                self._first, self._of = top(values[None], HEAD)[0], len(values)
            found = open_.free(self._first)
            if len(found) >= depth:
                return found[:depth]
        return open_.best(values, depth)


class _Sums:
    """Sums over the neighbours of a history, in a table that is cleared item by item."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._sum, self._last = np.zeros(0, np.float32), np.zeros(0, np.int32)
        self._items = _NONE

    def add(self, history: IntArray, decay: float, n_items: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Items with a sum, and the sums, in no order; `take` has to follow."""
        if len(self._sum) < n_items:
            size = n_items * 3 // 2 + 16
            self._sum, self._last = np.zeros(size, np.float32), np.zeros(size, np.int32)
        if not self._neighbours.weights.nnz:
            self._items = _NONE
            return _NONE, self._sum[:0]
        met, weights = self._neighbours.around(history, decay, LATEST)
        np.add.at(self._sum, met, weights)
        numbers = np.arange(len(met), dtype=np.int32)
        self._last[met] = numbers
        self._items = met[self._last[met] == numbers].astype(np.int64)
        return self._items, self._sum[self._items]

    def take(self, items: NDArray[np.int64]) -> FloatArray:
        """The sums of some items; the table is empty after."""
        found: FloatArray = self._sum[items]
        self._sum[self._items] = 0.0
        return found


def _searched(index: DenseIndex, queries: FloatArray, open_: _Open, depth: int) -> list[NDArray[np.int64]]:
    if not queries.any():
        return []
    found = index.search(queries, open_.wanted(depth), open_.allowed)
    return [open_.free(items[scores > 0])[:depth] for items, scores in found]


def _largest(items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
    if len(items) <= depth:
        return items
    bound = -np.partition(-values, depth - 1)[depth - 1]
    better, equal = items[values > bound], items[values == bound]
    return np.concatenate([better, np.sort(equal)[: depth - len(better)]])


def _sparse(of: NDArray[np.int64], values: FloatArray, items: NDArray[np.int64]) -> FloatArray:
    """Values of some items at the places of others, growing; 0 where there is none."""
    found = np.zeros(len(items), dtype=np.float32)
    at = np.searchsorted(items, of)
    inside = at < len(items)
    inside[inside] = items[at[inside]] == of[inside]
    found[at[inside]] = values[inside]
    return found


def _places(scores: FloatArray, floors: FloatArray, depth: int) -> IntArray:
    """Each channel's place of each item among these, or `depth` beyond that and for a score not above the channel's floor, int32 [M, C]."""
    order = np.argsort(-scores, axis=0, kind="stable")
    places = np.empty(scores.shape, dtype=np.int32)
    np.put_along_axis(places, order, np.arange(len(scores), dtype=np.int32)[:, None], axis=0)
    places[(places >= depth) | ~(scores > floors)] = depth
    return places
