"""Brings the vectors of two fits into one frame: what was learned on the vectors of the first can then read those of the second."""

from __future__ import annotations

import numpy as np

from tastemaker.features.ranker_input import unit
from tastemaker.schema.protocols import FloatArray


def rotation(early: FloatArray, later: FloatArray) -> FloatArray:
    """The rotation R for which `later` · R lies closest to `early`, float32 [D, D] (orthogonal Procrustes; P. Schönemann, 1966).

    A tower's vectors are only told up to a rotation: scores are products of two of them. Of the same items both fits must have vectors, [n, D].
    """
    left, _, right = np.linalg.svd(later.T.astype(np.float64) @ early.astype(np.float64))
    found: FloatArray = (left @ right).astype(np.float32)
    return found


def agreement(early: FloatArray, later: FloatArray, turn: FloatArray) -> float:
    """Mean cosine of `early` and turned `later` rows; 1 where the frames fit."""
    return float((unit(early) * unit(later @ turn)).sum(axis=1).mean()) if len(early) else 0.0


def directions(items: FloatArray, users: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Projections to the leading directions of item vectors, scaled so that each has spread 1: of users and of items, float32 [D, count]."""
    count = min(count, items.shape[1], len(items))
    if not count:
        empty = np.zeros((items.shape[1], 0), dtype=np.float32)
        return empty, empty
    _, _, axes = np.linalg.svd(items - items.mean(axis=0), full_matrices=False)
    found = axes[:count].T.astype(np.float32)
    spread = [np.maximum((vectors @ found).std(axis=0), 1e-3) for vectors in (unit(users), items)]
    return found / spread[0], found / spread[1]
