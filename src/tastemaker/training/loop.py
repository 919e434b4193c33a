"""The training loop: one process or many, early stopping, checkpoints, one seed. It knows tasks, not models, and no cluster.

A step is a function of the weights, the optimiser's memory, the seed and the step's number alone: what is random in it is drawn from a generator
that the step's number seeds. So a training that was killed goes on as if nothing had happened, and the processes of a group agree.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tastemaker.schema.errors import TrainingError
from tastemaker.schema.protocols import Progress
from tastemaker.training.apart import Exchange
from tastemaker.training.checkpoints import (
    TrainingState,
    check_plan,
    check_weights,
    load_state,
    optimiser_tensors,
    restore_optimiser,
    restore_weights,
    save_state,
    weights_of,
    write_weights,
)
from tastemaker.training.curves import Curves
from tastemaker.training.group import from_leader, meet, rank, sum_of, world
from tastemaker.training.optimisers import ROW_BY_ROW, OptimiserOptions, WeightAverage, make_optimiser, make_schedule
from tastemaker.training.precision import flushed_denormals
from tastemaker.training.shards import shard

NORM_LIMIT = 1.0


class Task(ABC):
    """Something that learns.

    Attributes:
        model: what is learned.
        uses_all: whether every process needs every weight in every step; where that is not so, the exchange of gradients looks each time.
        sharded: whether the processes of a group hold parts of the weights, see `training.shards`.
        divides: whether the task itself deals the work of a batch to the processes of a group: `loss` is then given the same batch in each of them, and what
            they come to sums to the mean over it. Else each is given a share of the batch.
        apart: where it divides, names of the weights of whose rows each process reads those of `group.rows_of` alone.
    """

    model: nn.Module
    uses_all: bool = True
    sharded: bool = False
    divides: bool = False
    apart: tuple[str, ...] = ()

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of one epoch, a function of its number alone: each example once."""

    @abstractmethod
    def steps(self) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """A scalar to be made smaller: the mean over the batch."""

    def validate(self) -> float | None:
        """A score to be made larger; None where nothing is held back."""
        return None

    def share(self, batch: Any, part: int, parts: int) -> Any:
        """The examples of one of so many parts of a batch; together they are the batch, each example once."""
        return batch[part::parts]

    def weight(self, batch: Any) -> float:
        """How much a part counts in the mean over its batch, 0 where it is empty."""
        return float(len(batch))

    def fingerprint(self) -> str:
        """Changes with the data; a training goes on with the same data only."""
        return ""


@dataclass(frozen=True)
class LoopOptions:
    """How a task learns.

    Attributes:
        epochs: length of the schedule.
        begin_at: the epoch to begin with: the rate enters the schedule there. A refit goes on from learned weights in its middle.
        stop_after: the epoch to end with; the learning rate follows the whole schedule all the same. A refit uses the epochs that
            validation found best.
        patience: epochs without a better score before the loop stops.
        optimiser: see `OptimiserOptions`.
        accumulate: parts of a batch that are computed one after the other, for less memory; the step is the same.
        checkpoint_seconds: time between checkpoints, which are also written after each epoch.
        seed: of everything random.
    """

    epochs: int
    begin_at: int = 0
    stop_after: int | None = None
    patience: int = 3
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    accumulate: int = 1
    checkpoint_seconds: float = 60.0
    seed: int = 0


@dataclass
class LoopResult:
    """What a loop found: epochs are counted from 1, `scores` and `losses` have one number an epoch."""

    best_epoch: int
    best_score: float | None
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


Watch = Callable[[int, int, float], None]
"""Called after each judged epoch as watch(epoch from 1, epochs in all, score); what it raises ends the training."""


def run(
    task: Task,
    options: LoopOptions,
    what: str = "train",
    progress: Progress | None = None,
    run_dir: Path | None = None,
    watch: Watch | None = None,
) -> LoopResult:
    """Trains the task's model in place and leaves it with the weights of the best epoch.

    In a process group every process calls this with the same task; each computes its part of every batch, and all end with the same weights.

    Args:
        task: model, batches, loss and validation.
        options: the schedule.
        what: the name in the progress bar and of the files.
        progress: called after each step as (what, steps done, steps in all).
        run_dir: curves, `<what>.checkpoint` and `<what>.safetensors` go here. A checkpoint that is there already is gone on from.
        watch: see `Watch`.

    Raises:
        TrainingError: the loss is no number; the message names the batch, and the last checkpoint stays.
        InputError: the checkpoint that is there was made with other data or settings. BundleError: it is damaged.
    """
    with flushed_denormals():
        return _Run(task, options, what, progress, run_dir, watch).train()


