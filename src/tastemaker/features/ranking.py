"""A ranker asked about the candidates of a query: what it reads is put together and its answer made a score, by the same lines offline and online."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.features.categories import Codes
from tastemaker.features.ranker_input import RankerInput, channel_columns, cosines
from tastemaker.models.fusion import Fusion, boosted
from tastemaker.models.ranker import Ranker, behind
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.protocols import FloatArray, IntArray, QueryState
from tastemaker.schema.settings import RankerSettings


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
            ranker = Ranker(msgspec.structs.replace(ranker.plan, orders=orders), ranker.arrays)
        weights = ranker.weights(settings.weights)
        decides = settings.mode != "chances" and (ranker.plan.orders or bool(weights[1:].any()))
        return cls(ranker, given, fusion, vectors, texts, codes, weights, decides)

    def first(self, scores: FloatArray) -> NDArray[np.int64]:
        """Places of the candidates that are ordered anew, the fusion's best first, [n]."""
        safe = np.where(np.isfinite(scores), scores, -np.inf)
        return np.argsort(-safe, kind="stable")[: self.ranker.plan.depth]

    def ranked(
        self, found: ChannelScores, scores: FloatArray, state: QueryState, first: NDArray[np.int64], told: FloatArray | None
    ) -> Ranked:
        """Final scores and chances.

        Args:
            found: all candidates. scores: of the fusion, [M]. state: who asks.
            first: of `first`, [n]. told: declared features of these, [n, G]; None: nothing is told.
        """
        heads, none = self.ranker.names, np.full((len(scores), len(self.ranker.names)), np.nan, dtype=np.float32)
        if not len(first) or state.user_vector is None:
            return Ranked(scores, heads, none)
        plain = self.fusion.without_boost(found, scores)
        part, dense, names = self._read(found, plain, state, state.user_vector, first, told)
        logits = self.ranker.logits(dense, names, plain[first])
        logits[:, 0] = self.ranker.settled(logits, plain[first], part.counts == 0, np.array([0, len(first)]))
        chances = self.ranker.chances(logits, boosted(part), scores[first])
        none[first] = chances
        if not self.decides:
            return Ranked(scores, heads, none)
        return Ranked(behind(scores, first, chances @ self.weights), heads, none)

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
        plain = self.fusion.without_boost(found, scores)
        _, dense, names = self._read(found, plain, state, state.user_vector, first, told)
        width = dense.shape[1]
        rows = np.repeat(dense[at : at + 1], width + 1, axis=0)
        rows[np.arange(width), np.arange(width)] = 0.0
        logits = self.ranker.logits(rows, np.repeat(names[at : at + 1], width + 1, axis=0), np.repeat(plain[first[at]], width + 1))
        return self.given.names, dense[at], (logits[-1, 0] - logits[:-1, 0]).astype(np.float32)

    def _read(
        self,
        found: ChannelScores,
        plain: FloatArray,
        state: QueryState,
        user: FloatArray,
        first: NDArray[np.int64],
        told: FloatArray | None,
    ) -> tuple[ChannelScores, FloatArray, Codes]:
        """The candidates that are looked at, and what the network reads of them: columns [n, X] and numbers of names [n, C]."""
        part = ChannelScores(
            found.items[first], found.channels, found.scores[first], found.ranks[first], found.counts[first], found.depth
        )
        items = np.asarray(self.vectors(part.items), dtype=np.float32)
        columns = channel_columns(part, plain[first], plain, len(state.history), cosines(user, items))
        raw = self.given.raw(columns, told, self.texts(part.items))
        asker = state.asker
        names = self.codes(part.items) + self.given.categories.of_asker(
            asker.user_id if asker else "", asker.context if asker else None
        )
        return part, self.given.dense(raw, user, items), names
