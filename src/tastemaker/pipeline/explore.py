"""The fresh slot: a bounded share of a list goes by chance to items of which little is known, and the chance is told.

Which items take part follows a design with known inclusion probabilities: systematic sampling with unequal probabilities (W. Madow, 1949). One number
in [0, 1), which follows from the request's id, decides; the same request is answered alike.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import IntArray

Chances = NDArray[np.float64]
LEAST_LIST = 4
"""A shorter list has no fresh slot."""
LARGEST_SHARE = 0.25
"""Share of a list that fresh items can take at most, whatever the settings."""


class Explore(msgspec.Struct, frozen=True, eq=False):
    """What a request allows.

    Attributes:
        fresh: item indices that are fresh now, growing, int32 [F].
        share: share of the places, in [0, 1].
        temperature: places of closeness by which the odds fall by e; 0: always the closest.
        draw: the number in [0, 1) that decides.
    """

    fresh: IntArray
    share: float
    temperature: float
    draw: float


def draw_of(request_id: str) -> float:
    """A number in [0, 1) that follows from a request's id."""
    return int.from_bytes(hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=7).digest(), "big") / 2**56


def slots_of(k: int, share: float) -> float:
    """Expected fresh places of a list of k; a fraction is a place by chance."""
    if k < LEAST_LIST:
        return 0.0
    return min(k * share, max(k * LARGEST_SHARE, 1.0))


def chances(closeness: NDArray[np.integer], slots: float, temperature: float) -> Chances:
    """Inclusion probability of each fresh candidate, float64 [n], in [0, 1]; they sum up to min(slots, n).

    Args:
        closeness: how many items stand closer to this user, int [n], growing. slots: expected places.
        temperature: as in `Explore`.
    """
    n = len(closeness)
    if slots >= n:
        return np.ones(n, dtype=np.float64)
    if temperature <= 0:
        return np.clip(slots - np.arange(n), 0.0, 1.0)
    weight = np.exp(-(closeness - closeness[0]) / temperature)
    found = np.zeros(n, dtype=np.float64)
    full = np.zeros(n, dtype=bool)
    while True:  # those who would be taken more than once are taken for certain, and the rest shares what is left
        rest = slots - full.sum()
        found[~full] = rest * weight[~full] / weight[~full].sum()
        found[full] = 1.0
        over = (found > 1.0) & ~full
        if not over.any():
            return found
        full |= over


def drawn(chance: Chances, draw: float) -> NDArray[np.int64]:
    """Which are included: every one of them with its own chance, and as many as the chances sum up to, give or take a fraction.

    Args:
        chance: inclusion probabilities, float64 [n]. draw: uniform in [0, 1).
    """
    ends = np.cumsum(chance)
    ends = np.round(ends, 9)  # a sum of 1 - 1e-16 is 1
    marks = np.floor(ends - draw) - np.floor(np.concatenate([[0.0], ends[:-1]]) - draw)
    return np.flatnonzero(marks > 0)
