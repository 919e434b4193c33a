"""What a trial is judged by: NDCG@10 of one fold, question by question, from the whole catalogue, seen items left out.

`whole` goes the road of `training.fit` to its end: some of the fold's events and a tenth of its items are held back, the sequence model learns from the others and
stops where it is best, the fusion learns how far to trust each channel, then the sequence model learns anew from all of the fold's events. `fused` leaves
out this refit, about half of the time, and `sequence` the fusion too. Both are cheaper, and both judge a model that has not met the items and events that were
held back: gaps between settings look larger than they are after a refit. What each would have said is among the facts of a fold.

Where `finetune.mode` asks for a tuned language model, each fold tunes its own on what it learns from: one that had met later events would know the answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import FloatArray, Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import Signals
from tastemaker.tuning.folds import Fold, make_folds
from tastemaker.tuning.race import Curve, Race

if TYPE_CHECKING:
    from tastemaker.training.holdout import Holdout


@dataclass(frozen=True)
class FoldScore:
    """How one setting did in one fold.

    Attributes:
        gains: NDCG@10 of each question in the order of the fold, float32 [Q]; one target a question, so 1 / log2(place + 1).
        parameters: learned numbers of the sequence model.
        latency: milliseconds of CPU for one answer on one thread, median.
        seconds: of the whole fold.
        facts: other figures worth keeping.
        curve: the sequence model's validation after each epoch; None where nothing was trained.
    """

    gains: FloatArray
    parameters: int
    latency: float
    seconds: float
    facts: dict[str, float] = field(default_factory=dict)
    curve: Curve | None = None


class Objective(Protocol):
    """Judges settings fold by fold. It travels to other processes, so it holds plain data."""

    @property
    def folds(self) -> Sequence[Fold]:
        """The cuts; `users` of each tell whose question is whose."""

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None, rivals: Sequence[Curve] = ()) -> FoldScore:
        """The score of one fold; against rivals a training may end early, with an `OutrunError`."""


@dataclass(frozen=True)
class FitObjective:
    """Trains and judges on a log.

    Attributes:
        sequences: the whole log, packed once; every fold is a mask over it.
        signals: what the items are, read once for all trials.
        folds: the cuts.
        time_is_order: as `Dataset.time_is_order`.
        last: a later cut that no trial is judged by; its number is that behind the folds'. None: there is none.
        catalogue: one row an item, as a tuned language model reads it; None where none can be asked for.
        cache_dir: vectors of the model as it is are remembered there.
    """

    sequences: Sequences
    signals: Signals
    folds: list[Fold]
    time_is_order: bool
    last: Fold | None = None
    catalogue: pl.DataFrame | None = None
    cache_dir: Path | None = None
    _tuned: dict[tuple[int, bytes], FloatArray] = field(default_factory=dict, repr=False, compare=False)

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None, rivals: Sequence[Curve] = ()) -> FoldScore:
        """Learns from a fold's events with these settings and answers its questions.

        Each fold has a seed of its own, the same for all trials: their differences are then of the settings, and no seed decides alone.

        Raises:
            DivergedError: the model holds numbers that are none. OutrunError: it lies far behind the rivals.
        """
        from tastemaker.training.checkpoints import count_parameters
        from tastemaker.training.holdout import hold_out
        from tastemaker.training.parts import COLD_SHARE, Process, learn_all, learn_early, learn_fusion, make_channels
        from tastemaker.tuning.answer import FusedAnswer, SequenceAnswer, answer_time

        began, cut = time.perf_counter(), [*self.folds, self.last][fold]
        assert cut is not None
        race = Race(rivals)
        settings, process = _with_seed(settings, settings.train.seed + fold), Process(progress, watch=race)
        train, order, depth = self.sequences.keep(cut.train), self.time_is_order, settings.fusion.depth
        held = hold_out(train, COLD_SHARE, settings.train.seed)
        signals = self._signals(settings, fold, held, progress)
        model, result = learn_early(held, signals, settings, process, "this fold")
        histories, targets = cut.histories(self.sequences), cut.targets(self.sequences)
        answer: SequenceAnswer | FusedAnswer = SequenceAnswer(model).checked()
        gains = answer.gains(histories, targets)
        facts = {"sequence": float(gains.mean()), "best_epoch": float(result.best_epoch)}
        if settings.tune.judge != "sequence":
            fusion = learn_fusion(model, held, signals, order, settings).fusion
            answer = FusedAnswer(SequenceAnswer(model), make_channels(train, model, signals, order, settings), fusion, depth)
            gains = answer.gains(histories, targets)
            facts |= {"fused": float(gains.mean()), "seconds_fused": time.perf_counter() - began}
            if settings.tune.judge == "whole":
                model = learn_all(model, result.best_epoch, train, signals, settings, Process(progress), "this fold")
                channels = make_channels(train, model, signals, order, settings)
                answer = FusedAnswer(SequenceAnswer(model).checked(), channels, fusion, depth)
                gains = answer.gains(histories, targets)
        latency = answer_time(answer, histories)
        return FoldScore(
            gains, count_parameters(model), latency, time.perf_counter() - began, facts, Curve(race.scores, race.planned)
        )

    def _signals(self, settings: Settings, fold: int, held: Holdout, progress: Progress | None) -> Signals:
        """What the items are to this fold; texts by a language model that was tuned on its events, where one is asked for, once for all trials alike."""
        from tastemaker.training.reading import read_texts

        if settings.finetune.mode == "frozen" or self.catalogue is None:
            return self.signals
        asked = fold, msgspec.json.encode((settings.finetune, settings.text))
        if asked not in self._tuned:
            self._tuned[asked] = read_texts(self.catalogue, settings, self.cache_dir, progress, held).vectors
        return Signals.of(self._tuned[asked], *self.signals.others)


def make_objective(
    dataset: Dataset, settings: Settings, cache_dir: Path | None = None, progress: Progress | None = None, aside: bool = False
) -> FitObjective:
    """Packs the log, cuts the folds and reads the items, once for all trials.

    Args:
        dataset, settings, cache_dir, progress: as those of `training.fit.fit`.
        aside: one cut more, the latest, is kept out of the search, to confirm its choice by.

    Raises:
        InputError: no event, or too few for the folds.
    """
    if dataset.events.height == 0:
        raise InputError("There is no event to learn from. Import some first; see `tastemaker import`.")
    sequences, order, tune = build(dataset), dataset.time_is_order, settings.tune
    folds = make_folds(sequences, order, tune.folds + aside, tune.fold_share, tune.questions, settings.train.seed)
    signals = _read(dataset, sequences.keep(folds[0].train), settings, cache_dir, progress)
    last = folds[-1] if aside else None
    return FitObjective(sequences, signals, folds[: tune.folds], order, last, dataset.catalogue(), cache_dir)


def _read(dataset: Dataset, train: Sequences, settings: Settings, cache_dir: Path | None, progress: Progress | None) -> Signals:
    """What the items are, for all folds, by the models as they are; the whitening is chosen on the events before the first cut. Later ones would
    teach it what an earlier fold is asked."""
    from tastemaker.training.holdout import hold_out
    from tastemaker.training.parts import COLD_SHARE
    from tastemaker.training.signals import read_signals

    frozen = msgspec.structs.replace(settings, finetune=msgspec.structs.replace(settings.finetune, mode="frozen"))
    held = hold_out(train, COLD_SHARE, settings.train.seed)
    return read_signals(dataset, frozen, cache_dir, progress, held).signals


def questions_of(folds: Sequence[Fold]) -> NDArray[np.int64]:
    """Whose each question is, all folds one behind the other, int64 [Q]."""
    return np.concatenate([fold.users for fold in folds])


def _with_seed(settings: Settings, seed: int) -> Settings:
    return msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, seed=seed))
