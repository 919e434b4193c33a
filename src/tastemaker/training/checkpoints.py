"""Weights on disk and in memory; safetensors only, so that reading a file can't run code."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tastemaker.schema.errors import BundleError


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights as they are now."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes a model's weights; a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.contiguous() for name, value in weights_of(model).items()}, str(partial))
    partial.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts saved weights into a model of the same shape.

    Raises:
        BundleError: the file is absent or no safetensors file, or its shapes are another model's.
    """
    try:
        weights: dict[str, Tensor] = load_file(str(path))
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not hold the weights of this model: {error}") from None


def count_parameters(model: nn.Module) -> int:
    """Learned numbers of a model."""
    return sum(part.numel() for part in model.parameters() if isinstance(part, torch.nn.Parameter))
