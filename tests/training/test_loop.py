"""The loop: it goes on after a kill as if nothing had happened, keeps the last good state, and says what went wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from line_task import LineTask, train
from torch import nn

from tastemaker.schema.errors import BundleError, InputError, SettingsError, TrainingError
from tastemaker.training.checkpoints import load_state
from tastemaker.training.loop import LoopOptions, run
from tastemaker.training.optimisers import OPTIMISERS, OptimiserOptions, WeightAverage, make_optimiser, make_schedule

PROGRAM = Path(__file__).with_name("line_task.py")


def options(**changes: object) -> LoopOptions:
    return LoopOptions(**{"epochs": 3, "optimiser": OptimiserOptions(learning_rate=0.05), "checkpoint_seconds": 0.0, **changes})  # type: ignore[arg-type]


def program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    killed = program(tmp_path / "killed", "die", "1", "7")
    assert killed.returncode == -9, killed.stderr
    state = load_state(tmp_path / "killed" / "line.checkpoint")
    assert state is not None
    assert (state.epoch, state.step) == (1, 6)
    whole, again = train(tmp_path / "whole"), train(tmp_path / "killed")
    assert again == whole
    assert len(whole["losses"]) == 4


def test_a_full_disk_keeps_the_last_checkpoint_and_the_training(tmp_path: Path) -> None:
    done = program(tmp_path, "full")
    state = load_state(tmp_path / "line.checkpoint")
    assert state is not None
    assert state.epoch == 1
    assert "was not renewed" in done.stderr
    assert not list(tmp_path.glob("*.partial"))


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    first, second = LineTask(), LineTask(seed=0)
    result = run(first, options(), run_dir=tmp_path)
    steps: list[int] = []
    again = run(second, options(), progress=lambda _, done, total: steps.append(done), run_dir=tmp_path)
    assert again == result
    assert len(steps) == 1
    assert torch.equal(first.model.weight, second.model.weight)


@pytest.mark.parametrize("parts", [2, 3, 40])
def test_a_batch_in_parts_makes_the_same_step(parts: int) -> None:
    whole, split = LineTask(rate=0.0), LineTask(rate=0.0)
    first, second = run(whole, options()), run(split, options(accumulate=parts))
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    assert torch.allclose(whole.model.weight, split.model.weight, atol=1e-5)


def test_a_loss_that_is_no_number_stops_and_keeps_the_state_before(tmp_path: Path) -> None:
    task = LineTask()
    number = 2 * task.steps() + 5
    honest, calls = task.loss, iter(range(10_000))
    task.loss = lambda batch: honest(batch) * (float("nan") if next(calls) == number else 1.0)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"nan at epoch 3, batch 6.*lower the learning rate"):
        run(task, options(), run_dir=tmp_path)
    state = load_state(tmp_path / "train.checkpoint")
    assert state is not None
    assert (state.epoch, state.step) == (2, 5)
    assert all(bool(value.isfinite().all()) for value in state.tensors.values())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_learns(name: str) -> None:
    task = LineTask(rate=0.0)
    before = task.validate()
    rate = {"sgd": 0.05, "adafactor": 0.01}.get(name, 0.1)
    result = run(task, LoopOptions(epochs=8, optimiser=OptimiserOptions(optimiser=name, learning_rate=rate, weight_decay=0.0)))
    assert result.best_score is not None
    assert result.best_score > before / 20


def test_adafactor_remembers_a_third_at_most() -> None:
    def remembered(name: str) -> int:
        model = nn.Linear(256, 256, bias=False)
        optimiser = make_optimiser(model, OptimiserOptions(optimiser=name))
        model(torch.ones(1, 256)).sum().backward()
        optimiser.step()
        return sum(value.numel() for kept in optimiser.state.values() for value in kept.values() if torch.is_tensor(value))

    assert remembered("adafactor") < remembered("adamw") / 3


def test_the_average_follows_the_weights() -> None:
    model = nn.Linear(3, 1, bias=False)
    average, wanted = WeightAverage(model, 0.5), model.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * model.weight.detach()
    now = model.weight.detach().clone()
    average.swap()
    assert torch.allclose(model.weight, wanted)
    average.swap()
    assert torch.equal(model.weight, now)


def test_schedules_rise_and_fall() -> None:
    for name in ("cosine", "one_cycle"):
        rate = make_schedule(100, OptimiserOptions(schedule=name, learning_rate=1.0, warmup=0.1))
        peak = max(range(100), key=rate)
        assert rate(0) < 0.2
        assert 0.9 < rate(peak) <= 1.0
        assert rate(99) < 0.1
        assert all(rate(step) >= rate(step + 1) for step in range(peak, 99))
    assert make_schedule(100, OptimiserOptions(schedule="constant", learning_rate=1.0))(99) == 1.0


@pytest.mark.parametrize(("name", "value"), [("optimiser", "lion"), ("schedule", "stairs")])
def test_unknown_words_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"train.{name} is '{value}'; expected"):
        run(LineTask(), LoopOptions(epochs=1, optimiser=OptimiserOptions(**{name: value})))


def test_a_damaged_checkpoint_and_another_plan_are_refused(tmp_path: Path) -> None:
    run(LineTask(), options(), run_dir=tmp_path)
    with pytest.raises(InputError, match="data = "):
        run(LineTask(seed=1), options(), run_dir=tmp_path)
    with pytest.raises(InputError, match="seed = 0, and now it is 5"):
        run(LineTask(), options(seed=5), run_dir=tmp_path)
    path = tmp_path / "train.checkpoint"
    wider = LineTask()
    wider.model.register_parameter("more", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(BundleError, match=r"lacks 'more': it is of another model or another version\. Delete train\.checkpoint"):
        run(wider, options(), run_dir=tmp_path)
    found = bytearray(path.read_bytes())
    found[-3] ^= 1
    path.write_bytes(found)
    with pytest.raises(BundleError, match="damaged"):
        run(LineTask(), options(), run_dir=tmp_path)
    path.write_bytes(bytes(found[:100]))
    with pytest.raises(BundleError, match=r"Delete train\.checkpoint"):
        run(LineTask(), options(), run_dir=tmp_path)