class _Run:
    """One training: what `run` was asked, and where it stands."""

    def __init__(
        self,
        task: Task,
        options: LoopOptions,
        what: str,
        progress: Progress | None,
        run_dir: Path | None,
        watch: Watch | None = None,
    ) -> None:
        self.task, self.options, self.what, self.watch = task, options, what, watch
        self.steps, self.epochs = max(task.steps(), 1), options.stop_after or options.epochs
        self.progress = progress if rank() == 0 else None
        self.folder = run_dir
        self.path = run_dir / f"{what}.checkpoint" if run_dir is not None else None
        self.curves = Curves(run_dir if rank() == 0 else None, what)
        self.sharded = task.sharded and world() > 1
        if self.sharded:
            shard(task.model)
        self.optimiser = make_optimiser(task.model, options.optimiser)
        self.rate = make_schedule(self.steps * options.epochs, options.optimiser)
        self.average = WeightAverage(task.model, options.optimiser.ema) if options.optimiser.ema else None
        self.forward: nn.Module = _Forward(task)
        self.exchange: Exchange | None = None
        if world() > 1 and task.divides:
            apart = task.apart if options.optimiser.optimiser in ROW_BY_ROW else ()
            self.exchange = Exchange(task.model, self.optimiser, self.average, apart)
        elif world() > 1 and not self.sharded:
            self.forward = _exchanging(self.forward, task.uses_all)
        self.state = TrainingState(
            epoch=options.begin_at, plan={**asdict(options), "data": task.fingerprint(), "steps": self.steps}
        )
        self.best: dict[str, Tensor] | None = None
        self.saved, self.due = time.monotonic(), False
        self._resume()
        meet()  # nobody writes a newer checkpoint while another one reads

    def train(self) -> LoopResult:
        """All epochs that are left."""
        state, options = self.state, self.options
        while state.epoch < self.epochs and not (state.scores and state.epoch - state.best_epoch >= options.patience):
            self._epoch()
        if self.best is not None:
            restore_weights(self.task.model, self.best)
        elif self.average is not None:
            self.average.swap()
        self._tell(self.steps * self.epochs)
        self.curves.close()
        if self.folder is not None and (rank() == 0 or self.sharded):
            weights = weights_of(self.task.model)
            if rank() == 0:
                write_weights(weights, self.folder / f"{self.what}.safetensors")
        return LoopResult(state.best_epoch, state.best_score, state.scores, state.losses, state.seconds)

    def _epoch(self) -> None:
        state, task, began = self.state, self.task, time.perf_counter()
        task.model.train()
        for batch in itertools.islice(task.batches(state.epoch), state.step, None):
            state.total += self._step(batch)
            state.step += 1
            self._tell(state.epoch * self.steps + state.step)
            if state.step < self.steps and self._is_due():
                self._settle()
                self._save()
        self._settle()
        score = self._judge()
        state.losses.append(state.total / self.steps)
        state.seconds.append(time.perf_counter() - began)
        state.epoch, state.step, state.total = state.epoch + 1, 0, 0.0
        self.curves.epoch(state.epoch, loss=state.losses[-1], validation=score, seconds=state.seconds[-1])
        if score is None:
            state.best_epoch = state.epoch
        else:
            state.scores.append(score)
            if state.best_score is None or score > state.best_score:
                state.best_epoch, state.best_score = state.epoch, score
                self.best = self._weights()
        self._save()
        if self.watch is not None and score is not None:
            self.watch(state.epoch, self.epochs, score)

    def _step(self, batch: Any) -> float:
        """One step on this process's parts of a batch; gives the batch's mean loss."""
        state, task, options = self.state, self.task, self.options
        number = state.epoch * self.steps + state.step
        torch.manual_seed(options.seed * 1_000_003 + number)
        self.optimiser.zero_grad(set_to_none=True)
        total = self._gradients(batch)
        if self.exchange is None:
            total = sum_of(total)
        else:
            total, norm, self.due = self.exchange.sum(total, time.monotonic() - self.saved > options.checkpoint_seconds)
        if not math.isfinite(total):
            raise TrainingError(_not_finite(self.what, state, total, self.path))
        if self.exchange is None:
            nn.utils.clip_grad_norm_(task.model.parameters(), NORM_LIMIT)
        else:
            self.exchange.clip(norm, NORM_LIMIT)
        rate = self.rate(number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if self.average is not None:
            self.average.update()
        self.curves.step(number, loss=total, rate=rate)
        return total

    def _gradients(self, batch: Any) -> float:
        """Adds up the gradients of this process's parts of a batch; gives their share of its mean loss."""
        task, turns, whole, total = self.task, self.options.accumulate, self.task.weight(batch), 0.0
        dealt = 1 if self.exchange is not None else world()
        for turn in range(turns):
            part, parts = (rank() * turns + turn, dealt * turns) if dealt > 1 else (turn, turns)
            mine = task.share(batch, part, parts) if parts > 1 else batch
            weight = task.weight(mine)
            last = turn == turns - 1
            waits = self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) and not last else nullcontext()
            with waits:
                share = weight / whole if weight else 0.0  # an empty part takes part in the exchange, with the batch and no weight
                loss = self.forward(mine if weight else batch) * share
                (loss * dealt).backward()  # the exchange divides by the number of processes
            total += float(loss.detach())
        return total

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(self.what, done, self.steps * self.epochs)

    def _judge(self) -> float | None:
        """The leader's score, of the averaged weights where there are some."""
        self.task.model.eval()
        if self.average is not None:
            self.average.swap()
        score = from_leader(self.task.validate() if rank() == 0 else None)
        if self.average is not None:
            self.average.swap()
        return score

    def _settle(self) -> None:
        """Brings together what each process learned apart."""
        if self.exchange is not None:
            self.exchange.settle()

    def _weights(self) -> dict[str, Tensor]:
        """A copy of the weights that were judged."""
        if self.average is None:
            return weights_of(self.task.model)
        return {**weights_of(self.task.model), **{name: value.clone() for name, value in self.average.values.items()}}

    def _is_due(self) -> bool:
        """Whether a checkpoint is due; where all must give their part, the leader's clock decides."""
        if self.exchange is not None:
            return self.due
        due = time.monotonic() - self.saved > self.options.checkpoint_seconds
        return from_leader(due) if self.sharded else due

    def _save(self) -> None:
        """Writes a checkpoint; a full disk is told once a time, and the training goes on."""
        self.saved = time.monotonic()
        if self.path is None or (rank() != 0 and not self.sharded):
            return
        state = self.state
        parts = {"model": weights_of(self.task.model), "optimiser": optimiser_tensors(self.optimiser), "best": self.best or {}}
        if self.average is not None:
            parts["average"], state.average_steps = self.average.values, self.average.steps
        state.tensors = {f"{part}.{name}": value for part, named in parts.items() for name, value in named.items()}
        try:
            if rank() == 0:
                save_state(self.path, state)
        except OSError as error:
            warnings.warn(
                f"The checkpoint {self.path} was not renewed: {error}. The one before is kept.", RuntimeWarning, stacklevel=2
            )
        state.tensors = {}

    def _resume(self) -> None:
        found = load_state(self.path) if self.path is not None else None
        if found is None or self.path is None:
            return
        check_plan(self.path, found.plan, self.state.plan)
        check_weights(self.path, self.task.model, found.part("model"))
        restore_weights(self.task.model, found.part("model"))
        restore_optimiser(self.optimiser, found.part("optimiser"))
        self.best = found.part("best") or None
        if self.average is not None:
            self.average.restore(found.part("average"), found.average_steps)
        found.tensors = {}
        self.state = found


class _Forward(nn.Module):
    """A task's loss as a module: what exchanges gradients watches a forward pass."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self._loss = task.model, task.loss

    def forward(self, batch: Any) -> Tensor:
        """The task's loss."""
        return self._loss(batch)


def _exchanging(forward: nn.Module, uses_all: bool) -> nn.Module:
    """The module whose backward pass averages gradients over the group. Buffers (texts) never change: sent anew each step they took a third of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the word's newer name is not known to older versions
        return DistributedDataParallel(
            forward, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=not uses_all
        )


def _not_finite(what: str, state: TrainingState, loss: float, path: Path | None) -> str:
    kept = f" The checkpoint {path} holds the state before." if path is not None and path.is_file() else ""
    return (
        f"The loss of {what!r} became {loss} at epoch {state.epoch + 1}, batch {state.step + 1}.{kept} "
        "Look for values in the data that are no numbers, or lower the learning rate."
    )
