"""Do probabilities mean what they say: the calibration ratio, the reliability of bins, and how well they tell apart."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]
BINS = 10


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """How the chances of one head compare with what happened.

    Attributes:
        rows, positives: counted.
        ratio: sum of the chances over the number of positives; 1 is right.
        auc: chance that a positive row stands above another; 0.5 is blind. loss: mean binary cross-entropy, nats; base: of the constant chance.
        said, happened, size: of equally filled bins, the lowest chances first: mean chance, share of positives, rows.
    """

    rows: int
    positives: int
    ratio: float
    auc: float
    loss: float
    base: float
    said: list[float]
    happened: list[float]
    size: list[int]


def reliability(chances: Values, label: Values, bins: int = BINS) -> Reliability:
    """The figures of one head's rows, [R]."""
    positive, rows = int((label > 0).sum()), len(label)
    said, happened, size = [], [], []
    for part in np.array_split(np.argsort(chances, kind="stable"), min(bins, max(rows, 1))):
        if len(part):
            said.append(float(chances[part].mean()))
            happened.append(float((label[part] > 0).mean()))
            size.append(len(part))
    share = positive / max(rows, 1)
    return Reliability(
        rows=rows, positives=positive, ratio=float(chances.sum(dtype=np.float64)) / positive if positive else float("nan"), auc=auc(chances, label),
        loss=log_loss(chances, label), base=log_loss(np.full(rows, share), label), said=said, happened=happened, size=size,
    )  # fmt: skip


def auc(scores: Values, label: Values) -> float:
    """Area under the ROC curve, ties counting half (F. Wilcoxon, 1945); NaN where all labels are alike."""
    positive = label > 0
    one, other = int(positive.sum()), int((~positive).sum())
    if not one or not other:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank[positive].sum() - one * (one + 1) / 2) / (one * other))


def log_loss(chances: Values, label: Values) -> float:
    """Mean binary cross-entropy, nats."""
    if not len(label):
        return float("nan")
    p = np.clip(chances.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.where(label > 0, np.log(p), np.log(1 - p)).mean())
