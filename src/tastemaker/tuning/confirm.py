"""Judges the chosen settings once on the latest events, which the search never saw: the best of many trials was also lucky on the folds that chose it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tastemaker.evaluation.significance import paired
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.reports import Interval
from tastemaker.schema.settings import Settings
from tastemaker.tuning.choice import Choice
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.space import with_changes
from tastemaker.tuning.trials import Trial
from tastemaker.tuning.workers import Workers


@dataclass(frozen=True)
class Confirmation:
    """How the chosen trial did beside trial 0 on events that chose nothing.

    Attributes:
        default, chosen: mean NDCG@10 of both.
        gain: paired, with its 95 % interval; p: two-sided, that there is none.
        words: the events, in plain words.
    """

    default: float
    chosen: float
    gain: Interval
    p: float
    words: str

    @property
    def holds(self) -> bool:
        """Whether the choice is at least as good there as the settings as they were."""
        return self.gain.mean >= 0


def confirm(
    folder: Path, workers: Workers, base: Settings, choice: Choice, fold: Fold, number: int, resamples: int
) -> Confirmation | None:
    """Fits both settings on all that came before the last fold; what is judged is kept in the folder, so that a second call asks nothing anew.

    Args:
        folder: of the search. workers: judge. base: settings of trial 0.
        fold: the events put aside; number: what the objective calls it.
        resamples: of the interval.

    Returns:
        None where the settings stay anyway.
    """
    if choice.chosen.number == choice.default.number:
        return None
    before, after = (_gains(folder, workers, base, trial, number) for trial in (choice.default, choice.chosen))
    users = np.unique(fold.users, return_inverse=True)[1].astype(np.int64)
    gain, p = paired(after.astype(np.float64), before.astype(np.float64), resamples, 0, users)
    return Confirmation(float(before.mean()), float(after.mean()), gain, p, fold.words)


def _gains(folder: Path, workers: Workers, base: Settings, trial: Trial, number: int) -> FloatArray:
    path = folder / "trials" / f"{trial.number:05d}-confirmed.npy"
    if not path.is_file():
        found = workers.submit(with_changes(base, trial.changes), number).result()
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, found.gains, allow_pickle=False)
        partial.replace(path)
    kept: FloatArray = np.load(path, allow_pickle=False)
    return kept
