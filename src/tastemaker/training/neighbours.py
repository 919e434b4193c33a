"""Item-to-item weights counted from histories, and recent popularity: the parts that learn in seconds."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.index.neighbours import Neighbours
from tastemaker.schema.protocols import FloatArray

WINDOW = 20
LONGEST = 500
HALF_LIFE_SHARE = 0.1


def near_neighbours(sequences: Sequences, k: int) -> Neighbours:
    """Items met within 20 events of each other; a pair d events apart counts 1/√d, divided by √(count·count).

    Args:
        sequences: histories.
        k: neighbours kept for each item.
    """
    items, users = sequences.items, np.repeat(np.arange(sequences.n_users), sequences.lengths())
    n = sequences.n_items
    none = np.zeros(0, np.int64)
    weights = sp.csr_matrix((np.zeros(0, np.float32), (none, none)), shape=(n, n))
    for distance in range(1, WINDOW + 1):
        same = users[distance:] == users[:-distance]
        first, second = items[:-distance][same], items[distance:][same]
        if len(first) == 0:
            break
        value = np.full(len(first), distance**-0.5, dtype=np.float32)
        weights = weights + sp.csr_matrix((value, (first, second)), shape=(n, n))
    return _neighbours((weights + weights.T).tocsr(), sequences.counts(), k)


def shared_neighbours(sequences: Sequences, k: int) -> Neighbours:
    """Cosine between items as sets of people (of each person the latest 500 events).

    Args:
        sequences: histories.
        k: neighbours kept for each item.
    """
    met = who_met(sequences, LONGEST)
    return _neighbours((met.T @ met).tocsr(), np.asarray(met.sum(axis=0)).ravel(), k)


def who_met(sequences: Sequences, latest: int) -> sp.csr_matrix:
    """1 where a user met an item among the latest so many events, else 0, float32 [users, items]."""
    lengths = sequences.lengths()
    from_end = np.repeat(sequences.offsets[1:], lengths) - np.arange(len(sequences.items))
    kept = from_end <= latest
    users = np.repeat(np.arange(sequences.n_users), lengths)[kept]
    shape = (sequences.n_users, sequences.n_items)
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, sequences.items[kept])), shape=shape)
    met.data[:] = 1.0  # duplicates were summed
    return met


def _neighbours(pairs: sp.csr_matrix, counts: NDArray[np.generic], k: int) -> Neighbours:
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    scale = sp.diags(np.maximum(counts.astype(np.float32), 1.0) ** -0.5)
    weights = (scale @ pairs @ scale).tocsr().astype(np.float32)
    return Neighbours(_strongest(weights, k))


def _strongest(weights: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """Each row's k largest weights; ties go to the smaller index."""
    weights.sort_indices()
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    order = np.lexsort((-weights.data, rows))
    place = np.arange(len(order)) - np.repeat(weights.indptr[:-1], np.diff(weights.indptr))
    kept = np.sort(order[place < k])
    shape = weights.shape
    return sp.csr_matrix((weights.data[kept], (rows[kept], weights.indices[kept])), shape=shape)


def recent_popularity(sequences: Sequences, time_is_order: bool) -> FloatArray:
    """Logarithm of each item's events, the old ones weighing less, float32 [N] in [0, 1].

    See `recent_counts`.
    """
    found = np.log1p(recent_counts(sequences, time_is_order))
    largest = float(found.max()) if len(found) else 0.0
    return (found / largest if largest > 0 else found).astype(np.float32)


def recent_counts(sequences: Sequences, time_is_order: bool) -> NDArray[np.float64]:
    """Each item's events, the old ones weighing less, float64 [N].

    An event's weight halves with each tenth of the log's span of time before its end; where times only give an order, all weigh the same.
    """
    weights = np.ones(len(sequences.items))
    times = sequences.times
    if not time_is_order and len(times) and np.isfinite(times).all():
        span = float(times.max() - times.min()) or 1.0
        weights = 0.5 ** ((times.max() - times) / (span * HALF_LIFE_SHARE))
    return np.bincount(sequences.items, weights=weights, minlength=sequences.n_items).astype(np.float64)
