"""Trainings with several signals: what is handed to other processes, what a checkpoint belongs to, what a search reads."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import polars as pl
import torch
from media_models import picture, write_vision_model
from ring_world import ITEMS, ring

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signal, Signals
from tastemaker.training.fit import fit
from tastemaker.training.holdout import hold_out
from tastemaker.training.job import perform, read_result, write_job
from tastemaker.training.parts import make_channels
from tastemaker.training.sequence import SequenceModel, SequenceTask, Start, Validation, train_sequence
from tastemaker.tuning.answer import gains_of
from tastemaker.tuning.objective import make_objective
from tastemaker.tuning.space import with_changes

SEQUENCES = build(ring(users=60))
HELD = hold_out(SEQUENCES, 0.1, 0)
RANDOM = np.random.default_rng(0)


def rows(width: int) -> np.ndarray:
    found = RANDOM.normal(size=(SEQUENCES.n_items, width)).astype(np.float32)
    found[:: 3 + width % 2] = 0
    return found


SIGNALS = Signals.of(rows(6), Signal("image", rows(5)), Signal("graph", rows(4)))


def chosen(*more: str) -> Settings:
    lines = ["sequence.dim=16", "sequence.epochs=2", "sequence.min_steps=0", "train.threads=1", "train.precision=fp32"]
    return load_settings(None, [*lines, *more], {})


def test_a_training_that_is_handed_over_has_all_signals(tmp_path: Path) -> None:
    validation = Validation(HELD.histories, HELD.targets)
    first, _ = train_sequence(HELD.train, SIGNALS, chosen(), validation)
    start = Start(first, 1)
    wanted, _ = train_sequence(SEQUENCES, SIGNALS, chosen(), None, 2, start=start)
    write_job(tmp_path / "job", SEQUENCES, SIGNALS, chosen(), None, 2, "refit", tmp_path, start)
    perform(tmp_path / "job")
    found = SequenceModel(SIGNALS, torch.from_numpy(SEQUENCES.counts()), chosen().sequence)
    read_result(tmp_path / "job", found)
    there = wanted.state_dict()
    assert "items.content.query" in there
    assert all(torch.equal(value, there[name]) for name, value in found.state_dict().items())


def test_a_checkpoint_belongs_to_its_signals_and_gates_learn() -> None:
    counts = torch.from_numpy(SEQUENCES.counts())
    other = Signals.of(SIGNALS.text, Signal("image", -SIGNALS.others[0].vectors), SIGNALS.others[1])
    prints = {
        SequenceTask(SEQUENCES, SequenceModel(given, counts, chosen().sequence), chosen(), None).fingerprint()
        for given in (SIGNALS, other, SIGNALS)
    }
    assert len(prints) == 2
    model, _ = train_sequence(SEQUENCES, SIGNALS, chosen(), None, 2)
    assert model.items.content.query.abs().max() > 1e-3
    plain, _ = train_sequence(SEQUENCES, SIGNALS, chosen("sequence.signal_dropout=0"), None, 2)
    assert not torch.equal(model.items.identity, plain.items.identity)
    channels = make_channels(SEQUENCES, model, SIGNALS, True, chosen())
    assert np.array_equal(channels.text.rows(np.arange(SEQUENCES.n_items)), SIGNALS.content())


def test_a_search_reads_pictures_too(tiny_encoder: Path, tmp_path: Path) -> None:
    data = ring(users=60)
    images = [base64.b64encode(picture(("red", "lime", "blue", "black")[item * 4 // ITEMS])).decode() for item in range(ITEMS)]
    data = Dataset(data.events, data.items.with_columns(pl.Series("image", images)), data.users, data.edges, data.log)
    model = write_vision_model(tmp_path / "vit", "vit")
    settings = chosen(f"image.model={model}", f"text.model={tiny_encoder}", "tune.folds=1", "text.dim=12")
    objective = make_objective(data, settings)
    assert list(objective.signals.widths) == ["text", "image"]
    assert objective.signals.others[0].present.all()


def test_each_fold_of_a_search_tunes_a_language_model_of_its_own(tiny_encoder: Path) -> None:
    """As a fit of the fold's events does: the same vectors, and none that met what came later."""
    lines = (
        f"text.model={tiny_encoder}",
        "tune.folds=2",
        "text.dim=12",
        "finetune.mode=head",
        "finetune.steps=5",
        "finetune.blends=1.0",
    )
    data, settings = ring(users=120), chosen(*lines)
    step = pl.int_range(pl.len()).over("user_id")  # all people come at once, so that each fold knows them all
    data = data.with_events(
        data.events.with_columns(timestamp=1_600_000_000.0 + 1_000.0 * step + pl.int_range(pl.len())).sort("timestamp")
    )
    objective = make_objective(data, settings)
    fold = objective.folds[0]
    brain = fit(data.with_events(data.events.head(int(fold.train.sum()))), settings, rows=False)
    lists = [items for items, _ in brain.recommend(fold.histories(objective.sequences), 10)]
    assert np.array_equal(objective.judge(settings, 0).gains, gains_of(lists, fold.targets(objective.sequences)))
    frozen = objective.judge(with_changes(settings, {"finetune.mode": "frozen"}), 0)
    assert not np.array_equal(frozen.gains, objective.judge(settings, 0).gains)
