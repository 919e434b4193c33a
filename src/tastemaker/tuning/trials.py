"""What is known of each trial, and how sure a difference between two of them is. It knows figures, and no search library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.space import Value

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"


@dataclass(frozen=True)
class Trial:
    """One setting and how it did.

    Attributes:
        number: place in the search; 0 are the settings as they were.
        changes: `section.key` to the value that was tried, for the dials.
        state: `complete`, `pruned`, `failed` or `running`.
        gains: NDCG@10 of the questions of each fold that was judged, float32 [Q] each.
        facts: figures of each of these folds.
        error: why it failed.
    """

    number: int
    changes: dict[str, Value]
    state: str
    gains: list[FloatArray] = field(default_factory=list)
    facts: list[dict[str, float]] = field(default_factory=list)
    error: str = ""

    @property
    def quality(self) -> float:
        """Mean NDCG@10 over all questions that were asked; 0 without any."""
        return float(np.mean(self.every())) if self.gains else 0.0

    @property
    def size(self) -> float:
        """Learned numbers."""
        return self._median("parameters")

    @property
    def latency(self) -> float:
        """Milliseconds of CPU for one answer."""
        return self._median("latency")

    @property
    def seconds(self) -> float:
        """Of all its folds."""
        return sum(one["seconds"] for one in self.facts)

    def every(self) -> NDArray[np.float64]:
        """The gains of all questions, fold behind fold."""
        return np.concatenate(self.gains).astype(np.float64) if self.gains else np.zeros(0)

    def objective(self, name: str) -> float:
        """`quality`, `latency` or `size`."""
        return {"quality": self.quality, "latency": self.latency, "size": self.size}[name]

    def record(self) -> dict[str, Any]:
        """For the JSON report."""
        return {
            "trial": self.number,
            "state": self.state,
            "changes": self.changes,
            "quality": self.quality if self.gains else None,
            "folds": [float(one.mean()) for one in self.gains],
            "parameters": self.size,
            "latency_ms": self.latency,
            "seconds": self.seconds,
            "error": self.error,
        }

    def _median(self, name: str) -> float:
        return float(np.median([one[name] for one in self.facts])) if self.facts else 0.0


def gap_of(ours: Trial, theirs: Trial, folds: Sequence[Fold]) -> tuple[float, float]:
    """Mean difference in NDCG@10 over the folds that both were judged by, and its standard error.

    Questions are paired, and those of one user stand together: error² = U / (U - 1) · Σ (sum of u's differences - mean · questions of u)² / Q²,
    the linearised error of a ratio of sums over U users (W. Cochran, 1977, "Sampling Techniques", 6.4 and 9A).
    """
    both = min(len(ours.gains), len(theirs.gains))
    if not both:
        return 0.0, 0.0
    gap = (np.concatenate(ours.gains[:both]) - np.concatenate(theirs.gains[:both])).astype(np.float64)
    users = np.unique(np.concatenate([fold.users for fold in folds[:both]]), return_inverse=True)[1]
    return float(gap.mean()), clustered_error(gap, users)


def clustered_error(values: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """Standard error of the mean of values [Q] whose users are `users`, int [Q], numbered from 0; 0 for a single user."""
    count = np.bincount(users).astype(np.float64)
    if len(count) < 2:
        return 0.0
    off = np.bincount(users, weights=values) - values.mean() * count
    return float(np.sqrt(len(count) / (len(count) - 1) * (off**2).sum()) / len(values))
