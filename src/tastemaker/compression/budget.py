"""The promise: how much of the quality may be given away, and whether a step kept to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation.significance import Groups, paired
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import IntArray
from tastemaker.schema.reports import Interval

K = 10


class Verdict(msgspec.Struct, frozen=True):
    """What a step cost.

    Attributes:
        quality: mean NDCG@10 with its 95 % interval.
        change: paired difference to the uncompressed bundle, with its 95 % interval.
        allowed: how much may be lost, in NDCG@10.
        accepted: the lower bound of the change is no worse than the allowed loss.
        overlap: share of the ten places that show the same items as before, in [0, 1].
        words: the sentence for people.
    """

    quality: Interval
    change: Interval
    allowed: float
    accepted: bool
    overlap: float
    words: str


@dataclass(frozen=True)
class Questions:
    """Held-back events as questions.

    Attributes:
        histories: item indices, oldest first.
        targets: item indices that came next, one array a question.
        users: the user of each question, as a number; intervals resample users.
        words: the protocol in plain words.
    """

    histories: Sequence[IntArray]
    targets: Sequence[IntArray]
    users: Groups
    words: str = ""

    def __len__(self) -> int:
        return len(self.histories)


@dataclass
class Budget:
    """Compares bundles with the uncompressed one, question by question.

    Args:
        share: of the uncompressed bundle's NDCG@10 that may be lost, in [0, 1].
        questions: what is asked.
        before: the lists of the uncompressed bundle.
        resamples: of the bootstrap.
    """

    share: float
    questions: Questions
    before: Sequence[IntArray]
    resamples: int = 1_000
    _before: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._before = gains(self.before, self.questions.targets)

    @property
    def quality(self) -> float:
        """Mean NDCG@10 of the uncompressed bundle."""
        return float(self._before.mean()) if len(self._before) else 0.0

    def judge(self, lists: Sequence[IntArray]) -> Verdict:
        """What another bundle's lists cost."""
        from tastemaker.evaluation.significance import interval

        found = gains(lists, self.questions.targets)
        quality = interval(found, self.resamples, 0, self.questions.users)
        change, _ = paired(found, self._before, self.resamples, 0, self.questions.users)
        allowed = self.share * self.quality
        accepted = change.low >= -allowed
        shared = [
            len(np.intersect1d(one[:K], other[:K])) / max(len(other[:K]), 1) for one, other in zip(lists, self.before, strict=True)
        ]
        span = f"NDCG@10 changes by {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}], {-allowed:+.4f} is allowed"
        return Verdict(quality, change, allowed, accepted, float(np.mean(shared)) if shared else 1.0, span)


def gains(lists: Sequence[IntArray], targets: Sequence[IntArray]) -> NDArray[np.float64]:
    """NDCG@10 of each question, float64 [Q]; see `evaluation.ranking`."""
    discount = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.cumsum(discount)
    found = np.zeros(len(lists))
    for row, (items, wanted) in enumerate(zip(lists, targets, strict=True)):
        hits = np.isin(items[:K], wanted)
        found[row] = discount[: len(hits)][hits].sum() / ideal[min(len(wanted), K) - 1] if len(wanted) else 0.0
    return found


def share_of(text: str) -> float:
    """A budget as people write it: `1%`, `0.5 %` or `0.01`, as a share in [0, 1].

    Raises:
        InputError: it is none.
    """
    words = text.strip()
    try:
        share = float(words.rstrip("% ")) / (100 if words.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--budget {text!r} is no share of the quality. Give one such as 1% or 0.01, between 0 and 100%.")
    return share
