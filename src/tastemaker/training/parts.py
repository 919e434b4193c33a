"""The parts of a fit, each callable alone: learn from early events, learn the fusion on later ones, learn anew from all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tastemaker.data.sequences import Sequences
from tastemaker.index.channels import Channels, Decays
from tastemaker.models.fusion import Fusion
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.signals import GRAPH, Signals
from tastemaker.training.companions import choose_smoothing, companions_of, without_histories
from tastemaker.training.fusion import ROWS, gather, train_fusion
from tastemaker.training.holdout import Holdout
from tastemaker.training.loop import LoopResult, Watch
from tastemaker.training.neighbours import near_neighbours, recent_popularity, shared_neighbours
from tastemaker.training.sequence import VALIDATION_ROWS, SequenceModel, Start, Validation
from tastemaker.training.together import Launch, train_together

COLD_SHARE = 0.1
"""Share of the items that the holdout takes out of training altogether, as if they were new."""


@dataclass(frozen=True)
class Process:
    """How and where trainings run.

    Attributes:
        progress: called as progress(what, done, total).
        run_dir: curves and checkpoints go here; None: nowhere.
        launch: has trainings done elsewhere; None: here.
        watch: hears the validation after each epoch, as in `training.loop.run`.
    """

    progress: Progress | None = None
    run_dir: Path | None = None
    launch: Launch | None = None
    watch: Watch | None = None


@dataclass(frozen=True)
class LearnedFusion:
    """What was learned on held-back events.

    Attributes:
        channels: of the early events alone; the fusion learned from these.
        fusion: how far each channel is trusted.
        rows: questions that it learned from. quality: its NDCG@10 on those that it did not; None where there were too few.
        smoothing: share of a user's vector that comes from friends.
    """

    channels: Channels
    fusion: Fusion
    rows: int
    quality: float | None
    smoothing: float = 0.0


@dataclass(frozen=True)
class Fit:
    """What was learned from the events of a holdout alone, and so knows nothing of its questions.

    Attributes:
        held: events and questions. model, channels: of the events.
    """

    held: Holdout
    model: SequenceModel
    channels: Channels


def learn_later(
    held: Holdout,
    epochs: int,
    signals: Signals,
    settings: Settings,
    process: Process,
    social: Social | None = None,
    smoothing: float = 0.0,
) -> Fit:
    """The channels of what came before a moment (`holdout.hold_out_later`), for the epochs that were found best.

    Fewer epochs are no saving: with half of them the sequence model is weaker than the one that answers, and a ranker learns to trust it less.
    """
    model, _ = train_together(
        held.train, signals, settings, None, epochs, "rehearse", process.progress, process.run_dir, None, process.launch
    )
    return Fit(held, model, make_channels(held.train, model, signals, False, settings, social, smoothing))


def learn_early(
    held: Holdout, signals: Signals, settings: Settings, process: Process, what: str = "validate"
) -> tuple[SequenceModel, LoopResult]:
    """The sequence model of the events that are not held back, stopped where it is best on those that are."""
    rows = held.warm_rows(VALIDATION_ROWS, settings.train.seed)
    validation = Validation([held.histories[row] for row in rows], held.targets[rows])
    return train_together(
        held.train,
        signals,
        settings,
        validation,
        None,
        what,
        process.progress,
        process.run_dir,
        None,
        process.launch,
        process.watch,
    )


def learn_fusion(
    model: SequenceModel,
    held: Holdout,
    signals: Signals,
    time_is_order: bool,
    settings: Settings,
    progress: Progress | None = None,
    social: Social | None = None,
) -> LearnedFusion:
    """The fusion, from held-back events that no channel has learned from, and the smoothing of user vectors by those of friends."""
    seed, smoothing = settings.train.seed, 0.0
    channels = make_channels(held.train, model, signals, time_is_order, settings, social)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(held.targets))[:ROWS])
    histories = [held.histories[row] for row in chosen]
    if channels.companions is not None:
        smoothing = channels.companions.smoothing = choose_smoothing(channels.companions, model, held, settings)
        histories = without_histories(histories, channels.companions, held.users[chosen], seed)
    users, depth = model.user_vectors(histories), settings.fusion.depth
    examples = gather(channels, histories, users, held.targets[chosen], held.known, depth, progress, held.users[chosen])
    fusion, quality = train_fusion(examples, settings.fusion, seed, channels.names)
    return LearnedFusion(channels, fusion, len(chosen), quality, smoothing)


def learn_all(
    early: SequenceModel,
    epochs: int,
    sequences: Sequences,
    signals: Signals,
    settings: Settings,
    process: Process,
    what: str = "refit",
) -> SequenceModel:
    """The sequence model of all events, for the epochs that were found best; where `sequence.refit` asks for it, from the early model on."""
    share, start = settings.sequence.refit, None
    if share < 1.0 and epochs:
        start = Start(early, epochs - max(math.ceil(epochs * share), 1))
    model, _ = train_together(
        sequences, signals, settings, None, epochs, what, process.progress, process.run_dir, start, process.launch
    )
    return model


def make_channels(
    sequences: Sequences,
    model: SequenceModel,
    signals: Signals,
    time_is_order: bool,
    settings: Settings,
    social: Social | None = None,
    smoothing: float = 0.0,
) -> Channels:
    """The channels of one fit."""
    k = settings.neighbours.k
    graph = next((part.vectors for part in signals.parts if part.name == GRAPH), None)
    return Channels(
        items=model.item_vectors(),
        bias=model.bias.detach().numpy().copy(),
        text=signals.content() if signals.others else signals.text,
        popular=recent_popularity(sequences, time_is_order),
        counts=sequences.counts().astype(np.float32),
        neighbours=near_neighbours(sequences, k),
        together=shared_neighbours(sequences, k),
        decays=Decays(neighbours=settings.neighbours.decay, text=settings.neighbours.text_decay),
        graph=graph,
        companions=None if social is None else companions_of(social, sequences, model, smoothing),
    )
