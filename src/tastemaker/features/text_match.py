"""How an item's text goes with what the user met lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.base import Look, Numbers, runs
from tastemaker.features.key import USER
from tastemaker.features.memories.latest import Latest
from tastemaker.features.memories.memory import Memory
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class TextMatch:
    """`mean`: cosine of the item's text vector and the user's latest ones, each older one weighing `decay` times as much; `best`: the largest
    cosine to one of them. Two zeros where the item, the user or all texts are unknown.
    """

    of: Which = ALL
    length: int = 20
    decay: float = 0.8

    columns = ("mean", "best")
    reads = (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.TEXT)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """The user's latest events."""
        return (Latest(USER, self.of, self.length),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """Both numbers."""
        met = look(Latest(USER, self.of, self.length)).items
        cosines = look.cosines(met)
        begins = runs(met)
        lengths = np.linalg.norm(np.matmul(self._weights(), look.facts.vectors.read(met[begins])), axis=1)
        length = np.repeat(lengths, np.diff(np.append(begins, len(met))))
        mean = cosines @ self._weights() / np.maximum(length, 1e-9)
        best = np.max(np.where(met >= 0, cosines, -1.0), axis=1)
        known = (met >= 0).any(axis=1) & (look.rows.item >= 0)
        return np.where(known, np.clip(mean, -1.0, 1.0), 0.0), np.where(known, best, 0.0)

    def _weights(self) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = (self.decay ** np.arange(self.length)).astype(np.float32)
        return weights
