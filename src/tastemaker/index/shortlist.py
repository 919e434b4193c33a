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
        self._sample_rows, self._sample_bias = channels.items.rows(self._sample), channels.bias[self._sample]
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
        table, none = self._marks(), np.zeros(0, np.int32)
        opens = [_Open(allowed, listed, table, state.history if filter_seen else none) for state in states]
        return self._found(states, opens, depth, gather=gather)

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """As of `Channels`."""
        everything = _Open(None, None, self._marks(), np.zeros(0, np.int32))
        whole = self._found([state], [everything], depth, items.astype(np.int64))[0]
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
        self,
        states: Sequence[QueryState],
        opens: Sequence[_Open],
        depth: int,
        more: NDArray[np.int64] = _NONE,
        gather: Gather | None = None,
    ) -> list[ChannelScores]:
        """Candidates of each query, growing; with `more` these items too, whatever their places."""
        channels = self._of
        asked = [self._query(state, open_) for state, open_ in zip(states, opens, strict=True)]
        calls: dict[str, Callable[[], Any]] = {
            "sequence": lambda: self._sequences(asked, depth),
            "text": lambda: [_searched(channels.text, one.text, one.open, depth) for one in asked],
        }
        if channels.graph is not None:
            graph = channels.graph
            calls[GRAPH] = lambda: [_searched(graph, one.graph, one.open, depth) for one in asked]
        done = {name: call() for name, call in calls.items()} if gather is None else gather(calls)
        missing = [name for name in calls if name not in done]
        nothing: list[Any] = [()] * len(asked)
        likely = done.get("sequence", [(_NONE, 0.0)] * len(asked))
        alike = zip(done.get("text", nothing), done.get(GRAPH, nothing), strict=True)
        found = []
        for one, (best, normaliser), (texts, graphs) in zip(asked, likely, alike, strict=True):
            with one.open:
                parts = [self._prior.best(channels.bias, one.open, depth) if best is None else one.open.free(best)[:depth]]
                parts += [one.open.free(items)[:depth] for items in (*texts, *graphs)]
                found.append(self._scored(one, parts, normaliser, depth, more, missing))
        return found

    def _query(self, state: QueryState, open_: _Open) -> _Query:
        channels = self._of
        user = state.user_vector if state.user_vector is not None else np.zeros(channels.items.dim, np.float32)
        text = self._content(channels.text, state.history, (channels.decays.text, channels.decays.taste))
        graph = None if channels.graph is None else self._content(channels.graph, state.history, (channels.decays.text,))
        return _Query(state, open_, user, text, np.zeros((0, 0), np.float32) if graph is None else graph)

    def _scored(
        self,
        one: _Query,
        parts: list[NDArray[np.int64]],
        normaliser: float,
        depth: int,
        more: NDArray[np.int64],
        missing: Sequence[str],
    ) -> ChannelScores:
        """What was found by the searches and by the other channels, with every channel's score."""
        channels, open_, history = self._of, one.open, one.state.history
        popular, friends = self._people(one.state)
        for sums, decay in zip(self._sums, (channels.decays.neighbours, channels.decays.together), strict=True):
            met, weights = sums.add(history, decay, channels.n_items)
            if len(met):
                parts.append(open_.largest(met, weights, depth))
        parts.append(self._popular.best(channels.popular, open_, depth) if popular is None else open_.best(popular, depth))
        if friends is not None:
            known = np.flatnonzero(friends > 0)
            parts.append(open_.largest(known, friends[known], depth))
        items = _union([*parts, more])
        scores = np.zeros(
            (len(channels.names), len(items)), dtype=np.float32
        )  # a row a channel: what reads one reads it in one piece
        np.matmul(channels.items.rows(items), one.user, out=scores[0])
        scores[0] += channels.bias[items]
        scores[0] -= normaliser
        for row, sums in enumerate(self._sums, 1):
            sums.take(items, scores[row])
        if one.text.any():
            np.matmul(one.text, channels.text.rows(items).T, out=scores[3:5])
        scores[5] = (channels.popular if popular is None else popular)[items]
        if channels.graph is not None:
            np.matmul(one.graph, channels.graph.rows(items).T, out=scores[6:7])
        if friends is not None:
            scores[-1] = friends[items]
        for name in missing:
            for channel in ("text", "taste") if name == "text" else (name,):
                at = channels.names.index(channel)
                scores[at] = channels.floors[at]
        places = _places(scores, channels.floors, depth)
        return ChannelScores(items.astype(np.int32), channels.names, scores.T, places.T, channels.counts[items], depth)

    def _marks(self) -> BoolArray:
        """A table, kept, in which the items of one history at a time are marked."""
        if len(self._met) < self._of.n_items:
            self._met = np.zeros(self._of.n_items * 3 // 2 + 16, dtype=bool)
        return self._met

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

    def _sequences(self, asked: Sequence[_Query], depth: int) -> list[tuple[NDArray[np.integer] | None, float]]:
        """For each query the items that are most likely next, those met among them, and the logarithm of the sum over all items; no items for somebody of whom
        nothing is known."""
        channels = self._of
        known = [place for place, one in enumerate(asked) if one.user.any()]
        found: list[tuple[NDArray[np.integer] | None, float]] = [(None, self._prior_normaliser())] * len(asked)
        if not known:
            return found
        users, allowed = np.stack([asked[place].user for place in known]), asked[0].open.allowed
        searched = channels.items.search(users, [asked[place].open.wanted(depth) for place in known], allowed)
        samples = users @ self._sample_rows.T + self._sample_bias
        for place, (items, logits), sample in zip(known, searched, samples, strict=True):
            found[place] = items, self._normaliser(items, logits, sample, allowed)
        return found

    def _normaliser(self, items: IntArray, logits: FloatArray, sample: FloatArray, allowed: BoolArray | None) -> float:
        """The logarithm of a sum over all items, from those that were found and a sample of the others."""
        channels = self._of
        cut = float(logits[-1]) if len(logits) else np.inf
        rest = sample < cut if allowed is None else (sample < cut) | ~allowed[self._sample]
        largest = max(float(sample.max(initial=-np.inf)), float(logits.max(initial=-np.inf)))
        left = (
            max(channels.n_items - len(items), 0) / max(int(np.count_nonzero(rest)), 1)
            if allowed is None
            else channels.n_items / len(sample)
        )
        total = float(np.exp(logits - largest).sum()) + left * float(np.exp(sample - largest) @ rest)
        return largest + float(np.log(max(total, 1e-30)))

    def _prior_normaliser(self) -> float:
        """That of somebody of whom nothing is known."""
        n, bias = self._of.n_items, self._of.bias
        if self._prior_sum[0] != n:
            largest = float(bias.max(initial=-np.inf))
            self._prior_sum = n, largest + float(np.log(np.exp(bias - largest).sum()))
        return self._prior_sum[1]


@dataclass(frozen=True)
class _Open:
    """Which items a query may find; within its `with` those that the asker has met are marked in a table, and left out.

    Attributes:
        allowed: bool [N]; None: all. listed: the same as item indices, where they are few.
        table: of marks, bool [N]; that of another query may be marked in it next. met: item indices that the asker has met.
    """

    allowed: BoolArray | None
    listed: NDArray[np.int64] | None
    table: BoolArray
    met: IntArray

    def __enter__(self) -> _Open:
        self.table[self.met] = True
        return self

    def __exit__(self, *error: object) -> None:
        self.table[self.met] = False

    def wanted(self, depth: int) -> int:
        """How many items to ask for so that `depth` are left without those that the asker has met."""
        return depth + len(self.met)

    def free(self, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Those that may be found, in their order."""
        keep = ~self.table[items]
        if self.allowed is not None:
            keep &= self.allowed[items]
        found: NDArray[np.int64] = items[keep].astype(np.int64, copy=False)
        return found

    def largest(self, items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
        """Of the items that may be found the `depth` with the largest values above zero; of equals the smaller indices."""
        keep = ~self.table[items] & (values > 0)
        if self.allowed is not None:
            keep &= self.allowed[items]
        return _largest(items[keep], values[keep], depth)

    def best(self, values: FloatArray, depth: int) -> NDArray[np.int64]:
        """The `depth` items that may be found with the largest of all values, whatever they are."""
        items = self.free(np.arange(len(values)) if self.listed is None else self.listed)
        return _largest(items, values[items], depth)


@dataclass(frozen=True)
class _Query:
    """A query, and what its channels look for: user vector [D], content of the latest events by two decays [2, C], their graph vector [1, G]."""

    state: QueryState
    open: _Open
    user: FloatArray
    text: FloatArray
    graph: FloatArray


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

    def take(self, items: NDArray[np.int64], into: FloatArray) -> None:
        """Writes the sums of some items; the table is empty after."""
        if len(self._items):
            into[:] = self._sum[items]
            self._sum[self._items] = 0.0


def _searched(index: DenseIndex, queries: FloatArray, open_: _Open, depth: int) -> list[NDArray[np.integer]]:
    if not queries.any():
        return []
    return [items[scores > 0] for items, scores in index.search(queries, open_.wanted(depth), open_.allowed)]


def _union(parts: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    """Items of all parts, each once, growing."""
    items = np.sort(np.concatenate(parts))
    first = np.ones(len(items), dtype=bool)
    np.not_equal(items[1:], items[:-1], out=first[1:])
    return items[first].astype(np.int64, copy=False)


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
    """Each channel's place of each item among these, or `depth` beyond that and for a score not above the channel's floor, int32 [C, M] from [C, M]."""
    count = scores.shape[1]
    places = np.full(scores.shape, depth, dtype=np.int32)
    order, first = np.argsort(-scores, axis=1, kind="stable")[:, :depth], np.arange(min(depth, count), dtype=np.int32)
    for row, (values, floor) in enumerate(zip(scores, floors.tolist(), strict=True)):
        best = order[row]
        if np.isfinite(floor) or not np.isfinite(values.sum()):
            best = best[values[best] > floor]
        places[row, best] = first[: len(best)]
    return places
