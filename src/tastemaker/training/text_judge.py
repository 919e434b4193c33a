"""How well text vectors alone find new items, and which texts are alike though nobody took both."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from tastemaker.data.sequences import Sequences
from tastemaker.index.exact import DenseIndex, top
from tastemaker.index.neighbours import history_matrix
from tastemaker.models.text import Whitening
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout

ROWS = 4_000
POOL = 20
_CUTOFF, _PART = 10, 256


def new_item_ndcg(vectors: FloatArray, held: Holdout, decay: float) -> float:
    """NDCG@10 of the held-back items that `held.train` never shows, ranked among their like by the faded mean of a history's vectors.

    Only new items compete: how they stand beside known ones is the fusion's to learn. A tie counts against the target. 0 without such rows.

    Args:
        vectors: unit rows, float32 [N, T].
        held: its rows with `cold` targets are asked, 4,000 at most.
        decay: weight of an event for each event after it.
    """
    new = np.flatnonzero(held.known & (held.train.counts() == 0))
    rows = np.flatnonzero(held.cold)
    rows = np.random.default_rng(0).permutation(rows)[:ROWS]
    if len(rows) == 0:
        return 0.0
    place = np.full(len(vectors), -1)
    place[new] = np.arange(len(new))
    total = 0.0
    for begin in range(0, len(rows), _PART):
        part = rows[begin : begin + _PART]
        queries = np.asarray(history_matrix([held.histories[row] for row in part], len(vectors), decay) @ vectors)
        scores = queries @ vectors[new].T
        target = place[held.targets[part]]
        better = (scores >= scores[np.arange(len(part)), target][:, None]).sum(axis=1) - 1
        total += float(np.where(better < _CUTOFF, 1 / np.log2(better + 2.0), 0.0).sum())
    return total / len(rows)


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


def power_scores(vectors: FloatArray, full: np.ndarray, held: Holdout, settings: Settings) -> dict[float, float]:
    """How well new items are found with each power of the whitening that is tried.

    Args:
        vectors: before whitening, float32 [N, H].
        full: bool [N], items with a text.
        held: as in `new_item_ndcg`.
        settings: `text.whitenings`, `text.dim` and `neighbours.text_decay` are read.
    """
    scores = {}
    for power in settings.text.whitenings:
        white = Whitening.fit(vectors[full], settings.text.dim, power).apply(vectors, ~full)
        scores[power] = new_item_ndcg(white, held, settings.neighbours.text_decay)
    return scores


def search_scores(
    vectors: FloatArray, full: np.ndarray, queries: FloatArray, targets: np.ndarray, settings: Settings
) -> dict[float, float]:
    """How well searches find what was taken after them, with each power of the whitening that is tried.

    Args:
        vectors, full, settings: as in `power_scores`.
        queries: of the searches, before whitening, float32 [R, H]. targets: what was taken, int [R].
    """
    scores = {}
    for power in settings.text.whitenings:
        white = Whitening.fit(vectors[full], settings.text.dim, power)
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
