"""How long ago: recency of a user, or an item."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.base import Floats

NEVER = 10 * 365 * 86_400.0
"""Seconds that an unknown key is taken to be away: ten years."""


class Recency:
    """Remembers the latest time for each key; gives log(1 + seconds since then), for an unknown key as after ten years."""

    name = "log_recency"

    def __init__(self) -> None:
        self._last: dict[Hashable, float] = {}

    def update(self, key: Hashable, time: float) -> None:
        """Keeps the later time."""
        self._last[key] = max(time, self._last.get(key, time))

    def read(self, key: Hashable, now: float) -> float:
        """log(1 + seconds since the latest event)."""
        last = self._last.get(key)
        return float(np.log1p(NEVER if last is None else min(max(now - last, 0.0), NEVER)))

    def batch(self, keys: NDArray[np.int64], times: Floats, n_keys: int, now: float) -> Floats:
        """log(1 + seconds) of each key."""
        last = np.full(n_keys, -np.inf)
        np.maximum.at(last, keys, times)
        return np.asarray(np.log1p(np.where(np.isfinite(last), np.clip(now - last, 0.0, NEVER), NEVER)), dtype=np.float64)
