"""The training loop: warm-up, cosine, early stopping, one seed. It knows tasks, not models, and no cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tastemaker.schema.protocols import Progress
from tastemaker.training.checkpoints import save_weights, weights_of
from tastemaker.training.precision import flushed_denormals

NORM_LIMIT = 1.0
BETAS = (0.9, 0.98)
LAST_SHARE = 0.05


class Task(Protocol):
    """Something that learns."""

    @property
    def model(self) -> nn.Module:
        """What is learned."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of one epoch."""

    def steps(self) -> int:
        """Batches of an epoch."""

    def loss(self, batch: Any) -> Tensor:
        """A scalar to be made smaller."""

    def validate(self) -> float | None:
        """A score to be made larger; None where nothing is held back."""


@dataclass(frozen=True)
class LoopOptions:
    """How a task learns.

    Attributes:
        epochs: length of the schedule.
        stop_after: epochs that are really run; the learning rate follows the whole schedule all the same. A refit uses the epochs that
            validation found best.
        patience: epochs without a better score before the loop stops.
        learning_rate, weight_decay: of AdamW; biases, gains and other vectors do not decay.
        warmup: share of the steps in which the rate grows from zero.
        seed: of everything random.
    """

    epochs: int
    stop_after: int | None = None
    patience: int = 3
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    seed: int = 0


@dataclass
class LoopResult:
    """What a loop found: epochs are counted from 1, `scores` and `losses` have one number an epoch."""

    best_epoch: int
    best_score: float | None
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def run(
    task: Task, options: LoopOptions, what: str = "train", progress: Progress | None = None, run_dir: Path | None = None
) -> LoopResult:
    """Trains the task's model in place and leaves it with the weights of the best epoch.

    Args:
        task: model, batches, loss and validation.
        options: the schedule.
        what: the name in the progress bar and of the curves.
        progress: called after each step as (what, steps done, steps in all).
        run_dir: TensorBoard curves and `<what>.safetensors` go here.
    """
    with flushed_denormals():
        return _run(task, options, what, progress, run_dir)


def _run(task: Task, options: LoopOptions, what: str, progress: Progress | None, run_dir: Path | None) -> LoopResult:
    torch.manual_seed(options.seed)
    optimiser = _optimiser(task.model, options)
    steps, epochs = max(task.steps(), 1), options.stop_after or options.epochs
    rate = _schedule(steps * options.epochs, options)
    writer = _writer(run_dir, what)
    result, best, done = LoopResult(0, None), None, 0
    for epoch in range(epochs):
        began, total = time.perf_counter(), 0.0
        task.model.train()
        for batch in task.batches(epoch):
            for group in optimiser.param_groups:
                group["lr"] = rate(done)
            total += _step(task, optimiser, batch)
            done += 1
            if progress:
                progress(what, done, steps * epochs)
        task.model.eval()
        score = task.validate()
        result.losses.append(total / steps)
        result.seconds.append(time.perf_counter() - began)
        for name, value in (("loss", total / steps), ("validation", score), ("seconds", result.seconds[-1])):
            if writer is not None and value is not None:
                writer.add_scalar(f"{what}/{name}", value, epoch + 1)
        if score is None:
            result.best_epoch = epoch + 1
            continue
        result.scores.append(score)
        if result.best_score is None or score > result.best_score:
            result.best_epoch, result.best_score, best = epoch + 1, score, weights_of(task.model)
        elif epoch + 1 - result.best_epoch >= options.patience:
            break
    if best is not None:
        task.model.load_state_dict(best)
    if progress:
        progress(what, steps * epochs, steps * epochs)
    if writer is not None and run_dir is not None:
        writer.close()
        save_weights(task.model, run_dir / f"{what}.safetensors")
    return result


def _step(task: Task, optimiser: torch.optim.Optimizer, batch: Any) -> float:
    optimiser.zero_grad(set_to_none=True)
    loss = task.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(task.model.parameters(), NORM_LIMIT)
    optimiser.step()
    return float(loss.detach())


def _optimiser(model: nn.Module, options: LoopOptions) -> torch.optim.Optimizer:
    parameters = [part for part in model.parameters() if part.requires_grad]
    groups = [
        {"params": [part for part in parameters if part.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [part for part in parameters if part.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=BETAS, fused=True)


def _schedule(steps: int, options: LoopOptions) -> Callable[[int], float]:
    warm = max(1.0, options.warmup * steps)

    def rate(step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))
        return options.learning_rate * min(1.0, (step + 1) / warm) * (LAST_SHARE + (1 - LAST_SHARE) * fall)

    return rate


def _writer(run_dir: Path | None, what: str) -> Any:
    if run_dir is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # heavy, and only here

    run_dir.mkdir(parents=True, exist_ok=True)
    return SummaryWriter(str(run_dir / what))
