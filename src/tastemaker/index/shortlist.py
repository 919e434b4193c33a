"""Candidates of a large catalogue without a look at every item: each channel's best by its own index, then every channel's score of these alone.

What `Channels` computes in whole rows for a small catalogue, for a large one is
    sequence, text, taste, graph    searched in an approximate index; then exact products with the items that any channel found
    neighbours, together            summed over the neighbours of the history's items, the same numbers
    friends                         summed over the rows of the asker's friends, the same numbers
    popular                         read from the head of an order that is made once, and once for each kind of people of which the asker is one
A place in a channel is the place among all that was found, so an item that one channel's index missed and another channel found has its place all the same. The
normaliser of `sequence` is a sum over what was found and over a sample of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.index.exact import DenseIndex
from tastemaker.index.head import Head
from tastemaker.index.neighbours import LATEST, fading
from tastemaker.index.open_items import LANES, Open, opened
from tastemaker.index.products import Products
from tastemaker.index.ranks import ranks_of
from tastemaker.index.sums import Sum, Sums
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, Gather, IntArray, QueryState
from tastemaker.schema.signals import GRAPH
from tastemaker.schema.unwritten import FILTERS, OfLatest, kept_of

if TYPE_CHECKING:
    from tastemaker.index.channels import Channels

SAMPLE = 1_024
"""Items by which the rest of a normaliser is estimated."""
SIMILAR, LEAST_SIMILAR = 4, 200
"""Items like an item are looked for among so many times as many by each of their likenesses, and at least so many."""
_NONE = np.zeros(0, dtype=np.int64)
_SILENCE = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)


class Shortlists:
    """Candidates of the items of some channels."""

    def __init__(self, channels: Channels) -> None:
        self._of = channels
        self._neighbours = [(one, bool(one.weights.nnz)) for one in (channels.neighbours, channels.together)]
        self._sums = Sums(), Sums(), Sums()  # of these two, and of friends
        self._popular, self._prior = Head(), Head()
        self._popular_with = OfLatest(lambda popular: Head(), kept_of(4 * channels.n_items))
        self._marked, self._open = np.zeros(0, dtype=np.uint16), OfLatest(opened, FILTERS)
        size = min(SAMPLE, len(channels.items))
        self._sample = np.sort(np.random.default_rng(0).choice(len(channels.items), size, replace=False))
        self._sample_products, self._sample_bias = Products(channels.items.rows(self._sample)), channels.bias[self._sample]
        self._prior_sum: tuple[int, float] = -1, 0.0

    def candidates(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None,
        away: Sequence[NDArray[np.int64]],
        gather: Gather | None = None,
    ) -> list[ChannelScores]:
        """As of `Channels`, without the items `away` of each query; the searches in indexes are the calls of `gather`, that of `text` for `taste`, too."""
        allowed, listed = (None, None) if allowed is None else self._open(allowed)
        found: list[ChannelScores] = []
        for begin in range(0, len(states), LANES):
            lanes = slice(begin, begin + LANES)
            found += self._found(states[lanes], Open(allowed, listed, self._marks(), away[lanes]), depth, gather=gather)
        return found

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """As of `Channels`."""
        everything = Open(None, None, self._marks(), [_NONE])
        whole = self._found([state], everything, depth, items.astype(np.int64))[0]
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
        open_: Open,
        depth: int,
        more: NDArray[np.int64] = _NONE,
        gather: Gather | None = None,
    ) -> list[ChannelScores]:
        """Candidates of each query, growing; with `more` these items too, whatever their places."""
        channels = self._of
        asked, wanted = self._queries(states), open_.wanted(depth)
        calls: dict[str, Callable[[], Any]] = {
            "sequence": lambda: self._sequences(asked, wanted, open_.allowed),
            "text": lambda: _searched(channels.text, [one.text for one in asked], wanted, open_.allowed),
        }
        if channels.graph is not None:
            graph = channels.graph
            calls[GRAPH] = lambda: _searched(graph, [one.graph for one in asked], wanted, open_.allowed)
        done = {name: call() for name, call in calls.items()} if gather is None else gather(calls)
        missing = [name for name in calls if name not in done]
        likely = done.get("sequence", [(_NONE, 0.0)] * len(asked))
        alike = [pair for name in ("text", GRAPH) for pair in done.get(name, ())]
        sums = list[list[Sum]]()
        with open_:
            parts = [open_.first(lane, items, depth) for lane, items in alike]
            for lane, (state, (best, _)) in enumerate(zip(states, likely, strict=True)):
                if best is None:
                    parts.append(self._prior.best(channels.n_items, lambda: channels.bias, lane, open_, depth))
                else:
                    parts.append(open_.first(lane, best, depth))
                sums.append(self._summed(state))
                parts += [open_.largest(lane, items, values, depth) for items, values in sums[-1] if len(items)]
                parts.append(self._most_popular(state.popular, lane, open_, depth))
        parts += [open_.keys(lane, more) for lane in range(len(states)) if len(more)]
        items, begin = open_.union(parts)
        popular = [state.popular for state in states]
        lists = self._scored(asked, [one for _, one in likely], popular, sums, items, begin, depth, missing)
        if gather is None:  # many lists may be kept, as by who learns from them
            return [msgspec.structs.replace(one, vectors=None) for one in lists]
        return lists

    def _summed(self, state: QueryState) -> list[Sum]:
        """What is summed for an asker: over the neighbours of both kinds of the history's items, and over what friends met where friends are known."""
        channels, decays = self._of, (self._of.decays.neighbours, self._of.decays.together)
        parts = [
            one.around(state.history, decay, LATEST) if speaks else _SILENCE
            for (one, speaks), decay in zip(self._neighbours, decays, strict=True)
        ]
        if channels.companions is not None:
            parts.append(channels.companions.around(state.user))
        return [table.of(*part, channels.n_items) for table, part in zip(self._sums, parts, strict=False)]

    def _most_popular(self, popular: FloatArray | None, lane: int, open_: Open, depth: int) -> NDArray[np.int64]:
        """The items that a query may find that are most popular with everybody, or with the asker's own kind of people, as keys."""
        channels = self._of
        if popular is None:
            return self._popular.best(channels.n_items, lambda: channels.popular, lane, open_, depth)
        own = popular  # which says nothing of items newer than the bundle
        head = self._popular_with(own)
        return head.best(channels.n_items, lambda: np.concatenate([own, channels.popular[len(own) :]]), lane, open_, depth)

    def _queries(self, states: Sequence[QueryState]) -> list[_Query]:
        channels, nobody = self._of, np.zeros(self._of.items.dim, np.float32)
        histories = [state.history[-LATEST:][::-1] for state in states]
        texts = _contents(channels.text, histories, (channels.decays.text, channels.decays.taste))
        graphs = [np.zeros((0, 0), np.float32)] * len(states)
        if channels.graph is not None:
            graphs = _contents(channels.graph, histories, (channels.decays.text,))
        users = [nobody if state.user_vector is None else state.user_vector for state in states]
        return [_Query(*one) for one in zip(users, texts, graphs, strict=True)]

    def _scored(
        self,
        asked: Sequence[_Query],
        normalisers: Sequence[float],
        populars: Sequence[FloatArray | None],
        sums: Sequence[Sequence[Sum]],
        items: NDArray[np.int64],
        begin: NDArray[np.int64],
        depth: int,
        missing: Sequence[str],
    ) -> list[ChannelScores]:
        """What was found for each query, with every channel's score: items of all queries [R], one behind the other from `begin` [Q + 1] on."""
        channels, bounds = self._of, begin.tolist()
        scores = np.zeros((len(channels.names), len(items)), dtype=np.float32)  # a row a channel: each is read in one piece
        rows = channels.items.rows(items)
        says = [bool(np.count_nonzero(one.text)) for one in asked]
        texts = channels.text.rows(items) if any(says) else None
        graphs = None if channels.graph is None else channels.graph.rows(items)
        scores[5] = channels.popular[items]
        rows_of_sums = (1, 2, len(scores) - 1)
        for one, reads, normaliser, popular, summed, start, end in zip(
            asked, says, normalisers, populars, sums, bounds[:-1], bounds[1:], strict=True
        ):
            mine = scores[:, start:end]
            np.matmul(rows[start:end], one.user, out=mine[0])
            mine[0] -= normaliser
            for row, table, sum_ in zip(rows_of_sums, self._sums, summed, strict=False):
                table.spread(sum_, items[start:end], mine[row])
            if texts is not None and reads:
                np.matmul(one.text, texts[start:end].T, out=mine[3:5])
            if popular is not None:
                known = items[start : start + int(items[start:end].searchsorted(len(popular)))]
                mine[5, : len(known)] = popular[known]
            if graphs is not None:
                np.matmul(one.graph, graphs[start:end].T, out=mine[6:7])
        scores[0] += channels.bias[items]
        for name in missing:
            for channel in ("text", "taste") if name == "text" else (name,):
                at = channels.names.index(channel)
                scores[at] = channels.floors[at]
        places, counts, told = ranks_of(scores, channels.floors, depth, begin), channels.counts[items], items.astype(np.int32)
        return [
            ChannelScores(told[part], channels.names, scores[:, part].T, places[:, part].T, counts[part], depth, rows[part])
            for part in map(slice, bounds[:-1], bounds[1:])
        ]

    def _marks(self) -> NDArray[np.uint16]:
        """A table, kept, in which the items that are away for some queries at a time are marked."""
        if len(self._marked) < self._of.n_items:
            self._marked = np.zeros(self._of.n_items * 3 // 2 + 16, dtype=np.uint16)
        return self._marked

    def _sequences(
        self, asked: Sequence[_Query], wanted: Sequence[int], allowed: BoolArray | None
    ) -> list[tuple[NDArray[np.integer] | None, float]]:
        """For each query as many items as are wanted, those that are most likely next, and the logarithm of the sum over all items; no items for somebody of whom
        nothing is known."""
        known = [place for place, one in enumerate(asked) if np.count_nonzero(one.user)]
        found: list[tuple[NDArray[np.integer] | None, float]] = [(None, self._prior_normaliser())] * len(asked)
        if not known:
            return found
        users = np.array([asked[place].user for place in known])
        searched = self._of.items.search(users, [wanted[place] for place in known], allowed)
        normalisers = self._normalisers([logits for _, logits in searched], self._sample_products.of(users), allowed)
        for place, (items, _), normaliser in zip(known, searched, normalisers, strict=True):
            found[place] = items, normaliser
        return found

    def _normalisers(self, found: Sequence[FloatArray], sample: FloatArray, allowed: BoolArray | None) -> list[float]:
        """For each query the logarithm of a sum over all items, from those that were found, best first, and a sample of the others, [Q, S]."""
        n = self._of.n_items
        sample += self._sample_bias
        rest = sample < np.array([[logits[-1] if len(logits) else np.inf] for logits in found], dtype=np.float32)
        if allowed is not None:
            rest |= ~allowed[self._sample]
        highest = np.array([logits[0] if len(logits) else -np.inf for logits in found], dtype=np.float32)
        largest = np.maximum(highest, sample.max(axis=1, initial=-np.inf))
        others = (np.exp(sample - largest[:, None]) * rest).sum(axis=1).tolist()
        lengths = [len(logits) for logits in found]
        if min(lengths) == max(lengths):
            own = np.array(found)
            own -= largest[:, None]
            near = np.exp(own, out=own).sum(axis=1).tolist()
        else:
            near = [float(np.exp(logits - most).sum()) for logits, most in zip(found, largest, strict=True)]
        sums = []
        for length, most, mine, other, count in zip(
            lengths, largest.tolist(), near, others, rest.sum(axis=1).tolist(), strict=True
        ):
            left = max(n - length, 0) / max(count, 1) if allowed is None else n / sample.shape[1]
            sums.append(most + math.log(max(mine + left * other, 1e-30)))
        return sums

    def _prior_normaliser(self) -> float:
        """That of somebody of whom nothing is known."""
        n, bias = self._of.n_items, self._of.bias
        if self._prior_sum[0] != n:
            largest = float(bias.max(initial=-np.inf))
            self._prior_sum = n, largest + float(np.log(np.exp(bias - largest).sum()))
        return self._prior_sum[1]


class _Query(msgspec.Struct, frozen=True, eq=False):
    """What the channels of a query look for: user vector [D], content of the latest events by two decays [2, C], their graph vector [1, G]."""

    user: FloatArray
    text: FloatArray
    graph: FloatArray


def _contents(index: DenseIndex, latest: Sequence[IntArray], decays: tuple[float, ...]) -> list[FloatArray]:
    """What the latest events of histories are, newest first, by how fast older ones fade, float32 [decays, C] each."""
    rows = index.rows(np.concatenate(latest))
    ends = accumulate(map(len, latest))
    return [fading(decays, len(one)) @ rows[end - len(one) : end] for one, end in zip(latest, ends, strict=True)]


def _searched(
    index: DenseIndex, queries: Sequence[FloatArray], wanted: Sequence[int], allowed: BoolArray | None
) -> list[tuple[int, NDArray[np.integer]]]:
    """What is like each of a query's vectors, by the query's number; nothing is like the zero vector."""
    return [
        (lane, items[scores > 0])
        for lane, (vectors, count) in enumerate(zip(queries, wanted, strict=True))
        if np.count_nonzero(vectors)
        for items, scores in index.search(vectors, count, allowed)
    ]


def _sparse(of: NDArray[np.int64], values: FloatArray, items: NDArray[np.int64]) -> FloatArray:
    """Values of some items at the places of others, growing; 0 where there is none."""
    found = np.zeros(len(items), dtype=np.float32)
    at = np.searchsorted(items, of)
    inside = at < len(items)
    inside[inside] = items[at[inside]] == of[inside]
    found[at[inside]] = values[inside]
    return found
