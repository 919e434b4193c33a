"""Ends a trial inside a fold, after an epoch whose validation shows that it is far behind. It knows curves, not models.

The percentile stopping rule (D. Golovin et al., 2017, "Google Vizier", 3.2.2: the median rule, here with the lower quartile) with patience. It is careful, as
the sequence model's validation is a poor guide to the whole answer in some searches: it acts only in a search whose own trials show that the two agree.
What it needs travels as plain numbers, so that it rules alike in this process, in another one and on a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from tastemaker.schema.errors import TastemakerError

QUANTILE = 0.25
PATIENCE = 2
"""Epochs in a row that a trial must be behind."""
EARLIEST = 0.25
"""Share of the schedule in which nothing ends."""
LEAST = 6
"""Judged trials from which on the rule acts, if it does."""
AGREES = 0.7
"""Rank correlation of the best validation with what judges the trials, from which on the one stands for the other."""


@dataclass(frozen=True)
class Curve:
    """Validation of one training.

    Attributes:
        scores: one an epoch, as far as it went. planned: epochs of its schedule.
    """

    scores: list[float]
    planned: int

    def best_by(self, share: float) -> float | None:
        """The best score within a share of the schedule; None where no epoch was over by then. One that stopped early keeps its best."""
        done = int(share * self.planned + 1e-9)
        return max(self.scores[:done]) if done and self.scores else None


class OutrunError(TastemakerError):
    """A trial ended inside a fold, far behind the earlier ones."""

    def __init__(self, scores: list[float], planned: int) -> None:
        super().__init__(scores, planned)
        self.curve = Curve(scores, planned)

    def __str__(self) -> str:
        ended = len(self.curve.scores)
        return f"ended after epoch {ended} of {self.curve.planned}, its validation in the lowest quarter of the earlier trials'"


@dataclass
class Race:
    """Called after each epoch of one training as race(epoch, planned, score).

    Attributes:
        rivals: curves of earlier trials in the same fold; without any nothing ends.
        scores: of this training so far. planned: epochs of its schedule.
        behind: epochs in a row that it was behind.
    """

    rivals: Sequence[Curve] = ()
    scores: list[float] = field(default_factory=list)
    planned: int = 0
    behind: int = 0

    def __call__(self, epoch: int, planned: int, score: float) -> None:
        """Keeps the score.

        Raises:
            OutrunError: the best score so far is in the lowest quarter, and was before.
        """
        self.scores.append(score)
        self.planned = planned
        known = [best for rival in self.rivals if (best := rival.best_by(epoch / planned)) is not None]
        bound = float(np.quantile(known, QUANTILE)) if known else -np.inf
        self.behind = self.behind + 1 if max(self.scores) < bound else 0
        if self.behind >= PATIENCE and EARLIEST * planned < epoch < planned:
            raise OutrunError(self.scores, planned)


def agree(bests: Sequence[float], judged: Sequence[float]) -> bool:
    """Whether trials stand in one order by their best validation and by what judges them, and whether there are enough to tell."""
    if len(bests) < LEAST or len(set(bests)) < 2 or len(set(judged)) < 2:
        return False
    return float(spearmanr(bests, judged).statistic) >= AGREES
