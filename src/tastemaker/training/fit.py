"""The whole fit, in order: read the items, judge on held-back events, learn the fusion, refit on everything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tastemaker.data.baseline import baseline_of, features_of
from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion
from tastemaker.models.segments import Segments, newcomer_scores, with_profile
from tastemaker.models.text import Whitening
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.errors import InputError
from tastemaker.schema.manifest import DataFingerprint
from tastemaker.schema.protocols import FloatArray, IntArray, Progress, QueryState
from tastemaker.schema.settings import Settings
from tastemaker.training.encoder import Encoder, Spread
from tastemaker.training.export import export
from tastemaker.training.features import LearnedRows, TrainedFeatures, check_features, learn_rows
from tastemaker.training.friends import LearnedFriends, learn_friends
from tastemaker.training.graph import TrainedGraph, trained_graph
from tastemaker.training.holdout import hold_out, hold_out_later
from tastemaker.training.loop import LoopResult
from tastemaker.training.media import ReadMedia
from tastemaker.training.parts import (
    COLD_SHARE,
    Fit,
    LearnedFusion,
    Process,
    learn_all,
    learn_early,
    learn_fusion,
    learn_later,
    make_channels,
)
from tastemaker.training.precision import check_device, use_threads
from tastemaker.training.ranked import Asked, recommend_ranked
from tastemaker.training.ranker import TrainedRanker, check_ranker, train_ranker
from tastemaker.training.search_pairs import searches_of
from tastemaker.training.segments import learn_segments
from tastemaker.training.sequence import SequenceModel
from tastemaker.training.signals import ReadSignals, read_signals
from tastemaker.training.together import Launch


@dataclass(frozen=True)
class TrainedBrain:
    """All that was learned.

    Attributes:
        settings: what it was learned with.
        catalogue: one row an item, in the order of item indices.
        sequences: the histories at training time.
        model: item and user tower.
        channels, fusion: what finds candidates, and what scores them.
        encoder, whitening: what reads new items; None where the catalogue has no text.
        metrics: figures of the validation and seconds of each part.
        sha256: hash over the events.
        baseline: what the data looked like; drift is measured against it.
        features: what is told besides the channels, and a ranker's rows; None where the log has no times.
        ranker: what orders the fusion's best; None where none was learned.
        notes: sentences for whoever trains: what was skipped, and why.
        segments: popularity by attributes of people, for those without a history; None where no attribute tells anything.
        graph: what items are connected with; None where no edge says.
        friends: what finds people; None where no edge between users is known.
        media: what reads the pictures and sounds of new items.
    """

    settings: Settings
    catalogue: pl.DataFrame
    sequences: Sequences
    model: SequenceModel
    channels: Channels
    fusion: Fusion
    encoder: Encoder | None
    whitening: Whitening | None
    metrics: dict[str, float | int] = field(default_factory=dict)
    sha256: str = ""
    baseline: Baseline | None = None
    features: TrainedFeatures | None = None
    ranker: TrainedRanker | None = None
    notes: list[str] = field(default_factory=list)
    segments: Segments | None = None
    graph: TrainedGraph | None = None
    friends: LearnedFriends | None = None
    media: tuple[ReadMedia, ...] = ()

    def export(self, folder: Path) -> None:
        """Writes the payload of a bundle; it answers without torch."""
        export(self, folder)

    def fingerprint(self, position: int = 0, change: int = 0) -> DataFingerprint:
        """Which data this was learned from, for the manifest.

        Args:
            position, change: the journal's numbers at the time of reading.
        """
        events, users, items = len(self.sequences.items), self.sequences.n_users, self.sequences.n_items
        return DataFingerprint(events=events, users=users, items=items, position=position, change=change, sha256=self.sha256)

    def recommend(
        self,
        histories: Sequence[IntArray],
        k: int,
        profiles: Sequence[Mapping[str, Any] | None] | None = None,
        asked: Asked | None = None,
        users: Sequence[str] | None = None,
    ) -> list[tuple[IntArray, FloatArray]]:
        """The k best items for each history and their scores, best first, the history's own items left out.

        Args:
            histories: item indices, oldest first. k: items each.
            profiles: what is known of the askers. users: who they are, where their friends are to be asked.
            asked: who asks and when: the ranker orders where there is one; None: the fusion alone.
        """
        companions, rows = self.channels.companions, None
        names = users if users is not None or asked is None else asked.users
        if companions is not None and names is not None:
            rows = np.array([companions.row(user) for user in names], dtype=np.int32)
        states = self.channels.states(histories, self.model.user_vectors(histories), rows)
        if profiles is not None:
            states = [with_profile(state, self.segments, told) for state, told in zip(states, profiles, strict=True)]
        if asked is not None and self.ranker is not None:
            return recommend_ranked(self, states, asked, k)
        best = []
        for begin in range(0, len(states), 256):
            part = states[begin : begin + 256]
            for state, found in zip(part, self.channels.candidates(part, self.settings.fusion.depth), strict=True):
                score = self.fusion.score(found, len(state.history))
                score = newcomer_scores(score, found, state)
                order = np.argsort(-score, kind="stable")[:k]
                best.append((found.items[order], score[order]))
        return best


def fit(
    dataset: Dataset,
    settings: Settings | None = None,
    progress: Progress | None = None,
    run_dir: Path | None = None,
    cache_dir: Path | None = None,
    rows: bool = True,
    launch: Launch | None = None,
    spread: Spread | None = None,
) -> TrainedBrain:
    """Learns a brain from a dataset.

    Args:
        dataset: events in order and the catalogue.
        settings: all of it; the defaults are the same for every catalogue.
        progress: called as progress(what, done, total).
        run_dir: curves, checkpoints and weights go here; what a run that was cut short left there is gone on from.
        cache_dir: text vectors are remembered here.
        rows: make the features too, and rows for a ranker.
        launch: has the sequence model trained elsewhere, such as `training._ray.launch_on()`.
        spread: has the catalogue's texts read elsewhere, such as `training._ray.reader_on()`.

    Raises:
        InputError: the dataset has no event. SettingsError: features or the ranker's negatives are named that are not known.
    """
    settings = settings or Settings()
    if rows:
        check_features(settings)
        check_ranker(settings)
    check_device(settings.train.device)
    use_threads(settings.train.threads)
    sequences, catalogue = build(dataset), dataset.catalogue()
    if len(sequences.items) == 0:
        raise InputError("There is no event to learn from. Give events with user_id and item_id; see `tastemaker import`.")
    clock, process, order = _Clock(), Process(progress, run_dir, launch), dataset.time_is_order
    held = hold_out(sequences, COLD_SHARE, settings.train.seed)
    asked = searches_of(dataset, sequences, settings)
    read = read_signals(dataset, settings, cache_dir, progress, held, run_dir, asked, launch, spread)
    signals = read.signals
    social = read.graphs.social
    clock.lap("seconds_text")
    early, found = learn_early(held, signals, settings, process)
    clock.lap("seconds_validate")
    fused = learn_fusion(early, held, signals, order, settings, progress, social)
    clock.lap("seconds_fusion")
    told, ranker, notes = None, None, list(read.notes)
    if rows and (not order or settings.ranker.mode != "off"):
        later = _later(read, sequences, order, found.best_epoch, fused.smoothing, settings, process)
        clock.lap("seconds_later")
        first = Fit(held, early, fused.channels)
        told = learn_rows(dataset, sequences, catalogue, signals.text, first, fused.fusion, settings, later)
        clock.lap("seconds_features")
        ranker = _ranker(told, catalogue, fused, settings, notes)
        clock.lap("seconds_ranker")
    signals = read.anew(sequences)
    model = learn_all(early, found.best_epoch, sequences, signals, settings, process)
    clock.lap("seconds_refit")
    channels = make_channels(sequences, model, signals, order, settings, social, fused.smoothing)
    newcomers = learn_segments(dataset.users, sequences, order, settings.train.seed)
    friends = None if social is None else learn_friends(social, sequences, settings, progress)
    clock.lap("seconds_channels")
    if ranker is not None:
        met = held.train.counts() > 0
        ranker = ranker.for_vectors(early.item_vectors()[met], model.item_vectors()[met])
    features = told.remembered() if told is not None else None
    clock.lap("seconds_memory")
    own = ranker.metrics if ranker is not None else {}
    metrics = {**_figures(found, fused), **read.metrics, **own, **clock.laps, "seconds": sum(clock.laps.values())}
    return TrainedBrain(
        settings, catalogue, sequences, model, channels, fused.fusion, read.texts.encoder, read.texts.whitening, metrics,
        dataset.fingerprint(), _baseline(dataset, settings, features), features, ranker,
        [*notes, *([newcomers.note] if newcomers.note else [])], newcomers.segments,
        trained_graph(read.graphs.knowledge, read.by_graph, sequences), friends, read.media,
    )  # fmt: skip


def _later(
    read: ReadSignals, sequences: Sequences, order: bool, epochs: int, smoothing: float, settings: Settings, process: Process
) -> Fit | None:
    """What was known before a moment, to be asked what came after it; None where times can't be compared, or too little came."""
    chosen = settings.ranker
    if order or chosen.mode == "off" or not chosen.later_share:
        return None
    held = hold_out_later(sequences, chosen.later_share, chosen.later_questions, settings.train.seed)
    if held is None:
        return None
    return learn_later(held, epochs, read.anew(held.train), settings, process, read.graphs.social, smoothing)


