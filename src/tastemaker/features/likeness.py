"""How a candidate compares with what the asker took lately: cosines of texts and of item vectors with each of the latest events. The same lines offline and online."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from tastemaker.schema.protocols import Begins, FloatArray, IntArray

LATEST = 50
"""Events of a history that a candidate is compared with, the latest."""
FADE = 0.7
"""What an event weighs of the one after it, in `recent`."""
OF_EVENTS = ("last", "most", "recent", "mean")
LIKENESS = tuple(f"like.{kind}.{what}" for kind in ("text", "vector") for what in OF_EVENTS)
"""Names of the columns: for texts and for item vectors the cosine with the last event, the largest, the mean that fades with age, and the plain mean."""
Rows = Callable[[IntArray], FloatArray]


def likenesses(items: IntArray, histories: Sequence[IntArray], begin: Begins, texts: Rows, vectors: Rows) -> FloatArray:
    """The columns of `LIKENESS` of candidates of some lists, one behind the other, float32 [R, 8]; zeros for who has no history.

    Args:
        items: item indices, int32 [R]. histories: item indices of each asker, oldest first. begin: where each list begins, and R, [Q + 1].
        texts, vectors: give unit vectors of item indices, [n, T] and [n, D]; a row of zeros is like nothing.
    """
    latest = [history[-LATEST:] for history in histories]
    ends = np.cumsum([0, *(len(history) for history in latest)]).tolist()
    met = np.concatenate(latest) if latest else items[:0]
    columns = np.zeros((len(LIKENESS), len(items)), dtype=np.float32)  # a row a column: each is written in one piece
    for kind, rows in enumerate((texts, vectors)):
        mine, theirs = rows(items), rows(met)
        own = columns[kind * len(OF_EVENTS) : (kind + 1) * len(OF_EVENTS)]
        for (start, end), (first, last) in zip(pairwise(begin), pairwise(ends), strict=True):
            if first < last and start < end:
                cosines = theirs[first:last] @ mine[start:end].T
                own[0, start:end] = cosines[-1]
                cosines.max(axis=0, out=own[1, start:end])
                np.matmul(_weights(last - first), cosines, out=own[2:, start:end])
    return columns.T


@cache
def _weights(events: int) -> FloatArray:
    """Of each event in the fading and in the plain mean, float32 [2, events]."""
    fading = FADE ** np.arange(events)[::-1]
    return np.stack([fading / fading.sum(), np.full(events, 1 / events)]).astype(np.float32)
