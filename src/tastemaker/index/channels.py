"""Every way of finding candidates, read together: what each channel thinks of each item.

Channels:
    sequence: log-probability of being next, by the user tower.
    neighbours: items met close together in histories, the latest events first.
    together: items of the same people, the whole history.
    text: items whose content (text, and picture, sound, place in a graph where they have one) is like that of the latest events.
    taste: items whose content is like that of the whole history.
    popular: recent popularity.
    graph: items connected with what the latest events are connected with; only where the bundle has vectors of a graph.
    friends: what friends met; only where the bundle knows connections between users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.index.approximate import load as load_index
from tastemaker.index.build import build
from tastemaker.index.coded import Plain, Vectors, load
from tastemaker.index.column import Column
from tastemaker.index.companions import Companions
from tastemaker.index.exact import DenseIndex, top
from tastemaker.index.neighbours import Neighbours, history_matrix
from tastemaker.index.shortlist import Shortlists
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import Asker, BoolArray, FloatArray, Gather, IntArray, QueryState
from tastemaker.schema.settings import IndexSettings
from tastemaker.schema.signals import GRAPH

CHANNELS = ("sequence", "neighbours", "together", "text", "taste", "popular")
FRIENDS = "friends"
_BATCH = 64
NOT_ALLOWED = np.float32(-np.inf)
_NONE = np.zeros(0, dtype=np.int64)
_FLOORS = (-np.inf, 0.0, 0.0, 0.0, 0.0, -np.inf)
"""A channel finds only items with a score above this; a similarity of zero says nothing."""


class Decays(msgspec.Struct, frozen=True):
    """Weight of an event for each event after it, by channel."""

    neighbours: float = 0.6
    together: float = 0.9
    text: float = 0.5
    taste: float = 0.9


class Channels:
    """The arrays of all channels. Rows can be appended for items that training never saw.

    Args:
        items: item tower vectors, unit rows, float32 [N, D], or codes of them, or an index over them with `bias` as its offsets.
        bias: what the sequence model adds for each item, float32 [N].
        text: contents, float32 [N, C]: the whitened text vector, other signals behind it, each of length one or zero. A likeness is the sum of the
            signals' cosines: what an item lacks says nothing for it nor against it. Or codes of them.
        popular: recent popularity, float32 [N], in [0, 1].
        counts: training events of each item, float32 [N].
        neighbours, together: sparse item-to-item weights.
        decays: how fast a history's older events fade.
        graph: vectors by what items are connected with, unit rows or zero, float32 [N, G]; None: no such channel.
        companions: the friends of those who ask; None: no such channel.
    """

    def __init__(
        self,
        items: FloatArray | Vectors | DenseIndex,
        bias: FloatArray,
        text: FloatArray | Vectors | DenseIndex,
        popular: FloatArray,
        counts: FloatArray,
        neighbours: Neighbours,
        together: Neighbours,
        decays: Decays,
        graph: FloatArray | DenseIndex | None = None,
        companions: Companions | None = None,
    ) -> None:
        self.items = items if isinstance(items, DenseIndex) else DenseIndex(items, bias)
        self.text = text if isinstance(text, DenseIndex) else DenseIndex(text)
        self.graph = graph if graph is None or isinstance(graph, DenseIndex) else DenseIndex(graph)
        self.companions = companions
        self._lowest = np.float32(bias.min()) if len(bias) else np.float32(0.0)
        self._popularity, self._counts = Column(popular), Column(counts)
        self.neighbours, self.together, self.decays = neighbours, together, decays
        self._shortlists: Shortlists | None = None

    @property
    def bias(self) -> FloatArray:
        """What the sequence model adds for each item, float32 [N]."""
        assert self.items.offsets is not None
        return self.items.offsets.values

    @property
    def popular(self) -> FloatArray:
        """Recent popularity, float32 [N], in [0, 1]."""
        return self._popularity.values

    @property
    def counts(self) -> FloatArray:
        """Training events of each item, float32 [N]."""
        return self._counts.values

    @property
    def n_items(self) -> int:
        """Number of items, new ones included."""
        return len(self.items)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The channels that there are, in the order of the columns."""
        return (*CHANNELS, *((GRAPH,) if self.graph is not None else ()), *((FRIENDS,) if self.companions is not None else ()))

    @cached_property
    def floors(self) -> FloatArray:
        """For each channel the score above which an item is found at all, float32 [C]."""
        return np.array([*_FLOORS, *(0.0 for _ in self.names[len(CHANNELS) :])], dtype=np.float32)

    def content(self, index: int) -> FloatArray:
        """What an item is without its events, float32 [C]."""
        found: FloatArray = self.text.rows(np.array([index]))[0]
        return found

    def append_item(self, content: FloatArray, vector: FloatArray, graph: FloatArray | None = None) -> int:
        """Adds an item that no event has met; gives its index.

        Args:
            content: float32 [C].
            vector: item tower vector, float32 [D].
            graph: by what it is connected with, float32 [G]; None: nothing is known.
        """
        self.text.append(content)
        if self.graph is not None:
            self.graph.append(np.zeros(self.graph.dim, np.float32) if graph is None else graph)
        self._popularity.append(0.0)
        self._counts.append(0.0)
        return self.items.append(vector, float(self._lowest))

    def replace_item(self, index: int, content: FloatArray, vector: FloatArray | None) -> None:
        """Gives an item another content, and another item vector unless its own was learned from events."""
        self.text.replace(index, content)
        if vector is not None:
            self.items.replace(index, vector)

    def states(
        self,
        histories: Sequence[IntArray],
        vectors: FloatArray,
        users: IntArray | None = None,
        askers: Sequence[Asker] | None = None,
    ) -> list[QueryState]:
        """States of many askers; where friends are known, their vectors are a part of the asker's.

        Args:
            histories: item indices, oldest first. vectors: user vectors, float32 [B, D]; zero for an empty history.
            users: their numbers among those whose connections are known, int [B]; None: nobody's are.
            askers: who they are; None: nobody in particular.
        """
        if self.companions is None or users is None:
            users = np.full(len(histories), -1, dtype=np.int32)
        else:
            vectors = self.companions.smoothed(users, vectors)
        asked: Sequence[Asker | None] = [None] * len(histories) if askers is None else askers
        rows = zip(histories, vectors, users.tolist(), asked, strict=True)
        return [
            QueryState(history, vector if len(history) or vector.any() else None, asker=asker, user=user)
            for history, vector, user, asker in rows
        ]

    def scores(self, states: Sequence[QueryState], gather: Gather | None = None) -> list[FloatArray]:
        """Each channel's score of every item: for each of `names` float32 [B, N]; one that `gather` leaves out scores all items as its floor."""
        calls = self._calls(states)
        done = {name: call() for name, call in calls.items()} if gather is None else gather(calls)
        return [
            done[name] if name in done else np.full((len(states), self.n_items), floor, dtype=np.float32)
            for name, floor in zip(self.names, self.floors, strict=True)
        ]

    def _calls(self, states: Sequence[QueryState]) -> dict[str, Callable[[], FloatArray]]:
        """What each of `names` computes, float32 [B, N]."""
        histories = [state.history for state in states]
        n, decays, graph, companions = self.n_items, self.decays, self.graph, self.companions
        found: dict[str, Callable[[], FloatArray]] = {
            "sequence": lambda: self._sequence(states),
            "neighbours": lambda: self.neighbours.scores(histories, decays.neighbours, n),
            "together": lambda: self.together.scores(histories, decays.together, n),
            "text": lambda: self.text.scores(self._queries(self.text, histories, decays.text)),
            "taste": lambda: self.text.scores(self._queries(self.text, histories, decays.taste)),
            "popular": lambda: self._popular(states),
        }
        if graph is not None:
            found[GRAPH] = lambda: graph.scores(self._queries(graph, histories, decays.text))
        if companions is not None:
            found[FRIENDS] = lambda: companions.scores(np.array([state.user for state in states], dtype=np.int32), n)
        return found

    def candidates(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None = None,
        filter_seen: bool = True,
        gather: Gather | None = None,
        excluded: Sequence[IntArray] | None = None,
    ) -> list[ChannelScores]:
        """For each query the union of each channel's best `depth` items; with `filter_seen` without those of its own history.

        Each channel is one call of `gather`; one that is missing in its answer finds nothing.

        Args:
            allowed: bool [N], items that may be found; None: all. A small catalogue is scored whatever the filter; a large one is searched by how many items
                are allowed, as `DenseIndex.search` says.
            excluded: for each query item indices that may not be found either, int32; None: none. Some hundred cost what as many in a history cost, while
                each new `allowed` is a look at the whole catalogue.
        """
        away = items_away(states, filter_seen, excluded)
        if self.items.approximate:
            return self._short().candidates(states, depth, allowed, away, gather)
        found: list[ChannelScores] = []
        for begin in range(0, len(states), _BATCH):
            part = slice(begin, begin + _BATCH)
            found += self._batch(states[part], depth, allowed, away[part], gather)
        return found

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """Every channel's score of the given items, whatever their place."""
        if self.items.approximate:
            return self._short().score_items(state, items, depth)
        whole = self.scores([state])
        ranks = np.stack(
            [self._ranks(scores, depth, floor)[1][0] for scores, floor in zip(whole, self.floors, strict=True)], axis=1
        )
        return self._made(items, [scores[0] for scores in whole], ranks, depth)

    def similar(self, index: int, depth: int, allowed: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """Items like one item among `allowed` (bool [N]): by text, by the item tower and by the people who met both; best first, itself left out."""
        if self.items.approximate:
            return self._short().similar(index, depth, allowed)
        query = np.array([index])
        score = self.text.scores(self.text.rows(query))[0] + 0.5 * self.items.scores(self.items.rows(query))[0]
        score += self.neighbours.scores([query.astype(np.int32)], 1.0, self.n_items)[0]
        score[index] = NOT_ALLOWED
        if allowed is not None:
            score[~allowed] = NOT_ALLOWED
        order = top(score[None], depth)[0]
        order = order[np.isfinite(score[order])]
        return order.astype(np.int32), score[order]

    def save(self, folder: Path, index: IndexSettings | None = None, questions: FloatArray | None = None) -> None:
        """Writes the arrays as `.npy`, to be memory-mapped by `load`, and the approximate indexes of a large catalogue.

        Args:
            index: when and how to build these; None: the defaults. questions: user vectors by which their recall is measured, float32 [Q, D]; None: items
                with noise on them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        everything = np.arange(self.n_items)
        arrays: dict[str, NDArray[np.generic]] = {"items": self.items.rows(everything), "text": self.text.rows(everything)}
        arrays |= {"bias": self.bias, "popular": self.popular, "counts": self.counts}
        for name, neighbours in (("neighbours", self.neighbours), ("together", self.together)):
            weights = neighbours.weights
            arrays |= {f"{name}.indptr": weights.indptr, f"{name}.indices": weights.indices, f"{name}.data": weights.data}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        if self.graph is not None:
            np.save(folder / "graph.npy", self.graph.rows(everything), allow_pickle=False)
        wanted = index or IndexSettings()
        if build(self.items, folder, "items", wanted, questions) is not None:
            build(self.text, folder, "text", wanted)
            if self.graph is not None:
                build(self.graph, folder, "graph", wanted)
        if self.companions is not None:
            self.companions.save(folder / FRIENDS)
        (folder / "decays.json").write_bytes(msgspec.json.encode(self.decays))

    @classmethod
    def load(cls, folder: Path, approximate: bool = True) -> Channels:
        """Reads what `save` wrote; large arrays are memory-mapped and so shared between processes. Not `approximate`: every search reads all items."""

        def array(name: str) -> FloatArray:
            loaded: FloatArray = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            return loaded

        def neighbours(name: str, n: int) -> Neighbours:
            parts = (array(f"{name}.data"), array(f"{name}.indices"), array(f"{name}.indptr"))
            return Neighbours(sp.csr_matrix(parts, shape=(n, n), copy=False))

        items, bias = load(folder, "items"), array("bias")
        decays = msgspec.json.decode((folder / "decays.json").read_bytes(), type=Decays)
        graph = Plain(array("graph")) if (folder / "graph.npy").is_file() else None
        return cls(
            load_index(folder, "items", items, bias, approximate),
            bias,
            load_index(folder, "text", load(folder, "text"), None, approximate),
            array("popular"),
            array("counts"),
            neighbours("neighbours", len(items)),
            neighbours("together", len(items)),
            decays,
            None if graph is None else load_index(folder, "graph", graph, None, approximate),
            Companions.load(folder / FRIENDS) if (folder / FRIENDS).is_dir() else None,
        )

    def _short(self) -> Shortlists:
        if self._shortlists is None:
            self._shortlists = Shortlists(self)
        return self._shortlists

    def _sequence(self, states: Sequence[QueryState]) -> FloatArray:
        """Log-probabilities; for an empty history those of the popularity prior alone."""
        users = np.zeros((len(states), self.items.dim), dtype=np.float32)
        for row, state in enumerate(states):
            if state.user_vector is not None:
                users[row] = state.user_vector
        logits = self.items.scores(users)
        logits += self.bias
        if logits.shape[1]:
            largest = logits.max(axis=1, keepdims=True)
            logits -= largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
        return logits

    def _popular(self, states: Sequence[QueryState]) -> FloatArray:
        """Popularity with everybody, or with the asker's own kind of people, to which items newer than the bundle are unknown."""
        found = np.broadcast_to(self.popular, (len(states), self.n_items)).copy()
        for row, state in enumerate(states):
            if state.popular is not None:
                found[row, : len(state.popular)] = state.popular
        return found

    def _queries(self, index: DenseIndex, histories: Sequence[IntArray], decay: float) -> FloatArray:
        queries = np.zeros((len(histories), index.dim), dtype=np.float32)
        events = history_matrix(histories, self.n_items, decay)
        if events.nnz:
            met = np.unique(events.indices)
            queries = np.asarray(events[:, met] @ index.rows(met), dtype=np.float32)
        return queries

    def _batch(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None,
        away: Sequence[NDArray[np.int64]],
        gather: Gather | None,
    ) -> list[ChannelScores]:
        whole = self.scores(states, gather)
        barred = ~allowed if allowed is not None else None
        for scores in whole:
            if barred is not None:
                scores[:, barred] = NOT_ALLOWED
            for row, gone in enumerate(away):
                scores[row, gone] = NOT_ALLOWED
        best, ranks = zip(
            *(self._ranks(scores, depth, floor) for scores, floor in zip(whole, self.floors, strict=True)), strict=True
        )
        found = []
        for row in range(len(states)):
            items = np.unique(np.concatenate([places[row] for places in best])).astype(np.int32)
            places = np.stack([place[row] for place in ranks], axis=1)
            found.append(self._made(items, [scores[row] for scores in whole], places, depth))
        return found

    def _ranks(self, scores: FloatArray, depth: int, floor: float) -> tuple[list[IntArray], IntArray]:
        """Each row's best items with a score above `floor`, best first, and every item's place (or `depth`)."""
        best, places = [], np.full(scores.shape, depth, dtype=np.int32)
        for row, found in enumerate(top(scores, depth)):
            found = found[scores[row, found] > floor]
            places[row, found] = np.arange(len(found), dtype=np.int32)
            best.append(found.astype(np.int32))
        return best, places

    def _made(self, items: IntArray, whole: Sequence[FloatArray], places: IntArray, depth: int) -> ChannelScores:
        scores = np.stack([scores[items] for scores in whole], axis=1).astype(np.float32)
        return ChannelScores(items, self.names, scores, places[items], self.counts[items].astype(np.float32), depth)


def items_away(states: Sequence[QueryState], filter_seen: bool, excluded: Sequence[IntArray] | None) -> list[NDArray[np.int64]]:
    """The items that each query may not find, as NumPy looks up by them in a third of the time: what was met, if that is left out, and what is excluded."""
    met = [state.history.astype(np.int64) if filter_seen else _NONE for state in states]
    if excluded is None:
        return met
    return [np.concatenate([one, more]) if len(more) else one for one, more in zip(met, excluded, strict=True)]
