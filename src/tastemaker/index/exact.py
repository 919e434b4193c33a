"""Exact search over dense vectors: a matrix product and a partial sort. Rows can be added while it is in use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.coded import Plain, Vectors
from tastemaker.schema.protocols import FloatArray

_BLOCK = 32


class DenseIndex:
    """Item vectors, one row an item; the first rows may be memory-mapped and shared, or codes, later ones are this process's own."""

    def __init__(self, vectors: FloatArray | Vectors) -> None:
        self._base: Vectors = Plain(vectors) if isinstance(vectors, np.ndarray) else vectors
        self._later = np.zeros((16, vectors.shape[1]), dtype=np.float32)  # grows by doubling: n appends cost O(n)
        self._count = 0
        self._changed: dict[int, int] = {}
        self._new = np.zeros((16, vectors.shape[1]), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._base) + self._count

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._base.shape[1])

    def append(self, vector: FloatArray) -> int:
        """Adds a row; gives its index."""
        self._later = _grown(self._later, self._count + 1)
        self._later[self._count] = vector
        self._count += 1
        return len(self) - 1

    def replace(self, row: int, vector: FloatArray) -> None:
        """Gives a row another vector."""
        if row >= len(self._base):
            self._later[row - len(self._base)] = vector
            return
        place = self._changed.setdefault(row, len(self._changed))
        self._new = _grown(self._new, place + 1)
        self._new[place] = vector

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """The vectors of some items, float32 [n, D]."""
        indices = np.asarray(indices, dtype=np.int64)
        found = np.zeros((len(indices), self.dim), dtype=np.float32)
        base = indices < len(self._base)
        found[base] = self._base.rows(indices[base])
        found[~base] = self._later[indices[~base] - len(self._base)]
        if self._changed:
            for place, index in enumerate(indices.tolist()):
                if index in self._changed:
                    found[place] = self._new[self._changed[index]]
        return found

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products of queries [B, D] with every item, float32 [B, N]."""
        found = np.empty((len(queries), len(self)), dtype=np.float32)
        found[:, : len(self._base)] = self._base.scores(queries)
        if self._count:
            found[:, len(self._base) :] = queries @ self._later[: self._count].T
        if self._changed:
            found[:, list(self._changed)] = queries @ self._new[: len(self._changed)].T
        return found


def _grown(rows: FloatArray, needed: int) -> FloatArray:
    if needed <= len(rows):
        return rows
    larger = np.zeros((2 * needed, rows.shape[1]), dtype=np.float32)
    larger[: len(rows)] = rows
    return larger


def top(scores: FloatArray, depth: int) -> NDArray[np.int64]:
    """Indices of the `depth` largest numbers of each row, best first, ties by index; NaN and -inf never win over a number.

    Args:
        scores: float32 [B, N]; `depth` is cut to N.
    """
    depth = min(depth, scores.shape[1])
    if depth <= 0:
        return np.zeros((len(scores), 0), dtype=np.int64)
    safe = np.where(np.isfinite(scores), scores, np.float32(-np.inf))
    found = np.empty((len(safe), depth), dtype=np.int64)
    bound = _bounds(safe, depth)
    for row, values in enumerate(safe):
        places = np.flatnonzero(values >= bound[row])
        if len(places) > 8 * depth:  # many ties at the bound, as the zeros of a sparse row
            better = np.flatnonzero(values > bound[row])
            places = np.concatenate([better, np.flatnonzero(values == bound[row])[:depth]])
        found[row] = places[np.argsort(-values[places], kind="stable")[:depth]]
    return found


def _bounds(scores: FloatArray, depth: int) -> FloatArray:
    """For each row a number that at least `depth` of its scores reach, and few more do, [B].

    The depth-th largest of the largest numbers of small blocks: much faster than a partial sort of the whole row.
    """
    blocks = scores.shape[1] // _BLOCK
    if blocks < 2 * depth:
        return np.partition(scores, scores.shape[1] - depth, axis=1)[:, scores.shape[1] - depth]
    largest = -scores[:, : blocks * _BLOCK].reshape(len(scores), blocks, _BLOCK).max(axis=2)
    bound: FloatArray = -np.partition(largest, depth - 1, axis=1)[:, depth - 1]
    return bound
