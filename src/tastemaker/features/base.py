"""The shape of a feature: what it remembers, what an event changes, what it reads, what number it gives.

The same class computes a feature over a whole log (`batch`) and event by event (`update`, `read`); the law is that both give the same numbers, in
whatever order events arrive.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Feature(Protocol):
    """A number about a key (an item or a user) at a moment."""

    @property
    def name(self) -> str:
        """How settings and reports call it."""

    def update(self, key: Hashable, time: float) -> None:
        """Takes an event in; `time` in epoch seconds."""

    def read(self, key: Hashable, now: float) -> float:
        """The number now; a defined one for a key that was never met."""

    def batch(self, keys: NDArray[np.int64], times: Floats, n_keys: int, now: float) -> Floats:
        """The numbers of keys 0 to n_keys - 1 now, float64 [n_keys], from a log of keys and times."""
