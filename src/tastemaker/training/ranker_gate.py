"""Whether the ranker may order: its lists beside those of the fusion on questions that it has not learned from, and how well its chances hold there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation.calibration import Reliability, reliability
from tastemaker.evaluation.significance import paired
from tastemaker.models.calibration import Calibration
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.reports import Interval
from tastemaker.training.calibration import fit_calibration
from tastemaker.training.ranker_fit import Examples
from tastemaker.training.ranker_rows import RankerRows

CUTOFF = 10
RESAMPLES = 1_000
SURE = 0.05
"""The ranker orders where no more than this share of the resampled gains over the fusion lies below 0."""


@dataclass(frozen=True)
class Gate:
    """The order of the ranker beside that of the fusion, NDCG@10 on questions that it has not learned from.

    Where there are questions of `hold_out_later` they judge, and the last events of users only must not be ordered worse: what holds only where channels
    know nothing of the time of a question, or only where they do, is no gain to rely on.

    Attributes:
        fusion, ranker: means. gain: of the ranker, with its interval, users resampled. p: that there is no difference.
        new: gain on targets that no channel has learned from; 0 where there was none (the holdout's pretended-new items are not asked for).
        questions: judged. passed: the ranker orders.
        last: mean gain on the last events of `last_questions` more; 0 where these are what judges.
    """

    fusion: float
    ranker: float
    gain: Interval
    p: float
    new: float
    questions: int
    passed: bool
    last: float = 0.0
    last_questions: int = 0


def judge_order(
    rows: RankerRows, examples: Examples, first: FloatArray, questions: NDArray[np.int64], last: NDArray[np.int64], mode: str
) -> Gate:
    """NDCG@10 of the order by `first`, float32 [R], beside that of the fusion, on questions that it has not learned from, and on the `last` ones."""
    (ours, theirs), others = (
        [gains(score, examples.begin, examples.target, some) for score in (first, rows.scores)] for some in (questions, last)
    )
    of_last = float((others[0] - others[1]).mean()) if len(last) else 0.0
    users = rows.asked[Columns.USER_ID].to_numpy()[rows.begin[questions]]
    groups = np.unique(users, return_inverse=True)[1].astype(np.int64)
    gain, p = paired(ours, theirs, RESAMPLES, 0, groups)
    sure = _share_below(ours - theirs, groups) <= SURE and of_last >= 0
    there = examples.target[questions] >= 0
    new = np.zeros(len(questions), dtype=bool)
    new[there] = rows.new[rows.begin[questions[there]] + examples.target[questions[there]]]
    of_new = float((ours - theirs)[new].mean()) if new.any() else 0.0
    passed = mode == "always" or (mode == "auto" and sure)
    return Gate(float(theirs.mean()), float(ours.mean()), gain, p, of_new, len(questions), passed, of_last, len(last))


def gains(
    scores: FloatArray, begin: NDArray[np.int64], target: NDArray[np.int64], questions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """NDCG@10 of each question's only answer when its rows are ordered by scores [R]; 0 where it is not among them.

    Args:
        begin, target: as in `Examples`. questions: which ones.
    """
    found = np.zeros(len(questions))
    for row, question in enumerate(questions.tolist()):
        place = int(target[question])
        if place >= 0:
            mine = scores[begin[question] : begin[question + 1]]
            rank = int((mine > mine[place]).sum())
            found[row] = 1 / np.log2(rank + 2.0) if rank < CUTOFF else 0.0
    return found


def calibrated(
    rows: RankerRows, examples: Examples, logits: FloatArray, judge: NDArray[np.int64], kind: str
) -> tuple[tuple[Calibration, ...], dict[str, Reliability], dict[str, float]]:
    """Calibrations fitted on all judged questions, which are of a time that was not learned from; how well they hold; and how well over time.

    The figures are of chances by calibrations of the other half of the users, so that nobody is told by a calibration that has seen him. The ratios
    over time are of calibrations of the earlier half of the questions, on the later half: they tell drift, which no calibration can know.
    """
    inside = np.isin(rows.owner, judge)
    users = np.unique(rows.asked[Columns.USER_ID].to_numpy()[inside], return_inverse=True)[1]
    half = (np.random.default_rng(0).permutation(users.max(initial=0) + 1) % 2)[users]
    early = np.isin(rows.owner[inside], judge[: len(judge) // 2])
    calibrations, figures, forward = [], {}, {}
    for place, head in enumerate(examples.heads):
        mine, label = logits[inside, place + 1], examples.labels[inside, place]
        told = np.empty(len(mine), dtype=np.float32)
        for part in (half == 0, half == 1):
            told[part] = fit_calibration(mine[~part], label[~part], kind).apply(mine[part])
        figures[head] = reliability(told, label)
        forward[head] = reliability(fit_calibration(mine[early], label[early], kind).apply(mine[~early]), label[~early]).ratio
        calibrations.append(fit_calibration(mine, label, kind))
    return tuple(calibrations), figures, forward


def _share_below(gap: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Share of the resampled mean gains that are not above 0, users resampled."""
    random, sums, counts = np.random.default_rng(0), np.bincount(groups, gap), np.bincount(groups)
    means = []
    for _ in range(RESAMPLES):
        some = random.integers(0, len(sums), len(sums))
        means.append(sums[some].sum() / counts[some].sum())
    return float((np.array(means) <= 0).mean())


def sentence_of(gate: Gate, mode: str) -> str:
    """Who orders, and why."""
    gain = f"NDCG@10 {gate.ranker:.4f} against {gate.fusion:.4f} of the fusion on {gate.questions:,} later questions (gain {gate.gain.low:+.4f} to {gate.gain.high:+.4f})"
    if gate.last_questions:
        gain += f" and {gate.last:+.4f} on the last events of users ({gate.last_questions:,})"
    if mode == "always":
        return f"The ranker orders, as ranker.mode is always: {gain}."
    if mode == "chances":
        return f"The fusion orders, as ranker.mode is chances: {gain}."
    return (
        f"The ranker orders: {gain}."
        if gate.passed
        else f"The fusion orders, the ranker only tells chances: {gain} is no sure gain."
    )
