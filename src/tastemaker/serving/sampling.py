"""Keeps a sample of the lists with what was known when they were made."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tastemaker.index.exact import top
from tastemaker.journal.sampled import Sampled, in_sample
from tastemaker.journal.served import ServedLog
from tastemaker.pipeline.engine import Found
from tastemaker.schema.protocols import IntArray, QueryState
from tastemaker.schema.queries import Answer, RecommendQuery
from tastemaker.schema.settings import AlertSettings
from tastemaker.serving.wire import Live

RECALL_K, RECALL_SECONDS, CHUNK = 10, 10.0, 16_384
"""The exact best of the user vector, looked for at most once in so many seconds and worker, so many rows at a time."""


class Sampler:
    """One worker's part of the sample.

    Args:
        log: where it is kept. settings: `sample` and `sample_rate` are read.
    """

    def __init__(self, log: ServedLog, settings: AlertSettings) -> None:
        self._log, self._settings = log, settings
        self._tokens, self._then, self._recalled = settings.sample_rate, 0.0, -math.inf

    def keep(self, live: Live, query: RecommendQuery, answer: Answer, found: Found, now: float) -> None:
        """Keeps a list, if it is in the sample, there have not been too many, and what it knew can be told by a place in the journal."""
        if not in_sample(answer.request_id, self._settings.sample) or live.behind or not self._may(now):
            return
        history = live.state.history(query.user_id) if query.user_id is not None else np.zeros(0, dtype=np.int32)
        features, names, values, moment = live.state.features, list[str](), list[list[float | None]](), now
        if features is not None and answer.items:
            moment = features.moment(now)
            told = features.told(query.user_id or "", [one.item_id for one in answer.items], moment, query.context)
            names, values = features.features.names, [_finite(row.tolist()) for row in told]
        position, change = live.known
        self._log.write(
            Sampled(
                request_id=answer.request_id, user_id=query.user_id or "", time=now, moment=moment, model_version=answer.model_version,
                position=position, change=change, known=len(history) + len(query.session or ()), context=query.context,
                items=[one.item_id for one in answer.items], scores=_finite(one.score for one in answer.items),
                sources=[one.source for one in answer.items], names=names, values=values,
                chances=_chances(found),
                recall=self._recall(live, live.query(history), found, now) if len(history) else None,
            )
        )  # fmt: skip

    def _may(self, now: float) -> bool:
        self._tokens = min(self._tokens + (now - self._then) * self._settings.sample_rate, max(self._settings.sample_rate, 1.0))
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _recall(self, live: Live, state: QueryState, found: Found, now: float) -> float | None:
        """Share of the exact best by the user tower that are among the candidates; None where it was looked at just before."""
        if now - self._recalled < RECALL_SECONDS or found.candidates is None or state.user_vector is None:
            return None
        self._recalled = now
        best = exact_best(live, state, RECALL_K)
        return float(np.isin(best, found.candidates).mean()) if len(best) else None


def exact_best(live: Live, state: QueryState, k: int) -> IntArray:
    """The k best items by the user tower among those that may be shown to somebody, by comparing with every one of them."""
    channels, vector = live.channels, state.user_vector
    if vector is None:
        return np.zeros(0, dtype=np.int32)
    scores = np.empty((1, channels.n_items), dtype=np.float32)
    for begin in range(0, channels.n_items, CHUNK):
        places = np.arange(begin, min(begin + CHUNK, channels.n_items))
        scores[0, places] = channels.items.rows(places) @ vector + channels.bias[places]
    scores[0, live.barred()] = -np.inf
    scores[0, state.history] = -np.inf
    best = top(scores, k)[0]
    shown: IntArray = best[np.isfinite(scores[0, best])].astype(np.int32)
    return shown


def _chances(found: Found) -> dict[str, list[float | None]]:
    """By head; none where the ranker did not look at every place."""
    if found.chances is None or np.isnan(found.chances).any():
        return {}
    return {head: _finite(found.chances[:, at].tolist()) for at, head in enumerate(found.heads)}


def _finite(numbers: Iterable[float]) -> list[float | None]:
    return [number if math.isfinite(number) else None for number in numbers]
