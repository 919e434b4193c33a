"""The promise: how much of the quality may be given away, and whether a step kept to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.compression.step import Answering
from tastemaker.evaluation.significance import Groups, interval
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import Asker, FloatArray, IntArray
from tastemaker.schema.reports import Interval

K = 10
EARLY, LAST = 0.999, 0.95
FEWEST = 1_000
"""Questions below which is not looked before all are asked."""
AUC_QUESTIONS, OTHERS = 500, 50
"""Questions by which AUC is judged (its interval is ten times as narrow as that of the NDCG), and items that each target is compared with."""


class Verdict(msgspec.Struct, frozen=True):
    """What a step cost.

    Attributes:
        before: mean NDCG@10 of the uncompressed bundle on the questions asked.
        change: paired difference to it, with its 95 % interval.
        allowed: how much may be lost, in NDCG@10.
        accepted: the lower end of the interval is no worse than the allowed loss.
        overlap: share of the ten places that show the same items as before, in [0, 1].
        asked: questions.
        words: the sentence for people.
        auc: of the uncompressed bundle: how often an item that came next is thought likelier than one that did not. None: it was not judged.
        auc_change: paired difference to it, with its 95 % interval.
    """

    before: float
    change: Interval
    allowed: float
    accepted: bool
    overlap: float
    asked: int
    words: str
    auc: float | None = None
    auc_change: Interval | None = None

    @property
    def share(self) -> float:
        """The change as a share of what it was."""
        return self.change.mean / self.before if self.before else 0.0


@dataclass(frozen=True)
class Questions:
    """Held-back events as questions.

    Attributes:
        histories: item indices, oldest first.
        targets: item indices that came next, one array a question.
        users: the user of each question, as a number; intervals resample users.
        words: the protocol in plain words.
        catalogue: items that there are, of which some that did not come next are drawn; 0: AUC is not judged.
        askers: who asks, and when, so that declared features are told; None: nobody knows.
    """

    histories: Sequence[IntArray]
    targets: Sequence[IntArray]
    users: Groups
    words: str = ""
    catalogue: int = 0
    askers: Sequence[Asker] | None = None

    def __len__(self) -> int:
        return len(self.histories)


class Budget:
    """Compares bundles with the uncompressed one, question by question.

    A quarter and a half of the questions are looked at first; only what is very sure there (99.9 %, after J. Haybittle and R. Peto) ends the asking, so that
    the last look may be taken at its 95 %.

    Args:
        share: of the uncompressed bundle's NDCG@10 that may be lost, in [0, 1].
        questions: what is asked, in an order of chance.
        before: the uncompressed bundle.
        resamples: of the bootstrap.
    """

    def __init__(self, share: float, questions: Questions, before: Answering, resamples: int = 1_000) -> None:
        self.share, self.questions, self.resamples = share, questions, resamples
        self._answers, self._before = before, list[IntArray]()
        self._pools = _Pools(questions)
        self._auc: NDArray[np.float64] | None = None

    def judge(self, answers: Answering) -> Verdict:
        """What another bundle costs: in its lists, and where these are good enough, in the chances that it tells."""
        verdict = self._by_lists(answers)
        if not verdict.accepted or not len(self._pools.rows):
            return verdict
        if self._auc is None:
            self._auc = self._pools.auc(self._answers)
        change = interval(self._pools.auc(answers) - self._auc, self.resamples, 0, self.questions.users[self._pools.rows])
        before, words = (
            float(self._auc.mean()),
            f"{verdict.words}; AUC by {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]",
        )
        allowed = self.share * before
        return msgspec.structs.replace(
            verdict, accepted=change.low >= -allowed, words=f"{words}, {-allowed:+.4f} is allowed", auc=before, auc_change=change
        )

    def _by_lists(self, answers: Answering) -> Verdict:
        lists: list[IntArray] = []
        for count in _looks(len(self.questions)):
            lists += self._lists(answers, len(lists), count)
            if len(self._before) < count:
                self._before += self._lists(self._answers, len(self._before), count)
            last = count == len(self.questions)
            verdict = self._compared(lists, LAST if last else EARLY)
            surely_worse = verdict.change.high < -verdict.allowed
            if last or verdict.accepted or surely_worse:
                return verdict if last else self._compared(lists, LAST, verdict.accepted)
        return self._compared([], LAST)

    def _lists(self, answers: Answering, begin: int, end: int) -> list[IntArray]:
        asked = self.questions
        return answers.lists(asked.histories[begin:end], K, None if asked.askers is None else asked.askers[begin:end])

    def _compared(self, lists: Sequence[IntArray], level: float, accepted: bool | None = None) -> Verdict:
        count = len(lists)
        targets, before = self.questions.targets[:count], self._before[:count]
        found, was = gains(lists, targets), gains(before, targets)
        quality = float(was.mean()) if count else 0.0
        change = interval(found - was, self.resamples, 0, self.questions.users[:count], level)
        allowed = self.share * quality
        shared = [
            len(np.intersect1d(one[:K], other[:K])) / max(len(other[:K]), 1) for one, other in zip(lists, before, strict=True)
        ]
        words = f"NDCG@10 changes by {change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}] on {count:,} questions, {-allowed:+.4f} is allowed"
        kept = change.low >= -allowed if accepted is None else accepted
        return Verdict(quality, change, allowed, kept, float(np.mean(shared)) if shared else 1.0, count, words)


class _Pools:
    """For some questions: the items that came next, and items drawn from the catalogue that neither came next nor were met before; the same for every bundle."""

    def __init__(self, questions: Questions) -> None:
        self._items, self._wanted, rows = list[IntArray](), list[NDArray[np.bool_]](), list[int]()
        random = np.random.default_rng(0)
        for row in range(len(questions) if questions.catalogue else 0):
            history, targets = questions.histories[row], questions.targets[row]
            targets = np.unique(targets[(targets >= 0) & (targets < questions.catalogue)])
            drawn = np.unique(random.integers(0, questions.catalogue, OTHERS))
            others = np.setdiff1d(drawn, np.concatenate([targets, history]))
            if len(targets) and len(others):
                rows.append(row)
                self._items.append(np.concatenate([targets, others]).astype(np.int32))
                self._wanted.append(np.arange(len(self._items[-1])) < len(targets))
            if len(rows) == AUC_QUESTIONS:
                break
        self.rows = np.array(rows, dtype=np.int64)
        self._histories = [questions.histories[row] for row in rows]
        self._askers = None if questions.askers is None else [questions.askers[row] for row in rows]

    def auc(self, answers: Answering) -> NDArray[np.float64]:
        """AUC of each question, float64 [Q]."""
        told = answers.chances(self._histories, self._items, self._askers)
        return np.array([auc(chances, wanted) for chances, wanted in zip(told, self._wanted, strict=True)])


def auc(chances: FloatArray, wanted: NDArray[np.bool_]) -> float:
    """Share of the pairs of a wanted and another item in which the wanted one has the larger chance, ties by half; a number that is none is the smallest."""
    chances = np.where(np.isfinite(chances), chances, -np.inf)
    one, other = chances[wanted][:, None], chances[~wanted][None, :]
    return float(((one > other) + 0.5 * (one == other)).mean())


def _looks(total: int) -> list[int]:
    """After how many questions is looked."""
    return sorted({max(total // 4, min(total, FEWEST)), max(total // 2, min(total, FEWEST)), total})


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
