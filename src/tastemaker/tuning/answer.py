"""What a trained trial answers: the place of each question's target, and the time that one answer takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from tastemaker.index.channels import Channels
from tastemaker.index.exact import top
from tastemaker.models.fusion import Fusion
from tastemaker.schema.errors import TastemakerError
from tastemaker.schema.protocols import FloatArray, IntArray, QueryState
from tastemaker.training.precision import use_threads
from tastemaker.training.sequence import pad

if TYPE_CHECKING:
    from tastemaker.training.sequence import SequenceModel

CUTOFF = 10
TIMED = 50
"""Questions that are answered one by one to take the time of an answer."""
_BATCH = 256


class DivergedError(TastemakerError):
    """Training ended in numbers that are none: such a setting has no answer."""


class Answer(Protocol):
    """Something that ranks the catalogue for a history."""

    def best(self, histories: Sequence[IntArray]) -> list[IntArray]:
        """The ten best items of each history, its own left out."""


def gains_of(best: Sequence[IntArray], targets: IntArray) -> FloatArray:
    """NDCG@10 of lists with one right item each, float32 [Q]: 1 / log2(place + 1), 0 where it is not among the ten."""
    found = np.zeros(len(targets), dtype=np.float32)
    for row, (items, target) in enumerate(zip(best, targets, strict=True)):
        place = np.flatnonzero(items[:CUTOFF] == target)
        if len(place):
            found[row] = 1 / np.log2(place[0] + 2.0)
    return found


def answer_time(answer: Answer, histories: Sequence[IntArray]) -> float:
    """Milliseconds of CPU for one answer on one thread, the median over some questions asked one by one.

    CPU time, not the clock's: a busy neighbour must not make a setting look slow.
    """
    from threadpoolctl import threadpool_limits

    threads, taken = torch.get_num_threads(), []
    use_threads(1)
    with threadpool_limits(1, "blas"):
        for history in histories[: TIMED + 1]:
            began = time.thread_time()
            answer.best([history])
            taken.append(1_000 * (time.thread_time() - began))
    use_threads(threads)
    return float(np.median(taken[1:] or taken))


class SequenceAnswer:
    """The sequence model alone: user · item + bias."""

    def __init__(self, model: SequenceModel) -> None:
        self.model, self.vectors = model, model.item_vectors()
        self.bias: FloatArray = model.bias.detach().numpy().copy()
        self._rows = torch.from_numpy(self.vectors)

    def checked(self) -> SequenceAnswer:
        """Itself, if all that was learned are numbers: NaN must not win a search.

        Raises:
            DivergedError: they are not.
        """
        if all(bool(torch.isfinite(part).all()) for part in self.model.parameters()) and np.isfinite(self.vectors).all():
            return self
        raise DivergedError("training ended in numbers that are none; a lower sequence.learning_rate may help")

    @torch.inference_mode()
    def users(self, histories: Sequence[IntArray]) -> FloatArray:
        """User vectors, float32 [B, D], from item vectors that are already there, as a service has them."""
        longest = self.model.users.max_length
        ids, lengths = pad([history[-longest:] for history in histories])
        found: FloatArray = self.model.users(self._rows[ids], lengths).numpy()
        return found

    def best(self, histories: Sequence[IntArray]) -> list[IntArray]:
        """The ten best items of each history, its own left out."""
        scores = self.users(histories) @ self.vectors.T + self.bias
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf
        return [found.astype(np.int32) for found in top(scores, CUTOFF)]

    def gains(self, histories: Sequence[IntArray], targets: IntArray) -> FloatArray:
        """NDCG@10 of each question, float32 [Q]."""
        return _gains(self, histories, targets)


@dataclass(frozen=True)
class FusedAnswer:
    """All channels and the fusion over them, as a bundle answers."""

    sequence: SequenceAnswer
    channels: Channels
    fusion: Fusion
    depth: int

    def best(self, histories: Sequence[IntArray]) -> list[IntArray]:
        """The ten best items of each history, its own left out."""
        users = self.sequence.users(histories)
        states = [QueryState(history, vector if len(history) else None) for history, vector in zip(histories, users, strict=True)]
        found = []
        for state, candidates in zip(states, self.channels.candidates(states, self.depth), strict=True):
            score = self.fusion.score(candidates, len(state.history))
            found.append(candidates.items[np.argsort(-score, kind="stable")[:CUTOFF]])
        return found

    def gains(self, histories: Sequence[IntArray], targets: IntArray) -> FloatArray:
        """NDCG@10 of each question, float32 [Q]."""
        return _gains(self, histories, targets)


def _gains(answer: Answer, histories: Sequence[IntArray], targets: IntArray) -> FloatArray:
    order = np.argsort([len(history) for history in histories], kind="stable")  # like lengths together: little is padded
    found = np.zeros(len(targets), dtype=np.float32)
    for begin in range(0, len(order), _BATCH):
        rows = order[begin : begin + _BATCH]
        found[rows] = gains_of(answer.best([histories[row] for row in rows]), targets[rows])
    return found
