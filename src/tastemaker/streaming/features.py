"""What is told of a user, an item and the moment right now: the bundle's features with everything folded in that happened since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.base import FeatureQuery
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.state import State
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray

SILENCE = 86_400.0
"""Seconds without any event after which time stands still for a ranker."""


class LiveFeatures:
    """Features of one process, kept up to date event by event: the same lines that made the rows of training.

    Args:
        features, state: as a bundle holds them. latest: epoch seconds of the latest event that they know.
    """

    def __init__(self, features: FeatureSet, state: State, latest: float = np.inf) -> None:
        self.features, self._state, self.latest = features, state, latest

    @classmethod
    def open(cls, folder: Path, latest: float = np.inf) -> LiveFeatures:
        """Starts from the folder `features/` of a bundle; `latest` as in the class.

        Raises:
            BundleError: it can't be read.
        """
        return cls(*FeatureSet.load(folder), latest)

    def fold_event(self, event: Event) -> None:
        """An event of whatever type."""
        self.features.update(self._state, event)
        if event.timestamp is not None and np.isfinite(event.timestamp):
            self.latest = max(self.latest, event.timestamp)

    def moment(self, now: float) -> float:
        """The moment that a ranker is asked at: now, but at most a day after the latest event.

        A log that ended years ago is answered as on its last day: a ranker has never learned what years of silence mean.
        """
        return min(now, self.latest + SILENCE)

    def put_item(self, item: Item, text: FloatArray) -> None:
        """An item that was added or changed, with its whitened text vector [T]."""
        self.features.put_item(self._state, item, text)

    def told(
        self,
        user_id: str,
        item_ids: Sequence[str],
        now: float,
        context: Mapping[str, Any] | None = None,
        wanted: NDArray[np.bool_] | None = None,
    ) -> FloatArray:
        """Raw feature columns, float32 [items, F], in the order of `features.names`; `wanted` as in `FeatureSet.gives`."""
        found: FloatArray = self.features.gives(self._state, FeatureQuery(user_id, item_ids, now, context), wanted)
        return found

    def rebuilt(self, events: pl.DataFrame) -> LiveFeatures:
        """The same features with a memory made anew from a whole log, at once."""
        return LiveFeatures(self.features, self.features.recounted(self._state, events), self.latest)

    def differing(self, other: LiveFeatures, users: Sequence[str], item_ids: Sequence[str], now: float) -> list[str]:
        """Columns of which the two tell different numbers of any of these users and items at a moment (epoch seconds)."""
        wrong = np.zeros(len(self.features.names), dtype=bool)
        for user in users:
            wrong |= ~np.isclose(self.told(user, item_ids, now), other.told(user, item_ids, now), rtol=1e-5, atol=1e-5).all(axis=0)
        return [self.features.names[column] for column in np.flatnonzero(wrong)]
