"""What the processes of a group exchange where each learns some rows of the large tables alone.

A process never reads another one's rows in a step, so their gradients, and what the optimiser remembers of them, stay at home: a catalogue's table is by far
the largest part of a model, and its exchange cost more than the rest of a step (ZeRO's idea, Rajbhandari et al. 2020, arXiv 1910.02054, for rows).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tastemaker.training.group import rank, rows_of, sum_into, world
from tastemaker.training.optimisers import WeightAverage


class Exchange:
    """Sums the gradients of a group, and brings its tables together where they are wanted whole.

    Args:
        model: the same in every process.
        optimiser: over its weights.
        average: of its weights, if there is one.
        apart: names of the weights of which each process learns the rows `group.rows_of` alone; the gradients of all others are summed.
    """

    def __init__(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, average: WeightAverage | None, apart: Sequence[str]
    ) -> None:
        learned = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self._apart = {name: learned[name] for name in apart}
        self._shared = [part for name, part in learned.items() if name not in self._apart]
        self._optimiser, self._average = optimiser, average

    def sum(self, loss: float, leader_asks: bool) -> tuple[float, Tensor, bool]:
        """After the backward pass: sums gradients and losses.

        Returns:
            The loss of all, the norm of all gradients, and what the leader asked.
        """
        for part in self._shared:
            if part.grad is None:  # this process had nothing to learn from
                part.grad = torch.zeros_like(part)
        gradients = [part.grad for part in self._shared if part.grad is not None]
        own = [part.grad[rows_of(len(part))] for part in self._apart.values() if part.grad is not None]
        squares = sum((rows.square().sum() for rows in own), torch.zeros(()))
        told = torch.stack([torch.tensor(loss), squares, torch.tensor(float(leader_asks and rank() == 0))])
        flat = torch.cat([told, *(gradient.flatten() for gradient in gradients)])
        sum_into(flat)
        summed = flat[len(told) :]
        for gradient, piece in zip(gradients, torch.split(summed, [gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))
        return float(flat[0]), (flat[1] + summed.square().sum()).sqrt(), bool(flat[2])

    def clip(self, norm: Tensor, limit: float) -> None:
        """Shrinks the gradients of all to a norm of at most `limit`, as `torch.nn.utils.clip_grad_norm_` does."""
        gradients = [part.grad for part in [*self._shared, *self._apart.values()] if part.grad is not None]
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))

    def settle(self) -> None:
        """Gives every process the rows of all: weights, what the optimiser remembers, the average."""
        for table in self._tables():
            for process in range(world()):
                dist.broadcast(table.data[rows_of(len(table), process)], src=process)

    def _tables(self) -> Iterator[Tensor]:
        for name, part in self._apart.items():
            yield part
            for kept in self._optimiser.state[part].values():
                if isinstance(kept, Tensor) and kept.shape == part.shape:
                    yield kept
            if self._average is not None:
                yield self._average.values[name]
