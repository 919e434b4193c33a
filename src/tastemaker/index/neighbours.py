"""Item-to-item neighbours as a sparse matrix, read with a history whose older events weigh less."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray, IntArray

LATEST = 50
"""Events of a history that are read."""


@cache
def fading(decays: tuple[float, ...], events: int) -> FloatArray:
    """decay ** age of the latest events, newest first, float32 [decays, events]."""
    found: FloatArray = np.array(decays, dtype=np.float32)[:, None] ** np.arange(events)
    return found.astype(np.float32)


class Neighbours:
    """For each item the most similar ones, `weights[i, j]` in [0, 1]."""

    def __init__(self, weights: sp.csr_matrix) -> None:
        self.weights = weights

    @property
    def n_items(self) -> int:
        """Items that had neighbours when this was learned; later ones have none."""
        return int(self.weights.shape[0])

    def scores(self, histories: Sequence[IntArray], decay: float, n_items: int, depth: int = LATEST) -> FloatArray:
        """Sum over the latest `depth` events of decay ** age times the neighbour's weight, float32 [B, n_items].

        Args:
            histories: item indices, oldest first.
            decay: weight of an event for each event after it.
            n_items: width of the answer; items beyond those learned score 0.
            depth: events read of each history.
        """
        events = history_matrix(histories, self.n_items, decay, depth)
        found = np.zeros((len(histories), n_items), dtype=np.float32)
        product = (events @ self.weights).tocsr()
        rows = np.repeat(np.arange(len(histories)), np.diff(product.indptr))
        found[rows, product.indices] = product.data
        return found

    def around(self, history: IntArray, decay: float, depth: int = LATEST) -> tuple[IntArray, FloatArray]:
        """What `scores` sums, without the sums: the neighbours of the latest `depth` events and decay ** age times their weights, an item as often as it is one."""
        latest = history[-depth:][::-1]
        known = latest < self.n_items
        return entries(self.weights, latest[known], fading((decay,), len(latest))[0][known])

    def of(self, item: int, k: int) -> tuple[NDArray[np.int64], FloatArray]:
        """The k nearest neighbours of an item and their weights, best first."""
        if item >= self.n_items:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        begin, end = self.weights.indptr[item], self.weights.indptr[item + 1]
        order = np.argsort(-self.weights.data[begin:end], kind="stable")[:k]
        return self.weights.indices[begin:end][order].astype(np.int64), self.weights.data[begin:end][order]


def entries(table: sp.csr_matrix, rows: NDArray[np.integer], weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Columns and values of some rows of a sparse table, one row behind the other, each row's values times its weight."""
    begin = table.indptr[rows].astype(np.int64)
    sizes = table.indptr[rows + 1] - begin
    ends = np.cumsum(sizes)
    places = np.repeat(begin - ends + sizes, sizes) + np.arange(int(ends[-1]) if len(ends) else 0)
    return table.indices[places], table.data[places] * np.repeat(weights, sizes)


def history_matrix(histories: Sequence[IntArray], n_items: int, decay: float, depth: int = LATEST) -> sp.csr_matrix:
    """Histories as rows of weights decay ** age; items beyond `n_items` are left out."""
    latest = [history[-depth:][::-1] for history in histories]
    lengths = np.array([len(history) for history in latest], dtype=np.int64)
    total = int(lengths.sum())
    items = np.concatenate(latest) if total else np.zeros(0, dtype=np.int32)
    rows = np.repeat(np.arange(len(latest)), lengths)
    ages = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    keep = items < n_items
    weights = (np.float32(decay) ** ages[keep]).astype(np.float32)
    return sp.csr_matrix((weights, (rows[keep], items[keep])), shape=(len(latest), n_items))
