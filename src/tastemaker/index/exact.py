"""Exact search over dense vectors: a matrix product and a partial sort. Rows can be added while it is in use.

The protocol of an index, which `approximate.ApproximateIndex` keeps too: `rows`, `scores`, `search`, `append`, `replace`. Nothing is ever deleted from one: items that
may not be found are left out of `allowed`, as the state of the service knows them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.coded import Plain, Vectors
from tastemaker.index.column import Column, grown
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray

_BLOCK = 32


Neighbour = tuple[IntArray, FloatArray]
"""Items and their scores, best first."""


class DenseIndex:
    """Item vectors, one row an item; the first rows may be memory-mapped and shared, or codes, later ones are this process's own.

    Args:
        vectors: float32 [N, D], or codes of them.
        offsets: what is added to each item's product when it is searched for, float32 [N]; None: nothing.
    """

    approximate = False
    """Whether `search` may miss an item."""

    def __init__(self, vectors: FloatArray | Vectors, offsets: FloatArray | None = None) -> None:
        self._base: Vectors = Plain(vectors) if isinstance(vectors, np.ndarray) else vectors
        self._base_count = len(self._base)
        self._later = np.zeros((16, vectors.shape[1]), dtype=np.float32)
        self._count = 0
        self._changed: dict[int, int] = {}
        self._new = np.zeros((16, vectors.shape[1]), dtype=np.float32)
        self.offsets = None if offsets is None else Column(offsets)

    def __len__(self) -> int:
        return self._base_count + self._count

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._base.shape[1])

    @property
    def base(self) -> Vectors:
        """The rows that it began with."""
        return self._base

    def append(self, vector: FloatArray, offset: float = 0.0) -> int:
        """Adds a row; gives its index. The next search finds it."""
        self._later = grown(self._later, self._count, self._count + 1)
        self._later[self._count] = vector
        self._count += 1
        if self.offsets is not None:
            self.offsets.append(offset)
        return len(self) - 1

    def replace(self, row: int, vector: FloatArray) -> None:
        """Gives a row another vector; its offset stays. The next search finds it at its new place."""
        if row >= len(self._base):
            self._later[row - len(self._base)] = vector
            return
        place = self._changed.setdefault(row, len(self._changed))
        self._new = grown(self._new, place, place + 1)
        self._new[place] = vector

    def search(self, queries: FloatArray, depth: int | Sequence[int], allowed: BoolArray | None = None) -> list[Neighbour]:
        """The items with the largest inner products, offsets added; of equals the smaller index comes first.

        Args:
            queries: float32 [B, D]. depth: how many items for each query, or for all of them; fewer only where fewer are allowed.
            allowed: bool [N], items that may be found; None: all. The exact index scores every item whatever the filter; the approximate one chooses
                by how many are allowed: few are scanned exactly, many cost a longer search.

        Returns:
            For each query item indices, int32 [n], and their scores, float32 [n], best first.
        """
        scores = self.scores(queries)
        if self.offsets is not None:
            scores += self.offsets.values
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        found = []
        depths = depths_of(depth, len(queries))
        for row, places, one in zip(scores, top(scores, max(depths, default=0)), depths, strict=True):
            places = places[: max(one, 0)]
            places = places[row[places] > -np.inf]
            found.append((places.astype(np.int32), row[places]))
        return found

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """The vectors of some items, float32 [n, D]."""
        indices = np.asarray(indices, dtype=np.int64)
        base = indices < self._base_count if self._count else None
        if base is None or np.count_nonzero(base) == len(base):
            found = self._base.rows(indices)
        else:
            found = np.empty((len(indices), self.dim), dtype=np.float32)
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


def depths_of(depth: int | Sequence[int], queries: int) -> Sequence[int]:
    """How many items each query asks for."""
    return [depth] * queries if isinstance(depth, int) else depth


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
