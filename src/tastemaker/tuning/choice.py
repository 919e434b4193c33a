"""Which trial is taken: the simplest of those that chance alone could have put behind the best one.

The one-standard-error rule (L. Breiman et al., 1984, "Classification and Regression Trees", 3.4.3), with the error of the paired difference in place of that of the
best one's mean: all trials answer the same questions, so what makes a question hard cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tastemaker.evaluation.significance import paired
from tastemaker.schema.errors import SettingsError, TastemakerError
from tastemaker.schema.reports import Interval
from tastemaker.schema.settings import TuneSettings
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.trials import COMPLETE, Trial, gap_of

ALIKE = 0.05
"""Costs that differ by less than this share are alike: four thousand parameters in two million buy nothing."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        chosen, best, default: the trial taken, the one with the best mean, and trial 0.
        alike: numbers of the trials within one standard error of the best.
        gain: NDCG@10 of the chosen one over trial 0, paired, with its 95 % interval; p: two-sided, that there is none.
        words: the reason in plain words.
    """

    chosen: Trial
    best: Trial
    default: Trial
    alike: list[int]
    gain: Interval
    p: float
    words: str


def choose(
    trials: Sequence[Trial],
    folds: Sequence[Fold],
    settings: TuneSettings,
    among: Sequence[int] | None = None,
    resamples: int = 1_000,
) -> Choice:
    """Chooses among the finished trials.

    Args:
        trials: all trials, trial 0 first. folds: what judged them.
        settings: `rule` and `cost` are read.
        among: numbers that may be chosen, such as a Pareto set; None: all.
        resamples: of the interval of the gain.

    Raises:
        SettingsError: an unknown rule or cost. TastemakerError: trial 0 is not finished.
    """
    if settings.rule not in ("paired", "folds", "best"):
        raise SettingsError(f"tune.rule is {settings.rule!r}; expected paired, folds or best.")
    if settings.cost not in ("size", "latency"):
        raise SettingsError(f"tune.cost is {settings.cost!r}; expected size or latency.")
    finished = [trial for trial in trials if trial.state == COMPLETE]
    default = next((trial for trial in finished if trial.number == 0), None)
    if default is None:
        raise TastemakerError(
            "Trial 0, the settings as they are, is not finished yet, so there is nothing to compare with. Search on."
        )
    allowed = [trial for trial in finished if among is None or trial.number in among] or [default]
    best = max(allowed, key=lambda trial: (trial.quality, -trial.number))
    alike = [trial for trial in allowed if _is_alike(trial, best, folds, settings.rule)]
    least = min(trial.objective(settings.cost) for trial in alike)
    cheap = [trial for trial in alike if trial.objective(settings.cost) <= (1 + ALIKE) * least]
    # where nothing else tells them apart a change must earn its place, then quality decides
    chosen = next((trial for trial in cheap if trial.number == 0), None) or max(cheap, key=lambda one: (one.quality, -one.number))
    users = np.unique(np.concatenate([fold.users for fold in folds]), return_inverse=True)[1].astype(np.int64)
    gain, p = paired(chosen.every(), default.every(), resamples, 0, users)
    return Choice(
        chosen, best, default, [trial.number for trial in alike], gain, p, _words(chosen, best, len(alike), len(allowed), settings)
    )


def _is_alike(trial: Trial, best: Trial, folds: Sequence[Fold], rule: str) -> bool:
    if trial.number == best.number:
        return True
    if rule == "best":
        return False
    if rule == "folds":
        means = np.array([one.mean() for one in best.gains], dtype=np.float64)
        error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
        return best.quality - trial.quality <= error
    gap, error = gap_of(best, trial, folds)
    return gap <= error


def _words(chosen: Trial, best: Trial, alike: int, finished: int, settings: TuneSettings) -> str:
    what = "parameters" if settings.cost == "size" else "milliseconds an answer"
    words = f"Trial {best.number} has the best mean NDCG@10 of {finished} ({best.quality:.4f})."
    if settings.rule == "best":
        return f"{words} It is taken, as tune.rule=best asks."
    error = "of the paired differences between users" if settings.rule == "paired" else "of the means of its folds"
    words += f" {alike} of them lie within one standard error ({error}), so chance alone could have put them behind."
    if chosen.number == 0:
        return f"{words} The settings as they are (trial 0) are among them and none of them is markedly cheaper: they stay."
    if chosen.number == best.number:
        return f"{words} None of them has markedly fewer {what}: it is taken."
    cost = chosen.objective(settings.cost)
    return f"{words} Trial {chosen.number} ({chosen.quality:.4f}) is the simplest of them ({cost:,.6g} {what}, {best.objective(settings.cost):,.6g} for the best): it is taken."
