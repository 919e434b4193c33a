"""What a trial is judged by: NDCG@10 of one fold, question by question, from the whole catalogue, seen items left out.

`whole` goes the road of `training.fit` to its end: some of the fold's events and a tenth of its items are held back, the sequence model learns from the others and
stops where it is best, the fusion learns how far to trust each channel, then the sequence model learns anew from all of the fold's events. `fused` leaves
out this refit, about half of the time, and `sequence` the fusion too. Both are cheaper, and both judge a model that has not met the items and events that were
held back: gaps between settings look larger than they are after a refit. What each would have said is among the facts of a fold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import Settings
from tastemaker.tuning.folds import Fold, make_folds


@dataclass(frozen=True)
class FoldScore:
    """How one setting did in one fold.

    Attributes:
        gains: NDCG@10 of each question in the order of the fold, float32 [Q]; one target a question, so 1 / log2(place + 1).
        parameters: learned numbers of the sequence model.
        latency: milliseconds of CPU for one answer on one thread, median.
        seconds: of the whole fold.
        facts: other figures worth keeping.
    """

    gains: FloatArray
    parameters: int
    latency: float
    seconds: float
    facts: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Judges settings fold by fold. It travels to other processes, so it holds plain data."""

    @property
    def folds(self) -> Sequence[Fold]:
        """The cuts; `users` of each tell whose question is whose."""

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None) -> FoldScore:
        """The score of one fold."""


@dataclass(frozen=True)
class FitObjective:
    """Trains and judges on a log.

    Attributes:
        sequences: the whole log, packed once; every fold is a mask over it.
        text: whitened text vectors of all items, read once for all trials, float32 [N, T].
        folds: the cuts.
        time_is_order: as `Dataset.time_is_order`.
        last: a later cut that no trial is judged by; its number is that behind the folds'. None: there is none.
    """

    sequences: Sequences
    text: FloatArray
    folds: list[Fold]
    time_is_order: bool
    last: Fold | None = None

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None) -> FoldScore:
        """Learns from a fold's events with these settings and answers its questions.

        Each fold has a seed of its own, the same for all trials: their differences are then of the settings, and no seed decides alone.

        Raises:
            DivergedError: the model holds numbers that are none.
        """
        from tastemaker.training.checkpoints import count_parameters
        from tastemaker.training.fit import COLD_SHARE
        from tastemaker.training.holdout import hold_out
        from tastemaker.training.sequence import VALIDATION_ROWS, Validation, train_sequence
        from tastemaker.tuning.answer import FusedAnswer, SequenceAnswer, answer_time

        began, cut = time.perf_counter(), [*self.folds, self.last][fold]
        assert cut is not None
        settings = _with_seed(settings, settings.train.seed + fold)
        train = self.sequences.keep(cut.train)
        held = hold_out(train, COLD_SHARE, settings.train.seed)
        rows = held.warm_rows(VALIDATION_ROWS, settings.train.seed)
        validation = Validation([held.histories[row] for row in rows], held.targets[rows])
        model, result = train_sequence(held.train, self.text, settings, validation, None, "this fold", progress)
        histories, targets = cut.histories(self.sequences), cut.targets(self.sequences)
        alone = SequenceAnswer(model).checked()
        answer: SequenceAnswer | FusedAnswer = alone
        gains = alone.gains(histories, targets)
        facts = {"sequence": float(gains.mean()), "best_epoch": float(result.best_epoch)}
        if settings.tune.judge != "sequence":
            answer = fused = FusedAnswer.learned(alone, held, train, self.text, self.time_is_order, settings)
            gains = answer.gains(histories, targets)
            facts |= {"fused": float(gains.mean()), "seconds_fused": time.perf_counter() - began}
            if settings.tune.judge == "whole":
                model, _ = train_sequence(train, self.text, settings, None, result.best_epoch, "this fold", progress)
                answer = fused.refitted(model, train, self.text, self.time_is_order, settings)
                gains = answer.gains(histories, targets)
        latency = answer_time(answer, histories)
        return FoldScore(gains, count_parameters(model), latency, time.perf_counter() - began, facts)


def make_objective(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None, progress: Progress | None = None, aside: bool = False
) -> FitObjective:
    """Packs the log, cuts the folds and reads the texts, once for all trials.

    Args:
        dataset, settings, cache_dir, progress: as those of `training.fit.fit`.
        aside: one cut more, the latest, is kept out of the search, to confirm its choice by.

    Raises:
        InputError: no event, or too few for the folds.
    """
    from tastemaker.training.reading import read_texts

    if dataset.events.height == 0:
        raise InputError("There is no event to learn from. Import some first; see `tastemaker import`.")
    sequences, order, tune = build(dataset), dataset.time_is_order, settings.tune
    folds = make_folds(sequences, order, tune.folds + aside, tune.fold_share, tune.questions, settings.train.seed)
    text = read_texts(
        dataset.catalogue(), settings, cache_dir, progress
    ).vectors  # not tuned: a fold's held-back events would teach it
    return FitObjective(sequences, text, folds[: tune.folds], order, folds[-1] if aside else None)


def questions_of(folds: Sequence[Fold]) -> NDArray[np.int64]:
    """Whose each question is, all folds one behind the other, int64 [Q]."""
    return np.concatenate([fold.users for fold in folds])


def _with_seed(settings: Settings, seed: int) -> Settings:
    return msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, seed=seed))
