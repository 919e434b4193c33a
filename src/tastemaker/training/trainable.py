"""Which weights of the language model are trained in each mode."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from torch import nn

from tastemaker.models.contrastive import ResidualHead
from tastemaker.models.text import TextTower, Whitening
from tastemaker.schema.errors import MissingExtraError, SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import FinetuneSettings
from tastemaker.training.lower_layers import layers_of

MODES = ("frozen", "head", "last", "lora", "full")
HEAD_RATE = 10.0  # the head begins at nothing and bears larger steps than a trained model


def check_mode(mode: str) -> None:
    """Refuses an unknown `finetune.mode`, and `lora` where peft is not installed.

    Raises:
        SettingsError: an unknown mode; the known ones are named. MissingExtraError: peft is absent.
    """
    if mode not in MODES:
        raise SettingsError(f"finetune.mode is {mode!r}; expected one of {', '.join(MODES)}.")
    if mode == "lora" and importlib.util.find_spec("peft") is None:
        raise MissingExtraError("lora", "finetune.mode 'lora'")


def choose_trainable(tower: TextTower, settings: FinetuneSettings, vectors: FloatArray, dim: int) -> tuple[TextTower, int]:
    """Marks what is trained.

    Args:
        tower: changed in place.
        settings: mode, layers and lora_rank are read.
        vectors: of the catalogue before, [n, H]; a head begins with their whitening.
        dim: directions that it keeps.

    Returns:
        The tower, and how many of its lowest layers stay as they are.
    """
    tower.requires_grad_(settings.mode == "full")
    frozen = 0
    if settings.mode == "head":
        whitening = Whitening.fit(vectors, dim)
        tower.head = ResidualHead(torch.from_numpy(whitening.mean), torch.from_numpy(whitening.components))
    if settings.mode == "last":
        layers = layers_of(tower.backbone)
        frozen = max(0, len(layers) - settings.layers)
        for layer in layers[frozen:]:
            layer.requires_grad_(True)
    if settings.mode == "lora":
        from tastemaker.training._peft import with_adapters

        tower.backbone = with_adapters(tower.backbone, settings.lora_rank)
    return tower, frozen


def plain(tower: TextTower, mode: str) -> TextTower:
    """The same tower without traces of training: adapters are added into the weights they adapt."""
    if mode == "lora":
        from tastemaker.training._peft import merged

        tower.backbone = merged(tower.backbone)
    tower.requires_grad_(False)
    return tower


def trained_share(model: nn.Module) -> float:
    """Share of the weights that are trained, in [0, 1]."""
    sizes = np.array([[part.numel(), part.numel() * part.requires_grad] for part in model.parameters()])
    return float(sizes[:, 1].sum() / max(sizes[:, 0].sum(), 1))
