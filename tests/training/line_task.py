"""A task with an obvious answer: find the weights of a linear rule; run as a program, it trains until it is killed or done."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tastemaker.models.dropout import dropout
from tastemaker.schema.protocols import Progress
from tastemaker.training.loop import LoopOptions, Task, run
from tastemaker.training.optimisers import OptimiserOptions

ROWS, WIDTH = 600, 8


class LineTask(Task):
    """y = x · w; batches of 32, the last one smaller."""

    def __init__(self, seed: int = 0, rate: float = 0.2) -> None:
        random = np.random.default_rng(seed)
        self.x = torch.from_numpy(random.normal(size=(ROWS, WIDTH)).astype(np.float32))
        self.y = self.x @ torch.arange(1.0, WIDTH + 1)
        torch.manual_seed(seed)
        self.model: nn.Linear = nn.Linear(WIDTH, 1)
        self.rate, self.met = rate, list[tuple[int, int]]()

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """A new order each epoch."""
        order = np.random.default_rng([7, epoch]).permutation(ROWS)
        yield from (order[begin : begin + 32] for begin in range(0, ROWS, 32))

    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-ROWS // 32)

    def loss(self, batch: np.ndarray) -> Tensor:
        """Mean squared error, inputs silenced at random."""
        return (self.model(dropout(self.x[batch], self.rate, self.model.training))[:, 0] - self.y[batch]).square().mean()

    def validate(self) -> float:
        """Minus the error over all rows."""
        with torch.no_grad():
            return -float((self.model(self.x)[:, 0] - self.y).square().mean())

    def fingerprint(self) -> str:
        """The data's sum."""
        return str(float(self.x.sum()))


def train(folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Four epochs with an average of the weights and a checkpoint after each step."""
    task = LineTask()
    options = LoopOptions(epochs=4, optimiser=OptimiserOptions(learning_rate=0.05, ema=0.9), checkpoint_seconds=0.0)
    result = run(task, options, "line", progress, folder)
    return {"losses": result.losses, "scores": result.scores, "weights": task.model.weight.tolist()}


def main() -> None:
    """`line_task.py RUN_DIR die EPOCH STEP | full`: dies at a step, or meets a full disk after the first epoch."""
    folder, words, steps = Path(sys.argv[1]), sys.argv[2:], LineTask().steps()

    def progress(_: str, done: int, total: int) -> None:
        if words[0] == "die" and done == int(words[1]) * steps + int(words[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        if words[0] == "full" and done == steps + 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))

    train(folder, progress)


if __name__ == "__main__":
    main()
