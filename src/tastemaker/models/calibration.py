"""From a score to a probability that means what it says. NumPy only: it answers live; `training.calibration` fits it."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray

TILT = 1e-6
"""Slope kept where an isotonic step is flat, so that an order is never lost to a tie."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """A growing function of logits.

    Attributes:
        kind: `platt`: sigmoid(slope · logit + offset) (J. Platt, 1999); `isotonic`: straight lines through `logits` and `chances` (B. Zadrozny and
            C. Elkan, 2002); `none`: the plain sigmoid.
    """

    kind: str = "none"
    slope: float = 1.0
    offset: float = 0.0
    logits: list[float] = []
    chances: list[float] = []

    def apply(self, logits: FloatArray) -> FloatArray:
        """Probabilities in [0, 1], float32 of the same shape."""
        exact = logits.astype(np.float64)
        if self.kind == "platt":
            return sigmoid(self.slope * exact + self.offset).astype(np.float32)
        plain = sigmoid(exact)
        if self.kind == "isotonic":
            found = np.interp(logits, self.logits, self.chances)
            return (found * (1 - TILT) + TILT * plain).astype(np.float32)
        return plain.astype(np.float32)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), of whatever size x is."""
    found: NDArray[np.float64] = 0.5 * logits
    np.tanh(found, out=found)
    found += 1
    found *= 0.5
    return found
