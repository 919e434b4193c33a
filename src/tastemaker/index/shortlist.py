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
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.index.approximate import places_of
from tastemaker.index.exact import DenseIndex, top
from tastemaker.index.neighbours import LATEST, fading
from tastemaker.index.products import Products
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import BoolArray, FloatArray, Gather, IntArray, QueryState
from tastemaker.schema.signals import GRAPH
from tastemaker.schema.unwritten import FILTERS, OfLatest, kept_of

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
FEW_ROWS = 6
"""So few rows are sorted by NumPy."""
LANES = 16
"""Queries that are looked for in one piece."""
_BITS = np.uint16(1) << np.arange(LANES, dtype=np.uint16)
_NONE = np.zeros(0, dtype=np.int64)
_SILENCE = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
_Sum = tuple[NDArray[np.int64], FloatArray]
"""Items and their sums."""


class Shortlists:
    """Candidates of the items of some channels."""

    def __init__(self, channels: Channels) -> None:
        self._of = channels
        self._neighbours = [(one, bool(one.weights.nnz)) for one in (channels.neighbours, channels.together)]
        self._sums = _Sums(), _Sums(), _Sums()  # of these two, and of friends
        self._popular, self._prior = _Head(), _Head()
        self._popular_with = OfLatest(lambda popular: _Head(), kept_of(4 * channels.n_items))
        self._marked, self._open = np.zeros(0, dtype=_BITS.dtype), OfLatest(_opened, FILTERS)
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
            found += self._found(states[lanes], _Open(allowed, listed, self._marks(), away[lanes]), depth, gather=gather)
        return found

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """As of `Channels`."""
        everything = _Open(None, None, self._marks(), [_NONE])
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
        open_: _Open,
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
        sums = list[list[_Sum]]()
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

    def _summed(self, state: QueryState) -> list[_Sum]:
        """What is summed for an asker: over the neighbours of both kinds of the history's items, and over what friends met where friends are known."""
        channels, decays = self._of, (self._of.decays.neighbours, self._of.decays.together)
        parts = [
            one.around(state.history, decay, LATEST) if speaks else _SILENCE
            for (one, speaks), decay in zip(self._neighbours, decays, strict=True)
        ]
        if channels.companions is not None:
            parts.append(channels.companions.around(state.user))
        return [table.of(*part, channels.n_items) for table, part in zip(self._sums, parts, strict=False)]

    def _most_popular(self, popular: FloatArray | None, lane: int, open_: _Open, depth: int) -> NDArray[np.int64]:
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
        sums: Sequence[Sequence[_Sum]],
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
        places, counts, told = _places(scores, channels.floors, depth, begin), channels.counts[items], items.astype(np.int32)
        return [
            ChannelScores(told[part], channels.names, scores[:, part].T, places[:, part].T, counts[part], depth, rows[part])
            for part in map(slice, bounds[:-1], bounds[1:])
        ]

    def _marks(self) -> NDArray[np.uint16]:
        """A table, kept, in which the items that are away for some queries at a time are marked."""
        if len(self._marked) < self._of.n_items:
            self._marked = np.zeros(self._of.n_items * 3 // 2 + 16, dtype=_BITS.dtype)
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


@dataclass(frozen=True)
class _Open:
    """Which items some queries may find; within its `with` those that are away for each query are marked in a table, and left out.

    What is found is told as keys, a number of query (its lane) and item, so that the finds of all are sorted in one piece.

    Attributes:
        allowed: bool [N]; None: all. listed: the same as item indices, where they are few.
        table: of marks, a bit a lane, at least [N]. away: item indices that each query may not find besides, int64.
    """

    allowed: BoolArray | None
    listed: NDArray[np.int64] | None
    table: NDArray[np.uint16]
    away: Sequence[NDArray[np.int64]]

    def __enter__(self) -> _Open:
        for bit, away in zip(_BITS, self.away, strict=False):
            self.table[away] |= bit
        return self

    def __exit__(self, *error: object) -> None:
        for away in self.away:
            self.table[away] = 0

    def wanted(self, depth: int) -> list[int]:
        """How many items each query has to ask for so that `depth` are left without those that are away."""
        return [depth + len(away) for away in self.away]

    def keys(self, lane: int, items: NDArray[np.integer]) -> NDArray[np.int64]:
        """Items of a query as keys."""
        found: NDArray[np.int64] = items + np.int64(lane * len(self.table))
        return found

    def free(self, lane: int, items: NDArray[np.integer]) -> BoolArray:
        """Which of them may be found."""
        keep: BoolArray = (self.table.take(items) & _BITS[lane]) == 0
        if self.allowed is not None:
            keep &= self.allowed[items]
        return keep

    def first(self, lane: int, items: NDArray[np.integer], depth: int) -> NDArray[np.int64]:
        """The first `depth` of some items that may be found, as keys."""
        return self.keys(lane, items[self.free(lane, items)][:depth])

    def largest(self, lane: int, items: NDArray[np.int64], values: FloatArray, depth: int) -> NDArray[np.int64]:
        """Of the items that may be found the `depth` with the largest values above zero, as keys; of equals the smaller indices."""
        keep = self.free(lane, items) & (values > 0)
        return self.keys(lane, _largest(items[keep], values[keep], depth))

    def best(self, lane: int, values: FloatArray, depth: int) -> NDArray[np.int64]:
        """The `depth` items that may be found with the largest of all values, whatever they are, as keys."""
        items = np.arange(len(values)) if self.listed is None else self.listed
        items = items[self.free(lane, items)]
        return self.keys(lane, _largest(items, values[items], depth))

    def union(self, parts: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items of all parts, each once a query, growing, [R], one query behind the other; where each begins, and R, [Q + 1]."""
        keys = np.concatenate(parts)
        keys.sort()
        first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        keys = keys[first]
        if len(self.away) == 1:
            return keys, np.array([0, len(keys)])
        starts = np.arange(len(self.away) + 1) * len(self.table)
        begin = np.searchsorted(keys, starts)
        return keys - np.repeat(starts[:-1], begin[1:] - begin[:-1]), begin


class _Query(msgspec.Struct, frozen=True, eq=False):
    """What the channels of a query look for: user vector [D], content of the latest events by two decays [2, C], their graph vector [1, G]."""

    user: FloatArray
    text: FloatArray
    graph: FloatArray


class _Head:
    """The first items of an order that hardly ever changes."""

    def __init__(self) -> None:
        self._first, self._of = _NONE, -1
        self._of_filter = OfLatest(lambda listed: self._best_of(listed), FILTERS)
        self._values: Callable[[], FloatArray] = lambda: np.zeros(0, np.float32)

    def _best_of(self, listed: NDArray[np.int64]) -> NDArray[np.int64]:
        best: NDArray[np.int64] = listed[top(self._values()[listed][None], HEAD)[0]]
        return best

    def best(self, n: int, values: Callable[[], FloatArray], lane: int, open_: _Open, depth: int) -> NDArray[np.int64]:
        """The `depth` items with the largest values that a query may find, as keys; `values` gives those of all `n` items."""
        if open_.listed is not None:
            self._values = values
            first = self._of_filter(open_.listed)
            found = open_.first(lane, first[: depth + len(open_.away[lane])], depth)
            return found if len(found) == depth or len(first) == len(open_.listed) else open_.best(lane, values(), depth)
        if self._of < 0 or (self._of != n and len(self._first) < HEAD):
            self._first, self._of = top(values()[None], HEAD)[0], n
        enough = depth + len(open_.away[lane]) if open_.allowed is None else len(self._first)
        found = open_.first(lane, self._first[:enough], depth)
        return found if len(found) == depth else open_.best(lane, values(), depth)


class _Sums:
    """Sums by item, in a table that is cleared item by item."""

    def __init__(self) -> None:
        self._sum, self._last = np.zeros(0, np.float32), np.zeros(0, np.int32)

    def of(self, met: IntArray, weights: FloatArray, n_items: int) -> _Sum:
        """Items with a sum, and the sums, in no order, of items that come as often as they have a weight."""
        if not len(met):
            return _NONE, self._sum[:0]
        if len(self._sum) < n_items:
            size = n_items * 3 // 2 + 16
            self._sum, self._last = np.zeros(size, np.float32), np.zeros(size, np.int32)
        np.add.at(self._sum, met, weights)
        numbers = np.arange(len(met), dtype=np.int32)
        self._last[met] = numbers
        items = met[self._last[met] == numbers].astype(np.int64)
        found = self._sum[items]
        self._sum[items] = 0.0
        return items, found

    def spread(self, found: _Sum, items: NDArray[np.int64], into: FloatArray) -> None:
        """Writes the sums of some items, 0 for those that have none."""
        of, sums = found
        if len(of):
            self._sum[of] = sums
            into[:] = self._sum[items]
            self._sum[of] = 0.0


def _opened(allowed: BoolArray) -> tuple[BoolArray | None, NDArray[np.int64] | None]:
    """What is allowed, None where everything is, and the same as item indices where they are few."""
    count = np.count_nonzero(allowed)
    if count == len(allowed):
        return None, None
    return allowed, places_of(allowed) if count * _FEW_ALLOWED <= len(allowed) else None


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


def _places(scores: FloatArray, floors: FloatArray, depth: int, begin: NDArray[np.int64]) -> IntArray:
    """Each channel's place of each item among those of its list, or `depth` beyond that and for a score not above the channel's floor; of equals the first.

    Args:
        scores: of some lists, one behind the other, [C, R]. begin: where each begins, and R, [Q + 1].

    Returns:
        int32 [C, R].
    """
    sizes, found = begin[1:] - begin[:-1], scores > floors[:, None]
    says = np.logical_or.reduce(found, axis=1).nonzero()[0]  # what says nothing has no places
    lists, longest = len(sizes), max(sizes.tolist(), default=0)
    spoken = found.take(says, axis=0)
    falling = np.where(spoken, 0.0 - scores.take(says, axis=0), np.float32(np.inf))
    at = np.arange(scores.shape[1])
    if lists > 1:  # each list is filled up to the longest
        at += np.repeat(np.arange(lists) * longest - begin[:-1], sizes)
        filled = np.full((len(says), lists * longest), np.inf, dtype=np.float32)
        filled[:, at] = falling
        falling = filled
    order = growing(falling.reshape(len(says) * lists, longest))
    order += np.arange(len(order))[:, None] * longest
    places = np.empty(order.size, dtype=np.int32)
    places[order] = np.arange(longest, dtype=np.int32)
    told = np.full(scores.shape, depth, dtype=np.int32)
    own = places.reshape(len(says), lists * longest)
    if lists > 1:
        own = own.take(at, axis=1)
    np.minimum(own, depth, out=own)
    told[says] = np.where(spoken, own, np.int32(depth))
    return told


def growing(values: FloatArray) -> NDArray[np.int64]:
    """Places in each row by growing value, of equals the first, none of them NaN, [B, n]: a stable sort of many short rows at a fifth of its time.

    A float's bits, those of negatives turned over, grow with it (M. Herf, 2001, "Radix Tricks"); its place stands behind them in one 64-bit number.
    """
    if len(values) <= FEW_ROWS:
        return values.argsort(axis=1, kind="stable")
    bits = values.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    keys <<= 32
    keys |= np.arange(values.shape[1])
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return keys
