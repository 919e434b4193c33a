"""Processes that train together learn what one learns alone, also when one of them dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_world import ring

from tastemaker.data.sequences import build
from tastemaker.models.item_tower import ItemTower
from tastemaker.schema.errors import TrainingError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signal, Signals
from tastemaker.training.holdout import hold_out
from tastemaker.training.loop import LoopResult
from tastemaker.training.sequence import SequenceModel, SequenceTask, Start, Validation, train_sequence
from tastemaker.training.together import launch_here, train_together

SEQUENCES = build(ring(users=120))
SIGNALS = Signals.of(np.random.default_rng(0).normal(size=(SEQUENCES.n_items, 8)).astype(np.float32))
HELD = hold_out(SEQUENCES, 0.1, 0)
VALIDATION = Validation(HELD.histories, HELD.targets)


def chosen(*more: str) -> Settings:
    lines = ["sequence.dim=16", "sequence.dropout=0", "sequence.epochs=3", "sequence.min_steps=0", "train.threads=1"]
    return load_settings(None, [*lines, "train.precision=fp32", "train.checkpoint_seconds=0", *more], {})


def alone(*more: str) -> tuple[SequenceModel, LoopResult]:
    return train_sequence(HELD.train, SIGNALS, chosen(*more), VALIDATION)


def differs(first: SequenceModel, second: SequenceModel) -> float:
    there = second.state_dict()
    return max(float((value - there[name]).abs().max()) for name, value in first.state_dict().items())


def test_two_processes_learn_what_one_does_also_when_one_dies(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """As soon as there is a checkpoint, one of the workers goes."""
        deadline = time.monotonic() + 120
        while not (tmp_path / "sequence.checkpoint").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in psutil.Process().children(recursive=True):
            if "tastemaker.training.worker" in process.cmdline():
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                return

    watcher = threading.Thread(target=kill_one)
    watcher.start()
    longer = ("sequence.epochs=12", "sequence.patience=12")
    told: list[tuple[int, int]] = []
    progress = lambda _, done, total: told.append((done, total))  # noqa: E731
    given = chosen("train.workers=2", *longer)
    model, found = train_together(HELD.train, SIGNALS, given, VALIDATION, progress=progress, run_dir=tmp_path)
    watcher.join()
    assert killed
    wanted_model, wanted = alone(*longer)
    assert found.losses == pytest.approx(wanted.losses, abs=1e-4)
    assert found.scores == pytest.approx(wanted.scores, abs=1e-3)
    assert differs(model, wanted_model) < 1e-3
    assert told
    assert all(0 < done <= total for done, total in told)


def test_processes_that_die_again_and_again_end_as_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.training.together.RESTARTS", 0)
    (tmp_path / "job.json").write_bytes(msgspec.json.encode({"what": "no job"}))
    with pytest.raises(TrainingError, match="ended 1 times without finishing"):
        launch_here(tmp_path, 1)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'tastemaker[ray]'")
def test_workers_of_a_cluster_learn_what_one_process_does(tmp_path: Path) -> None:
    import ray

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_worker_niceness="0")
    from tastemaker.training._ray import launch_on

    try:
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
        given = chosen("train.workers=2")
        model, found = train_together(HELD.train, SIGNALS, given, VALIDATION, run_dir=tmp_path, launch=launch_on())
    finally:
        ray.shutdown()
    wanted_model, wanted = alone()
    assert found.losses == pytest.approx(wanted.losses, abs=1e-4)
    assert differs(model, wanted_model) < 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 40))
def test_every_event_is_learned_once_an_epoch_by_any_number_of_workers(workers: int, epoch: int, batch: int) -> None:
    model = SequenceModel(SIGNALS, torch.from_numpy(SEQUENCES.counts()), chosen().sequence)
    task = SequenceTask(SEQUENCES, model, chosen(f"sequence.batch_size={batch}"), None)
    met = [window for whole in task.batches(epoch) for worker in range(workers) for window in task.share(whole, worker, workers)]
    assert sorted(met) == list(range(len(task._begin)))
    for whole in task.batches(epoch):
        parts = [task.weight(task.share(whole, worker, workers)) for worker in range(workers)]
        assert sum(parts) == pytest.approx(task.weight(whole))


def test_a_refit_goes_on_from_what_was_validated() -> None:
    model, _ = alone()
    known = HELD.train.counts() > 0
    whole = SequenceModel(SIGNALS, torch.from_numpy(SEQUENCES.counts()), chosen().sequence)
    new = {name: value.clone() for name, value in whole.state_dict().items()}
    whole.begin_from(model)
    for name in ("bias", "items.identity"):
        there = whole.state_dict()[name]
        assert torch.equal(there[known], model.state_dict()[name][known])
        assert torch.equal(there[~known], new[name][~known])
    assert (~known).any()
    assert torch.equal(whole.items.content.project["text"].weight, model.items.content.project["text"].weight)
    warm, result = train_sequence(SEQUENCES, SIGNALS, chosen(), None, 3, start=Start(model, 2))
    assert len(result.losses) == 1
    _, cold = train_sequence(SEQUENCES, SIGNALS, chosen(), None, 1)
    assert result.losses[0] < cold.losses[0]
    assert differs(warm, whole) > 0


@pytest.mark.parametrize(
    "words",
    [("train.ema=0.9", "train.accumulate=2", "sequence.id_dropout=0.3"), ("train.optimiser=adafactor", "sequence.batch_size=9")],
    ids=["average", "adafactor"],
)
def test_a_catalogue_in_parts_teaches_the_same(tmp_path: Path, words: tuple[str, ...]) -> None:
    model, found = train_together(HELD.train, SIGNALS, chosen("train.workers=2", *words), VALIDATION, run_dir=tmp_path)
    wanted_model, wanted = alone(*words)
    assert found.losses == pytest.approx(wanted.losses, abs=1e-4)
    assert found.scores == pytest.approx(wanted.scores, abs=1e-3)
    assert differs(model, wanted_model) < 1e-3


def test_only_the_whole_softmax_is_divided() -> None:
    for words, divided in (
        ((), True),
        (("sequence.loss=bce",), False),
        (("sequence.label_smoothing=0.1",), False),
        (("sampling.negatives=uniform",), False),
        (("sequence.id_rows=4",), False),
    ):
        model = SequenceModel(SIGNALS, torch.from_numpy(SEQUENCES.counts()), chosen(*words).sequence)
        assert SequenceTask(SEQUENCES, model, chosen(*words), None).divides is divided


def test_a_part_of_the_tower_is_those_rows_of_the_whole() -> None:
    random = np.random.default_rng(1)
    several = Signals(
        (
            Signal("text", random.normal(size=(50, 8)).astype(np.float32)),
            Signal("image", random.normal(size=(50, 4)).astype(np.float32)),
        )
    )
    tower = ItemTower(several, torch.arange(50) % 5 > 0, 16, id_dropout=0.4, signal_dropout=0.4)
    for rows in (slice(0, 17), slice(17, 50)):
        torch.manual_seed(3)
        whole = tower()
        torch.manual_seed(3)
        assert torch.allclose(tower.part(rows), whole[rows], atol=1e-6)
