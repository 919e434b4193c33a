"""The floors that must be beaten and are always shown: popularity, recent popularity, item-kNN, text-kNN, ALS.

All have one shape: fitted on histories, they score every item for given histories; items of the history are left out; ties keep the order of
the catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from tastemaker.data.sequences import Sequences
from tastemaker.index.exact import top
from tastemaker.index.neighbours import history_matrix
from tastemaker.schema.protocols import FloatArray, IntArray
from tastemaker.training.neighbours import recent_popularity, shared_neighbours

Scorer = Callable[[Sequence[IntArray]], FloatArray]
"""Histories (item indices, oldest first) to scores of every item, float32 [B, N]."""

ALS_FACTORS, ALS_ITERATIONS, ALS_REGULARISATION = 64, 15, 0.05


def baselines(sequences: Sequences, text: FloatArray | None, time_is_order: bool, seed: int = 0) -> Iterator[tuple[str, Scorer]]:
    """Each floor with its name, fitted when its turn comes.

    Args:
        sequences: what to learn from.
        text: whitened text vectors, float32 [N, T]; None or a single column: no text-kNN.
        time_is_order: no recent popularity then, it would be popularity.
    """
    yield from popularity_floors(sequences, time_is_order)
    yield "item-kNN", _item_knn(sequences)
    if text is not None and text.shape[1] > 1:
        yield "text-kNN", _text_knn(text)
    yield "ALS", _als(sequences, seed)


def popularity_floors(sequences: Sequences, time_is_order: bool) -> Iterator[tuple[str, Scorer]]:
    """The floors that know nothing of the asker: popularity, and recent popularity where times are known."""
    yield "popularity", _fixed(np.log1p(sequences.counts()).astype(np.float32))
    if not time_is_order:
        yield "recent popularity", _fixed(recent_popularity(sequences, False))


def recommend(scorer: Scorer, histories: Sequence[IntArray], k: int, batch: int = 256) -> list[IntArray]:
    """The k best items for each history, its own left out."""
    found: list[IntArray] = []
    for begin in range(0, len(histories), batch):
        part = histories[begin : begin + batch]
        scores = scorer(part)
        for row, history in enumerate(part):
            scores[row, history] = -np.inf
        found += [best[np.isfinite(scores[row, best])].astype(np.int32) for row, best in enumerate(top(scores, k))]
    return found


def _fixed(values: FloatArray) -> Scorer:
    return lambda histories: np.broadcast_to(values, (len(histories), len(values))).copy()


def _item_knn(sequences: Sequences) -> Scorer:
    neighbours = shared_neighbours(sequences, 200)
    return lambda histories: neighbours.scores(histories, 0.6, sequences.n_items)


def _text_knn(text: FloatArray) -> Scorer:
    def scores(histories: Sequence[IntArray]) -> FloatArray:
        return np.asarray(history_matrix(histories, len(text), 0.5) @ text, dtype=np.float32) @ text.T

    return scores


def _als(sequences: Sequences, seed: int) -> Scorer:
    """Implicit ALS (Y. Hu, Y. Koren and C. Volinsky, 2008) by the library `implicit`; users are folded in from their histories."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    met = _matrix(sequences.histories(), sequences.n_items)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=ALS_FACTORS, iterations=ALS_ITERATIONS, regularization=ALS_REGULARISATION, alpha=10.0, random_state=seed
        )
        model.fit(met, show_progress=False)

    def scores(histories: Sequence[IntArray]) -> FloatArray:
        with threadpool_limits(1, "blas"):
            users = model.recalculate_user(np.arange(len(histories)), _matrix(histories, sequences.n_items))
        found: FloatArray = np.asarray(users, dtype=np.float32).reshape(len(histories), -1) @ model.item_factors.T
        return found

    return scores


def _matrix(histories: Sequence[IntArray], n_items: int) -> sp.csr_matrix:
    lengths = [len(history) for history in histories]
    items = np.concatenate(histories) if sum(lengths) else np.zeros(0, dtype=np.int32)
    rows = np.repeat(np.arange(len(histories)), lengths)
    met = sp.csr_matrix((np.ones(len(items), dtype=np.float32), (rows, items)), shape=(len(histories), n_items))
    met.sum_duplicates()
    met.data[:] = 1.0
    return met
