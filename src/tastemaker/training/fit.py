"""The whole fit, in order: read the items, judge on held-back events, learn the fusion, refit on everything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from tastemaker.data.baseline import baseline_of, features_of
from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion
from tastemaker.models.text import Whitening
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.errors import InputError
from tastemaker.schema.manifest import DataFingerprint
from tastemaker.schema.protocols import FloatArray, IntArray, Progress, QueryState
from tastemaker.schema.settings import Settings
from tastemaker.training.encoder import Encoder
from tastemaker.training.export import export
from tastemaker.training.features import TrainedFeatures, check_features, train_features
from tastemaker.training.holdout import hold_out
from tastemaker.training.loop import LoopResult
from tastemaker.training.parts import COLD_SHARE, LearnedFusion, Process, learn_all, learn_early, learn_fusion, make_channels
from tastemaker.training.precision import check_device, use_threads
from tastemaker.training.reading import read_texts
from tastemaker.training.search_pairs import searches_of
from tastemaker.training.sequence import SequenceModel
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
        notes: sentences for whoever trains: what was skipped, and why.
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
    notes: list[str] = field(default_factory=list)

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

    def recommend(self, histories: Sequence[IntArray], k: int) -> list[tuple[IntArray, FloatArray]]:
        """The k best items for each history and their scores, best first, the history's own items left out."""
        states = states_of(self.model, histories)
        best = []
        for begin in range(0, len(states), 256):
            part = states[begin : begin + 256]
            for state, found in zip(part, self.channels.candidates(part, self.settings.fusion.depth), strict=True):
                score = self.fusion.score(found, len(state.history))
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

    Raises:
        InputError: the dataset has no event. SettingsError: features or the ranker's negatives are named that are not known.
    """
    settings = settings or Settings()
    if rows:
        check_features(settings)
    check_device(settings.train.device)
    use_threads(settings.train.threads)
    sequences, catalogue = build(dataset), dataset.catalogue()
    if len(sequences.items) == 0:
        raise InputError("There is no event to learn from. Give events with user_id and item_id; see `tastemaker import`.")
    clock, process, order = _Clock(), Process(progress, run_dir, launch), dataset.time_is_order
    held = hold_out(sequences, COLD_SHARE, settings.train.seed)
    asked = searches_of(dataset, sequences, settings)
    read = read_texts(catalogue, settings, cache_dir, progress, held, run_dir, asked, launch)
    text = read.vectors
    clock.lap("seconds_text")
    early, found = learn_early(held, text, settings, process)
    clock.lap("seconds_validate")
    fused = learn_fusion(early, held, text, order, settings, progress)
    clock.lap("seconds_fusion")
    features = None
    if rows and not order:
        vectors = early.user_vectors
        features = train_features(dataset, sequences, catalogue, text, held, fused.channels, fused.fusion, vectors, settings)
        clock.lap("seconds_features")
    model = learn_all(early, found.best_epoch, sequences, text, settings, process)
    clock.lap("seconds_refit")
    channels = make_channels(sequences, model, text, order, settings)
    clock.lap("seconds_channels")
    metrics = {**_figures(found, fused), **read.metrics, **clock.laps, "seconds": sum(clock.laps.values())}
    return TrainedBrain(
        settings, catalogue, sequences, model, channels, fused.fusion, read.encoder, read.whitening, metrics,
        dataset.fingerprint(), _baseline(dataset, settings, features), features, read.notes,
    )  # fmt: skip


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
