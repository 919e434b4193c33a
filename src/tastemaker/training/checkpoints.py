"""Weights and the whole state of a training on disk; safetensors only, so that reading a file can't run code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tastemaker.schema.errors import BundleError, InputError
from tastemaker.training.shards import split_like, whole

Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """A training between two steps.

    Attributes:
        epoch, step: where the next step stands: the epoch from 0, and the batch in it.
        total: sum of the losses of the epoch's steps so far.
        best_epoch, best_score, scores, losses, seconds: as in `training.loop.LoopResult`.
        average_steps: updates of the averaged weights so far.
        plan: what must be equal for the training to go on.
        tensors: `model.…`, `optimiser.N.…`, `average.…` and `best.…`.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best_epoch: int = 0
    best_score: float | None = None
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    average_steps: int = 0
    plan: dict[str, Any] = field(default_factory=dict)
    tensors: Tensors = field(default_factory=dict, repr=False)

    def part(self, name: str) -> Tensors:
        """The tensors of one part, by their names in it."""
        return {key.removeprefix(f"{name}."): value for key, value in self.tensors.items() if key.startswith(f"{name}.")}


def weights_of(model: nn.Module) -> Tensors:
    """A copy of a model's weights as they are now; of one that lies in shards every process must ask."""
    return {name: whole(value.detach()).clone() for name, value in model.state_dict().items()}


def restore_weights(model: nn.Module, weights: Tensors) -> None:
    """Puts whole weights into a model, be it in shards."""
    there = model.state_dict()
    model.load_state_dict({name: split_like(value, there[name]) for name, value in weights.items()})


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> Tensors:
    """What an optimiser remembers, by `N.name`; of a model that lies in shards every process must ask."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": whole(value) for number, kept in state.items() for name, value in kept.items() if value is not None}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Gives an optimiser its memory back."""
    state: dict[int, Tensors] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        weight = weights[int(number)]
        state.setdefault(int(number), {})[name] = split_like(value, weight) if value.shape == weight.shape else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def save_state(path: Path, state: TrainingState) -> None:
    """Writes a training's state; a reader sees the old file or the whole new one.

    Raises:
        OSError: the disk is full or not to be written; the old file is as it was.
    """
    words = {name: value for name, value in asdict(_bare(state)).items() if name != "tensors"}
    tensors = {name: value.detach().contiguous() for name, value in state.tensors.items()}
    _write(path, tensors, {"state": json.dumps(words), "xxh3": _digest(tensors)})


def load_state(path: Path) -> TrainingState | None:
    """The state that `save_state` wrote; None where there is no file.

    Raises:
        BundleError: the file is damaged.
    """
    if not path.is_file():
        return None
    advice = f"Delete {path.name} to begin this training anew."
    try:
        with safe_open(str(path), framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        state = TrainingState(**json.loads(words["state"]), tensors=tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is no checkpoint of a training: {error}. {advice}") from None
    if _digest(tensors) != words.get("xxh3"):
        raise BundleError(f"{path} is damaged: its numbers are not those that were written. {advice}")
    return state


def check_weights(path: Path, model: nn.Module, weights: Tensors) -> None:
    """Refuses a checkpoint of another model, such as one that another version of this package wrote.

    Raises:
        BundleError: names differ; the message tells the first.
    """
    there = model.state_dict().keys()
    if there != weights.keys():
        name = min(there ^ weights.keys())
        side = "lacks" if name in there else "holds"
        raise BundleError(
            f"{path} {side} {name!r}: it is of another model or another version. Delete {path.name} to begin this training anew."
        )


def check_plan(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to go on with other data or other settings.

    Raises:
        InputError: the checkpoint was made by another plan; the message names the first difference.
    """
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise InputError(
                f"{path} was written with {name} = {found.get(name)!r}, and now it is {wanted[name]!r}. "
                "Go on with the same data and settings, or begin a new run."
            )


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's weights; a reader sees the old file or the whole new one."""
    write_weights(weights_of(model), path)


def write_weights(weights: Tensors, path: Path) -> None:
    """Writes weights; a reader sees the old file or the whole new one."""
    _write(path, {name: value.contiguous() for name, value in weights.items()}, {})


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts saved weights into a model of the same shape.

    Raises:
        BundleError: the file is absent or no safetensors file, or its shapes are another model's.
    """
    try:
        weights: Tensors = load_file(str(path))
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not hold the weights of this model: {error}") from None


def count_parameters(model: nn.Module) -> int:
    """Learned numbers of a model."""
    return sum(part.numel() for part in model.parameters() if isinstance(part, torch.nn.Parameter))


def _bare(state: TrainingState) -> TrainingState:
    return TrainingState(**{**vars(state), "tensors": {}})


def _write(path: Path, tensors: Tensors, words: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, str(partial), metadata=words)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except SafetensorError as error:  # the library wraps the system's own error
        raise OSError(f"{path} can't be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _digest(tensors: Tensors) -> str:
    """A hash over names and bytes: safetensors has no checksum of its own."""
    found = xxhash.xxh3_128()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
