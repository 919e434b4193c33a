"""How well text vectors (or those of another signal) alone find new items, and which texts are alike though nobody took both."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tastemaker.data.sequences import Sequences
from tastemaker.index.exact import DenseIndex, top
from tastemaker.index.neighbours import history_matrix
from tastemaker.models.text import Whitening
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import MediaSettings, TextSettings
from tastemaker.training.holdout import Holdout

ROWS = 4_000
POOL = 20
_CUTOFF, _PART = 10, 256


def new_item_ndcg(vectors: FloatArray, held: Holdout, decay: float) -> float:
    """Mean of `new_item_gains`; 0 without held-back events of new items."""
    gains = new_item_gains(vectors, held, decay)
    return float(gains.sum()) / max(len(gains), 1)


def new_item_gains(vectors: FloatArray, held: Holdout, decay: float) -> np.ndarray:
    """NDCG@10 of each held-back item that `held.train` never shows, ranked among its like by the faded mean of a history's vectors, float64 [R].

    Only new items compete: how they stand beside known ones is the fusion's to learn. A tie counts against the target.

    Args:
        vectors: unit rows, float32 [N, T].
        held: its rows with `cold` targets are asked, 4,000 at most.
        decay: weight of an event for each event after it.
    """
    new = np.flatnonzero(held.known & (held.train.counts() == 0))
    rows = np.flatnonzero(held.cold)
    rows = np.random.default_rng(0).permutation(rows)[:ROWS]
    place = np.full(len(vectors), -1)
    place[new] = np.arange(len(new))
    gains = [np.zeros(0)]
    for begin in range(0, len(rows), _PART):
        part = rows[begin : begin + _PART]
        queries = np.asarray(history_matrix([held.histories[row] for row in part], len(vectors), decay) @ vectors)
        scores = queries @ vectors[new].T
        target = place[held.targets[part]]
        better = (scores >= scores[np.arange(len(part)), target][:, None]).sum(axis=1) - 1
        gains.append(np.where(better < _CUTOFF, 1 / np.log2(better + 2.0), 0.0))
    return np.concatenate(gains)


def chance_gain(held: Holdout) -> float:
    """What `new_item_gains` gives on average to an order by chance."""
    new = int((held.known & (held.train.counts() == 0)).sum())
    return float((1 / np.log2(np.arange(min(_CUTOFF, new)) + 2.0)).sum()) / max(new, 1)


def search_ndcg(vectors: FloatArray, queries: FloatArray, targets: np.ndarray) -> float:
    """NDCG@10 of what was taken after a search among all items, ranked by the search's vector alone, as the meaning part of `/v1/search` ranks them.

    A tie counts against the target. 0 without searches.

    Args:
        vectors: unit rows, float32 [N, T]; zero rows for items without a text.
        queries: float32 [R, T]. targets: int [R].
    """
    total = 0.0
    for begin in range(0, len(targets), _PART):
        target = targets[begin : begin + _PART]
        scores = queries[begin : begin + _PART] @ vectors.T
        better = (scores >= scores[np.arange(len(target)), target][:, None]).sum(axis=1) - 1
        total += float(np.where(better < _CUTOFF, 1 / np.log2(better + 2.0), 0.0).sum())
    return total / max(len(targets), 1)


def power_scores(
    vectors: FloatArray, full: np.ndarray, held: Holdout, chosen: TextSettings | MediaSettings, decay: float
) -> dict[float, float]:
    """How well new items are found with each power of the whitening that is tried.

    Args:
        vectors: before whitening, float32 [N, H].
        full: bool [N], items that have one.
        held, decay: as in `new_item_ndcg`.
        chosen: `whitenings` and `dim` are read.
    """
    scores = {}
    for power in chosen.whitenings:
        white = Whitening.fit(vectors[full], chosen.dim, power).apply(vectors, ~full)
        scores[power] = new_item_ndcg(white, held, decay)
    return scores


def search_scores(
    vectors: FloatArray, full: np.ndarray, queries: FloatArray, targets: np.ndarray, chosen: TextSettings
) -> dict[float, float]:
    """How well searches find what was taken after them, with each power of the whitening that is tried.

    Args:
        vectors, full, chosen: as in `power_scores`.
        queries: of the searches, before whitening, float32 [R, H]. targets: what was taken, int [R].
    """
    scores = {}
    for power in chosen.whitenings:
        white = Whitening.fit(vectors[full], chosen.dim, power)
        scores[power] = search_ndcg(white.apply(vectors, ~full), white.apply(queries), targets)
    return scores


def hard_pool(vectors: FloatArray, sequences: Sequences) -> np.ndarray:
    """For each item the 20 items whose texts are nearest to its own and that no user took beside it, int64 [N, 20].

    Items without events are no negatives. A row that lacks candidates repeats its nearest ones.
    """
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    shape = (sequences.n_users, sequences.n_items)
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, sequences.items)), shape=shape)
    index, unknown = DenseIndex(vectors), sequences.counts() == 0
    found = np.zeros((sequences.n_items, POOL), dtype=np.int64)
    for begin in range(0, sequences.n_items, _PART):
        rows = np.arange(begin, min(begin + _PART, sequences.n_items))
        scores = index.scores(vectors[rows])
        scores[:, unknown] = -np.inf
        scores[(met.T[rows] @ met).toarray() > 0] = -np.inf
        scores[np.arange(len(rows)), rows] = -np.inf
        best = top(scores, POOL)
        found[rows, : best.shape[1]] = best
    return found
