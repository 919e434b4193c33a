"""A ranker asked about the candidates of a query: what it reads is put together and its answer made a score, by the same lines offline and online."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.features.categories import Codes
from tastemaker.features.likeness import likenesses
from tastemaker.features.ranker_input import RankerInput, channel_columns, unit
from tastemaker.models.fusion import Fusion, boosted
from tastemaker.models.ranker import Columns, Ranker, behind
from tastemaker.schema.candidates import ChannelScores, Ranked, joined, part
from tastemaker.schema.protocols import Asked, Asker, Begins, FloatArray, IntArray, QueryState
from tastemaker.schema.settings import RankerSettings

MORE = 1.5
"""Up to so many times as many vectors as are read of a list are multiplied as they lie, the others among them."""


@dataclass(frozen=True)
class ListRanker:
    """A ranker with all that it looks up of items.

    Attributes:
        ranker, given: what answers, and how its input is made. fusion: whose best candidates are ordered.
        vectors, texts: give unit item vectors [n, D] and whitened text vectors [n, T] of item indices.
        codes: gives the numbers of the items' names, int64 [n, C].
        weights: of all heads, [T]. decides: whether the order is the ranker's; if not it only tells chances.
    """

    ranker: Ranker
    given: RankerInput
    fusion: Fusion
    vectors: Callable[[IntArray], FloatArray]
    texts: Callable[[IntArray], FloatArray]
    codes: Callable[[IntArray], Codes]
    weights: FloatArray
    decides: bool

    @classmethod
    def wanted(
        cls,
        ranker: Ranker,
        given: RankerInput,
        fusion: Fusion,
        vectors: Callable[[IntArray], FloatArray],
        texts: Callable[[IntArray], FloatArray],
        codes: Callable[[IntArray], Codes],
        settings: RankerSettings,
    ) -> ListRanker:
        """As the settings want it: `mode` and `weights` are read when answering.

        Raises:
            SettingsError: the weights name an unknown head, or weigh nothing.
        """
        if settings.mode in ("always", "chances"):
            orders = settings.mode == "always"
            ranker = replace(ranker, plan=msgspec.structs.replace(ranker.plan, orders=orders))
        weights = ranker.weights(settings.weights)
        decides = settings.mode != "chances" and (ranker.plan.orders or bool(weights[1:].any()))
        return cls(ranker, given, fusion, vectors, texts, codes, weights, decides)

    def first(self, scores: FloatArray) -> NDArray[np.int64]:
        """Places of the candidates that are ordered anew, the fusion's best first, [n]."""
        finite = np.isfinite(scores)
        safe = scores if np.count_nonzero(finite) == len(finite) else np.where(finite, scores, -np.inf)
        found: NDArray[np.int64] = (-safe).argsort(kind="stable")[: self.ranker.plan.depth]
        return found

    def ranked(
        self, found: ChannelScores, scores: FloatArray, state: QueryState, first: NDArray[np.int64], told: FloatArray | None
    ) -> Ranked:
        """Final scores and chances.

        Args:
            found: all candidates. scores: of the fusion, [M]. state: who asks.
            first: of `first`, [n]. told: declared features of these, [n, G]; None: nothing is told.
        """
        return self.ranked_many([Asked(found, scores, state, first, told)])[0]

    def ranked_many(self, asked: Sequence[Asked]) -> list[Ranked]:
        """The same for several queries, which the network reads in one piece."""
        heads = self.ranker.names
        answers = [Ranked(one.scores, heads, np.full((len(one.scores), len(heads)), np.nan, dtype=np.float32)) for one in asked]
        wanted = [place for place, one in enumerate(asked) if len(one.first) and one.state.user_vector is not None]
        for nothing_told in (False, True):
            looked = [place for place in wanted if (asked[place].told is None) == nothing_told]
            if looked:
                self._rank(asked, looked, answers)
        return answers

    def _rank(self, asked: Sequence[Asked], looked: Sequence[int], answers: list[Ranked]) -> None:
        """Puts the answers to some of the queries in place; of all of them features are told, or of none."""
        some = [asked[place] for place in looked]
        begin = np.cumsum([0, *(len(one.first) for one in some)])
        read = self.read(some)
        logits = self.ranker.logits(read.dense, read.names, read.plain)
        logits[:, 0] = self.ranker.settled(logits, read.plain, read.part.counts == 0, begin)
        scores = np.concatenate([one.scores[one.first] for one in some])
        chances = self.ranker.chances(logits, boosted(read.part), scores, begin)
        final = chances @ self.weights
        for place, one, start, end in zip(looked, some, begin[:-1].tolist(), begin[1:].tolist(), strict=True):
            told = answers[place].chances
            assert told is not None
            told[one.first] = chances[start:end]
            if self.decides:
                answers[place] = Ranked(behind(one.scores, one.first, final[start:end]), answers[place].heads, told)

    def effects(
        self,
        found: ChannelScores,
        scores: FloatArray,
        state: QueryState,
        first: NDArray[np.int64],
        told: FloatArray | None,
        at: int,
    ) -> tuple[list[str], FloatArray, FloatArray]:
        """What each column is worth to the `next` logit of one candidate: what the logit loses when the column is 0, the mean of training.

        Args:
            found, scores, first, told: as of `ranked`. at: the candidate, a place in `first`.

        Returns:
            Names, values and effects, [X].
        """
        if state.user_vector is None:
            return [], np.zeros(0, np.float32), np.zeros(0, np.float32)
        read = self.read([Asked(found, scores, state, first, told)])
        dense, names, plain = read.dense.table(), read.names, read.plain
        width = dense.shape[1]
        rows = np.repeat(dense[at : at + 1], width + 1, axis=0)
        rows[np.arange(width), np.arange(width)] = 0.0
        logits = self.ranker.logits(rows, np.repeat(names[at : at + 1], width + 1, axis=0), np.repeat(plain[at], width + 1))
        return self.given.names, dense[at], (logits[-1, 0] - logits[:-1, 0]).astype(np.float32)

    def read(self, asked: Sequence[Asked]) -> Read:
        """What the network reads of the candidates that are looked at; each asker has a user vector, and features are told of all or of none."""
        begin = np.cumsum([0, *(len(one.first) for one in asked)])
        whole = joined([part(one.found, one.first, vectors=False) for one in asked])
        users = unit(np.array([one.state.user_vector for one in asked if one.state.user_vector is not None]))
        best = [self.fusion.without_boost(one.found, one.scores) for one in asked]
        plain = np.concatenate([scores[one.first] for one, scores in zip(asked, best, strict=True)])
        theirs, cosine = self._projected(asked, users, whole.items, begin)
        columns = channel_columns(whole, plain, best, [len(one.state.history) for one in asked], cosine, begin)
        told = None if asked[0].told is None else np.concatenate([one.told for one in asked if one.told is not None])
        texts = self.texts(whole.items) if self.given.text.components else None
        alike = None
        if self.given.compares:
            alike = likenesses(whole.items, [one.state.history for one in asked], begin, self.texts, self.vectors)
        raw = self.given.raw(columns, told, texts, begin, alike)
        names = self.codes(whole.items)
        if names.shape[1]:
            of_askers = [self._of_asker(one.state.asker) for one in asked]
            names = names + np.repeat(np.stack(of_askers), np.diff(begin), axis=0)
        return Read(whole, plain, self.given.columns(raw, users, theirs, begin), names)

    def _projected(
        self, asked: Sequence[Asked], users: FloatArray, items: IntArray, begin: Begins
    ) -> tuple[FloatArray, FloatArray]:
        """What the network reads of the items' vectors, [R, K], and their cosines with the askers' unit vectors, [R]."""
        theirs = np.empty((len(items), self.given.of_item.shape[1]), dtype=np.float32)
        cosine = np.empty(len(items), dtype=np.float32)
        for one, user, start, end in zip(asked, users, begin[:-1].tolist(), begin[1:].tolist(), strict=True):
            known, first = one.found.vectors, one.first
            if known is not None and len(known) <= MORE * len(first):  # products of all are less work than copies of some
                (known @ self.given.of_item).take(first, axis=0, out=theirs[start:end], mode="clip")
                (known @ user).take(first, out=cosine[start:end], mode="clip")
                continue
            vectors = np.asarray(self.vectors(items[start:end]), np.float32) if known is None else known.take(first, axis=0)
            np.matmul(vectors, self.given.of_item, out=theirs[start:end])
            np.matmul(vectors, user, out=cosine[start:end])
        return theirs, cosine

    def _of_asker(self, asker: Asker | None) -> Codes:
        return self.given.categories.of_asker(asker.user_id if asker else "", asker.context if asker else None)


@dataclass(frozen=True)
class Read:
    """Of the candidates that are looked at, one list behind the other, [R] together: what the channels say, the fusion's plain scores [R], columns [R, X] and
    numbers of names [R, C]."""

    part: ChannelScores
    plain: FloatArray
    dense: Columns
    names: Codes
