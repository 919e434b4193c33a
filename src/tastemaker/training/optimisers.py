"""What turns gradients into steps: the optimiser, the learning rate over time, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tastemaker.schema.errors import SettingsError

BETAS = (0.9, 0.98)
MOMENTUM = 0.9
LAST_SHARE = 0.05
RATE_OF = {"adafactor": 30.0}
"""What the learning rate is multiplied by: Adafactor's steps are relative to the size of the weights, which are small here."""
OPTIMISERS = ("adamw", "adam", "sgd", "adafactor")
ROW_BY_ROW = ("adamw", "adam", "sgd")
"""Those to which a row of a table is nothing but its numbers; Adafactor looks at the whole table."""
SCHEDULES = ("cosine", "one_cycle", "constant")
Rate = Callable[[int], float]


@dataclass(frozen=True)
class OptimiserOptions:
    """How steps are made.

    Attributes:
        optimiser: `adamw` (Loshchilov and Hutter 2019: weight decay apart from the gradient), `adam` (Kingma and Ba 2015: decay as an L2
            term of the loss), `sgd` (momentum 0.9, L2 term) or `adafactor` (Shazeer and Stern 2018: second moments of a matrix kept as one
            row and one column, a third of Adam's memory; its rate is `RATE_OF` times the given one).
        schedule: `cosine` (warm-up, then a half cosine down to a twentieth), `one_cycle` (Smith and Topin 2018: up for three tenths of the
            steps and down to nothing) or `constant` (after the warm-up).
        learning_rate, weight_decay: biases, gains and other vectors do not decay.
        warmup: share of the steps in which the rate grows from zero.
        ema: decay of the exponential moving average of the weights that is validated and kept in their stead; 0: none. In the first steps
            the decay is (1 + step) / (10 + step), so that the beginning is forgotten soon.
    """

    optimiser: str = "adamw"
    schedule: str = "cosine"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    ema: float = 0.0


def make_optimiser(model: nn.Module, options: OptimiserOptions) -> torch.optim.Optimizer:
    """The optimiser over what a model learns.

    Raises:
        SettingsError: an unknown word.
    """
    parameters = [part for part in model.parameters() if part.requires_grad]
    groups = [
        {"params": [part for part in parameters if part.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [part for part in parameters if part.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = options.learning_rate
    if options.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)
    if options.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=BETAS, fused=True)
    if options.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
    if options.optimiser == "adafactor":
        return torch.optim.Adafactor(groups, lr=rate, foreach=False)
    raise SettingsError(f"train.optimiser is {options.optimiser!r}; expected {', '.join(OPTIMISERS)}.")


def make_schedule(steps: int, options: OptimiserOptions) -> Rate:
    """The learning rate of each step of so many, counted from 0.

    Raises:
        SettingsError: an unknown word.
    """
    if options.schedule not in SCHEDULES:
        raise SettingsError(f"train.schedule is {options.schedule!r}; expected {', '.join(SCHEDULES)}.")
    steps, peak = max(steps, 1), options.learning_rate * RATE_OF.get(options.optimiser, 1.0)
    warm = max(1.0, (0.3 if options.schedule == "one_cycle" else options.warmup) * steps)

    def rise(step: int) -> float:
        return min(1.0, (step + 1) / warm)

    def cosine(step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
        return peak * rise(step) * (LAST_SHARE + (1 - LAST_SHARE) * fall)

    def one_cycle(step: int) -> float:
        if step < warm:
            return peak * (1 / 25 + (1 - 1 / 25) * rise(step))
        return peak * 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(steps - warm, 1.0), 1.0)))

    def constant(step: int) -> float:
        return peak * rise(step)

    return {"cosine": cosine, "one_cycle": one_cycle, "constant": constant}[options.schedule]


class WeightAverage:
    """Exponential moving average of what a model learns (Polyak and Juditsky 1992, in its exponential form)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parts = {name: part for name, part in model.named_parameters() if part.requires_grad}
        self._decay, self._steps = decay, 0
        self.values = {name: part.detach().clone() for name, part in self._parts.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights of this step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(list(self.values.values()), list(self._parts.values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights of the model and their average; called twice it changes nothing."""
        for name, part in self._parts.items():
            kept = part.detach().clone()
            part.copy_(self.values[name])
            self.values[name].copy_(kept)

    def restore(self, values: dict[str, Tensor], steps: int) -> None:
        """Goes on from a checkpoint."""
        self._steps = steps
        for name, value in values.items():
            self.values[name].copy_(value)

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self._steps
