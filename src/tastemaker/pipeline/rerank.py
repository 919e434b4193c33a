"""Select: from scored candidates to the list."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray


def order(scores: FloatArray, k: int) -> NDArray[np.int64]:
    """Places of the k best, best first; ties keep their order, and what is no number comes last."""
    safe = np.where(np.isfinite(scores), scores, -np.inf)
    return np.argsort(-safe, kind="stable")[: max(k, 0)]


def diversify(scores: FloatArray, vectors: FloatArray, k: int, strength: float) -> NDArray[np.int64]:
    """Maximal marginal relevance (J. Carbonell and J. Goldstein, 1998): the next place goes to what is good and unlike what stands above.

    Args:
        scores: float32 [M], higher is better.
        vectors: unit rows, float32 [M, D].
        k: places. strength: in [0, 1]; 0 gives `order`, 1 looks at unlikeness alone.
    """
    chosen = order(scores, k)
    if strength <= 0 or len(scores) < 2:
        return chosen
    pool = order(scores, max(5 * k, 50))
    finite = np.isfinite(scores[pool])
    low, high = (scores[pool][finite].min(), scores[pool][finite].max()) if finite.any() else (0.0, 0.0)
    worth = np.where(finite, (np.where(finite, scores[pool], low) - low) / ((high - low) or 1.0), 0.0)
    alike = np.zeros(len(pool), dtype=np.float32)
    taken: list[int] = []
    free = np.ones(len(pool), dtype=bool)
    for _ in range(min(k, len(pool))):
        value = np.where(finite, (1 - strength) * worth - strength * alike, -3.0)  # what is no number comes last
        value[~free] = -np.inf
        best = int(np.argmax(value))
        taken.append(best)
        free[best] = False
        alike = np.maximum(alike, vectors[pool] @ vectors[pool[best]])
    return pool[taken]


def reserve(places: NDArray[np.int64], fresh: NDArray[np.int64], slots: int) -> NDArray[np.int64]:
    """Gives up to `slots` of the last places to fresh items that are not in the list yet; the length stays."""
    missing = [item for item in fresh.tolist() if item not in set(places.tolist())][: max(slots, 0)]
    room = min(len(missing), max(len(places) // 4, 1) if len(places) > 3 else 0)
    if room == 0:
        return places
    return np.concatenate([places[: len(places) - room], np.array(missing[:room], dtype=np.int64)])
