"""Fits what turns a head's logits into chances, on rows that the head has not learned from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.models.calibration import Calibration, sigmoid
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray

KINDS = ("auto", "isotonic", "platt", "none")
ENOUGH = 200
"""Positive rows from which on `auto` takes the isotonic regression; fewer would make steps of chance."""


def fit_calibration(logits: FloatArray, label: FloatArray, kind: str = "auto") -> Calibration:
    """The calibration of one head.

    Args:
        logits, label: of rows, [R]. kind: one of `KINDS`.

    Raises:
        SettingsError: an unknown kind.
    """
    if kind not in KINDS:
        raise SettingsError(f"ranker.calibration is {kind!r}; expected {', '.join(KINDS)}.")
    positive = int((label > 0).sum())
    if kind == "none" or positive in (0, len(label)):
        return Calibration()
    if kind == "platt" or (kind == "auto" and positive < ENOUGH):
        return _platt(logits.astype(np.float64), label > 0)
    return _isotonic(logits.astype(np.float64), label > 0)


def _platt(logits: NDArray[np.float64], label: NDArray[np.bool_]) -> Calibration:
    """Slope and offset of the greatest likelihood; the slope stays positive, so that no order is turned."""
    from sklearn.linear_model import LogisticRegression

    scale = float(logits.std()) or 1.0
    model = LogisticRegression(C=1e3).fit((logits / scale)[:, None], label)
    slope = float(model.coef_[0, 0]) / scale
    if slope <= 0:  # the head says nothing on these rows: the mean is all that is known
        share = label.mean()
        return Calibration(kind="platt", slope=1e-3, offset=float(np.log(share / (1 - share)) - 1e-3 * logits.mean()))
    offset = float(model.intercept_[0])
    for _ in range(20):  # the regularised fit may miss the mean by a little
        chances = sigmoid(slope * logits + offset)
        offset -= float((chances.mean() - label.mean()) / max(float((chances * (1 - chances)).mean()), 1e-9))
    return Calibration(kind="platt", slope=slope, offset=offset)


def _isotonic(logits: NDArray[np.float64], label: NDArray[np.bool_]) -> Calibration:
    """Lines between the middles of the steps, so that only what lies beyond the outer ones is flat."""
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=0.0, y_max=1.0).fit(logits, label)
    order = np.argsort(logits, kind="stable")
    chances, at = found.predict(logits[order]), logits[order]
    steps, begin, count = np.unique(chances, return_index=True, return_counts=True)
    middle = np.array([at[first : first + size].mean() for first, size in zip(begin, count, strict=True)])
    return Calibration(kind="isotonic", logits=middle.tolist(), chances=steps.tolist())
