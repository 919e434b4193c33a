"""Orders of scored candidates: by score alone, or by score and by how unlike an item is to what stands above.

A taste tells at any moment what each candidate is worth as the next one of the list; it learns what was taken.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import FloatArray

Values = NDArray[np.float64]
LEAST_SPREAD = 1e-6
"""A share of an item's vector that lies outside those above it, below which it adds nothing."""
_BEYOND, _NO_NUMBER = -1e3, -1e6


class Taste(Protocol):
    """What each candidate is worth next."""

    def worth(self) -> Values:
        """Larger is better, float64 [M], always finite."""

    def take(self, place: int) -> None:
        """A candidate stands in the list now."""


def order(scores: FloatArray, k: int) -> NDArray[np.int64]:
    """Places of the k best, best first; ties keep their order, and what is no number comes last."""
    finite = np.isfinite(scores)
    safe = scores if np.count_nonzero(finite) == len(finite) else np.where(finite, scores, -np.inf)
    found: NDArray[np.int64] = (-safe).argsort(kind="stable")[: max(k, 0)]
    return found


def diversify(scores: FloatArray, vectors: FloatArray, k: int, strength: float, by: str = "mmr") -> NDArray[np.int64]:
    """Places of a list whose items are good and unlike each other.

    Args:
        scores: float32 [M], higher is better.
        vectors: unit rows, float32 [M, D].
        k: places. strength: in [0, 1]; 0 gives `order`, 1 looks at unlikeness alone. by: `mmr` or `dpp`.
    """
    ranked = order(scores, len(scores))
    if strength <= 0 or len(scores) < 2:
        return ranked[: max(k, 0)]
    taste = taste_of(scores, ranked, vectors, k, strength, by)
    free, taken = np.ones(len(scores), dtype=bool), []
    for _ in range(min(k, len(scores))):
        best = int(ranked[np.argmax(np.where(free[ranked], taste.worth()[ranked], -np.inf))])
        taken.append(best)
        free[best] = False
        taste.take(best)
    return np.array(taken, dtype=np.int64)


def taste_of(scores: FloatArray, ranked: NDArray[np.int64], vectors: FloatArray, k: int, strength: float, by: str = "mmr") -> Taste:
    """The taste of a dial: order alone where `strength` is 0, else maximal marginal relevance or a determinantal point process.

    Args:
        scores: float32 [M]. ranked: places of the candidates, best first, int64 [M]; of equals the first wins.
        vectors: unit rows, float32 [M, D]; not read where `strength` is 0.
        k: length of the list; only the best max(5 k, 50) candidates are looked at as long as one of them is left.

    Raises:
        InputError: no taste has this name.
    """
    if strength <= 0:
        return InOrder(ranked)
    kinds: dict[str, type[MarginalRelevance] | type[Determinant]] = {"mmr": MarginalRelevance, "dpp": Determinant}
    if by not in kinds:
        raise InputError(f"diversity_by is {by!r}; expected {' or '.join(kinds)}.")
    return kinds[by](_Pool(scores, ranked, max(5 * k, 50)), vectors, strength)


class InOrder:
    """The order that was given."""

    def __init__(self, ranked: NDArray[np.int64]) -> None:
        self._worth = np.empty(len(ranked), dtype=np.float64)
        self._worth[ranked] = -np.arange(len(ranked))

    def worth(self) -> Values:
        """Minus the place, float64 [M]."""
        return self._worth

    def take(self, place: int) -> None:
        """Changes nothing."""


class _Pool:
    """The best candidates, their scores brought to [0, 1]; others are worth less than any of these, in their order, and what is no number least.

    Attributes:
        inside: places of the pool, best first. relevance: float32 [pool]. fixed: worth of those outside and of what is no number, float64 [M]; 0 elsewhere.
    """

    def __init__(self, scores: FloatArray, ranked: NDArray[np.int64], size: int) -> None:
        best, finite = ranked[:size], np.isfinite(scores)
        self.inside = best[finite[best]]
        inner = scores[self.inside]
        low, high = (inner.min(), inner.max()) if len(inner) else (0.0, 0.0)
        self.relevance = (inner - low) / ((high - low) or 1.0)
        behind = np.arange(len(ranked)) / max(len(ranked), 1)
        self.fixed = np.empty(len(ranked), dtype=np.float64)
        self.fixed[ranked] = np.where(finite[ranked], _BEYOND, _NO_NUMBER) - behind
        self.fixed[self.inside] = 0.0
        self.where = np.full(len(ranked), -1)
        self.where[self.inside] = np.arange(len(self.inside))


class MarginalRelevance:
    """(1 - s) relevance - s (largest cosine with what was taken) (J. Carbonell and J. Goldstein, 1998)."""

    def __init__(self, pool: _Pool, vectors: FloatArray, strength: float) -> None:
        self._pool, self._strength = pool, strength
        self._vectors, self._inner = vectors, vectors[pool.inside]
        self._alike = np.zeros(len(pool.inside), dtype=np.float32)

    def worth(self) -> Values:
        """What each candidate is worth next, float64 [M]."""
        found = self._pool.fixed.copy()
        found[self._pool.inside] = (1 - self._strength) * self._pool.relevance - self._strength * self._alike
        return found

    def take(self, place: int) -> None:
        """Those like this one are worth less from now on."""
        self._alike = np.maximum(self._alike, self._inner @ self._vectors[place])


class Determinant:
    """Greedy MAP of a determinantal point process (L. Chen, G. Zhang and E. Zhou, 2018, algorithm 1).

    The list is chosen for (1 - s) (sum of relevance) + s log det S, their equation 9 with theta = 1 - s. S[i, j] = (1 + cosine) / 2, which is
    positive semidefinite and calls opposites unlike. The gain of one more item is (1 - s) relevance + s log d², where d² is what of the item lies
    outside those taken, kept up to date by an incremental Cholesky factor.
    """

    def __init__(self, pool: _Pool, vectors: FloatArray, strength: float) -> None:
        self._pool, self._strength = pool, strength
        self._vectors, self._inner = vectors, vectors[pool.inside]
        self._outside = np.ones(len(pool.inside), dtype=np.float64)
        self._factor = np.zeros((min(len(pool.inside), vectors.shape[1] + 1), len(pool.inside)), dtype=np.float64)
        self._rows = 0

    def worth(self) -> Values:
        """What each candidate is worth next, float64 [M]."""
        gain = np.log(np.maximum(self._outside, LEAST_SPREAD))
        found = self._pool.fixed.copy()
        found[self._pool.inside] = (1 - self._strength) * self._pool.relevance + self._strength * gain
        return found

    def take(self, place: int) -> None:
        """What lies in the direction of this one is worth less from now on."""
        inner = int(self._pool.where[place])
        if inner < 0 or self._rows == len(self._factor) or self._outside[inner] < LEAST_SPREAD:
            return
        like = (1 + self._inner @ self._vectors[place].astype(np.float64)) / 2
        like[inner] = 1.0
        above = self._factor[: self._rows]
        row = (like - above.T @ above[:, inner]) / np.sqrt(self._outside[inner])
        self._factor[self._rows] = row
        self._rows += 1
        self._outside = np.maximum(self._outside - row * row, 0.0)
