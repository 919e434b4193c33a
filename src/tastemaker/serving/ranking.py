"""The ranker of a bundle, told by the live state: features, vectors and names as they are at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.categories import Codes
from tastemaker.features.ranker_input import RankerInput
from tastemaker.features.ranking import ListRanker
from tastemaker.index.channels import Channels
from tastemaker.inference.ranker import open_ranker
from tastemaker.models.fusion import Fusion
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.protocols import Asked, FloatArray, IntArray, QueryState
from tastemaker.schema.settings import RankerSettings
from tastemaker.streaming.state import LiveState


class LiveRanker:
    """Orders candidates with what is known right now.

    Args:
        folder: `ranker/` of a bundle. fusion, channels: of the bundle. state: what happened since.
        settings: `mode` and `weights` are read; the rest is as it was learned.

    Raises:
        SettingsError: the weights name an unknown head, or weigh nothing.
    """

    def __init__(self, folder: Path, fusion: Fusion, channels: Channels, state: LiveState, settings: RankerSettings) -> None:
        self._state, given = state, RankerInput.load(folder)
        self._codes = given.categories.of_items(state.rows)
        self._given = given
        kept = set(given.preparation.kept)
        names = state.features.features.names if state.features is not None else []
        self._wanted = np.array([name in kept for name in names], dtype=bool)
        vectors, texts = channels.items.rows, channels.text.rows
        self.list = ListRanker.wanted(open_ranker(folder), given, fusion, vectors, texts, self._of_items, settings)

    def first(self, scores: FloatArray, tell: bool = False) -> NDArray[np.int64] | None:
        """Places of the candidates that are ordered or whose chances are wanted, best first; None: neither."""
        return self.list.first(scores) if self.list.decides or tell else None

    def hydrate(self, items: IntArray, state: QueryState) -> FloatArray | None:
        """The declared features of these items as they are now, float32 [n, G]; None where nothing is told."""
        features, asker = self._state.features, state.asker
        if features is None or asker is None or not len(items):
            return None
        names = [self._state.rows.item_id(place) for place in items.tolist()]
        return features.told(asker.user_id, names, features.moment(asker.now), asker.context, self._wanted)

    def rank(
        self, found: ChannelScores, scores: FloatArray, state: QueryState, first: NDArray[np.int64], told: FloatArray | None
    ) -> Ranked:
        """Final scores, float32 [M], and the chances where they decide or are wanted."""
        return self.list.ranked(found, scores, state, first, told)

    def rank_many(self, asked: Sequence[Asked]) -> list[Ranked]:
        """The same for several queries in one piece."""
        return self.list.ranked_many(asked)

    def effects(
        self, found: ChannelScores, scores: FloatArray, state: QueryState, place: int, most: int = 5
    ) -> list[tuple[str, float, float]]:
        """Features with the largest effect on the `next` logit of an item: name, value (in standard deviations from the mean) and effect.

        An effect is what the logit loses when the feature is the mean of training instead.
        """
        first = self.list.first(scores)
        at = np.flatnonzero(found.items[first] == place)
        if not len(at) or state.user_vector is None:
            return []
        told = self.hydrate(found.items[first], state)
        names, values, effect = self.list.effects(found, scores, state, first, told, int(at[0]))
        best = np.argsort(-np.abs(effect), kind="stable")[:most]
        return [(names[one], float(values[one]), float(effect[one])) for one in best.tolist() if effect[one] != 0]

    def changed(self, places: Sequence[int]) -> None:
        """Items that were added or changed: their names are read anew."""
        if not places:
            return
        codes = self._given.categories.of_items([self._state.rows[place] for place in places])
        grown = np.zeros((max(len(self._state.rows), len(self._codes)), codes.shape[1]), dtype=np.int64)
        grown[: len(self._codes)] = self._codes
        grown[list(places)] = codes
        self._codes = grown

    def _of_items(self, items: IntArray) -> Codes:
        if len(items) and int(items.max()) >= len(self._codes):  # an item that only events name
            self.changed(range(len(self._codes), len(self._state.rows)))
        found: Codes = self._codes[items]
        return found
