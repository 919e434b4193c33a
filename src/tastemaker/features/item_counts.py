"""How much is an item, or a user, in motion: plain and decayed counts of events."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.base import Floats


class Count:
    """Remembers a number for each key; an event adds 1; gives log(1 + count), 0 for an unknown key."""

    name = "log_count"

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}

    def update(self, key: Hashable, time: float) -> None:
        """Adds one."""
        self._counts[key] = self._counts.get(key, 0) + 1

    def read(self, key: Hashable, now: float) -> float:
        """log(1 + count)."""
        return float(np.log1p(self._counts.get(key, 0)))

    def batch(self, keys: NDArray[np.int64], times: Floats, n_keys: int, now: float) -> Floats:
        """log(1 + count) of each key."""
        return np.log1p(np.bincount(keys, minlength=n_keys)).astype(np.float64)


class DecayedCount:
    """Remembers a sum and its time for each key; an event adds 1, which halves every `half_life` seconds; gives log(1 + sum) as of now.

    Events may arrive in any order. An unknown key gives 0; an event later than `now` counts as one of now.

    Args:
        half_life: seconds.
    """

    name = "log_decayed_count"

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._sums: dict[Hashable, tuple[float, float]] = {}

    def update(self, key: Hashable, time: float) -> None:
        """Adds one at `time`."""
        total, last = self._sums.get(key, (0.0, time))
        if time >= last:
            self._sums[key] = (total * self._left(time - last) + 1.0, time)
        else:
            self._sums[key] = (total + self._left(last - time), last)

    def read(self, key: Hashable, now: float) -> float:
        """log(1 + decayed sum)."""
        total, last = self._sums.get(key, (0.0, now))
        return float(np.log1p(total * self._left(max(now - last, 0.0))))

    def batch(self, keys: NDArray[np.int64], times: Floats, n_keys: int, now: float) -> Floats:
        """log(1 + decayed sum) of each key."""
        if not len(keys):
            return np.zeros(n_keys)
        last = np.full(n_keys, -np.inf)
        np.maximum.at(last, keys, times)
        sums = np.bincount(keys, weights=0.5 ** ((last[keys] - times) / self.half_life), minlength=n_keys)
        age = np.where(np.isfinite(last), np.maximum(now - last, 0.0), 0.0)
        return np.asarray(np.log1p(sums * 0.5 ** (age / self.half_life)), dtype=np.float64)

    def _left(self, seconds: float) -> float:
        return float(0.5 ** (seconds / self.half_life))
