"""Objectives whose best settings the eye can see: no training, the same numbers each time."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.objective import FoldScore

BEST_DROPOUT, BEST_RATE = 0.2, 1e-3
SPACE = "tune.space=sequence.dropout=0.0..0.9,sequence.learning_rate=1e-4..1e-2 log"


def make_folds(count: int = 3, questions: int = 120) -> list[Fold]:
    """Every two questions are one user's."""
    place = np.arange(questions)
    return [Fold(np.ones(1, dtype=bool), place, place // 2, f"fold {number}") for number in range(count)]


@dataclass
class Hill:
    """Quality falls with the distance from the planted best values; questions are noisy, the same noise for every trial.

    Attributes:
        calls: a folder; every judged fold leaves a file there.
        seconds: a fold takes.
    """

    folds: list[Fold] = field(default_factory=make_folds)
    calls: Path | None = None
    seconds: float = 0.0

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None) -> FoldScore:
        time.sleep(self.seconds)
        chosen, size = settings.sequence, len(self.folds[fold].asked)
        far = ((chosen.dropout - BEST_DROPOUT) / 0.3) ** 2 + (np.log10(chosen.learning_rate / BEST_RATE) / 0.7) ** 2
        noise = np.random.default_rng(fold).random(size) * 0.4
        if self.calls is not None:
            name = f"{chosen.dropout:.6f}-{chosen.learning_rate:.8f}-{fold}-{os.getpid()}-{time.monotonic_ns()}"
            (self.calls / name).touch()
        if chosen.dropout > 0.85:
            raise ValueError("too much dropout")
        return FoldScore((noise + 0.5 * np.exp(-far)).astype(np.float32), 1_000 * chosen.dim, 1.0, self.seconds)


def search(folder: Path, trials: int, seconds: float = 0.0, calls: Path | None = None, *more: str) -> None:
    """A whole search of the hill; what the killed process runs."""
    from tastemaker.tuning._optuna import Search
    from tastemaker.tuning.space import space_of
    from tastemaker.tuning.workers import Here

    settings = load_settings(None, [SPACE, *more], {})
    hill = Hill(calls=calls, seconds=seconds)
    Search(folder, settings, space_of(settings), hill.folds).run(Here(hill), trials)


if __name__ == "__main__":
    search(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:])