def _ranker(
    told: LearnedRows, catalogue: pl.DataFrame, fused: LearnedFusion, settings: Settings, notes: list[str]
) -> TrainedRanker | None:
    """The ranker of the rows; adds its sentences to the notes."""
    if settings.ranker.mode == "off":
        return None
    vectors = fused.channels.items.rows(np.arange(fused.channels.n_items))
    boost = fused.fusion.cold_boost
    found = train_ranker(told.rows, told.text, told.preparation, catalogue, vectors, boost, settings)
    notes += [found] if isinstance(found, str) else found.notes
    return None if isinstance(found, str) else found


def states_of(model: SequenceModel, histories: Sequence[IntArray]) -> list[QueryState]:
    """Query states with user vectors; an empty history has none."""
    vectors = model.user_vectors(histories)
    return [QueryState(history, vector if len(history) else None) for history, vector in zip(histories, vectors, strict=True)]


def _baseline(dataset: Dataset, settings: Settings, features: TrainedFeatures | None) -> Baseline:
    """What the data looked like, the features of the ranker's rows with it."""
    found = baseline_of(dataset, settings.data.positive)
    if features is None:
        return found
    return msgspec.structs.replace(found, features=features_of(features.rows.names, features.rows.values))


def _figures(found: LoopResult, fused: LearnedFusion) -> dict[str, float | int]:
    """What validation showed."""
    metrics: dict[str, float | int] = {
        "epochs": found.best_epoch,
        "rows_validation": fused.rows,
        "cold_boost": fused.fusion.cold_boost,
    }
    if found.best_score is not None:
        metrics["validation_ndcg_sequence"] = found.best_score
    if fused.quality is not None:
        metrics["validation_ndcg_fusion"] = fused.quality
    if fused.channels.companions is not None:
        metrics["smoothing"] = fused.smoothing
    return metrics


@dataclasses.dataclass
class _Clock:
    """Seconds of each part of a fit."""

    began: float = field(default_factory=time.perf_counter)
    laps: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self.began
        self.began = now
