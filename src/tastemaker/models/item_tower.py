"""The item tower: what an item is (its text) and what people made of it (its id), in one space.

e = normalise(W·text + id). The id part is silenced at random in training, so that text alone lands near the same place: an item without
any event gets its vector from its text (cold start).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ID_SPREAD = 0.02


class ItemTower(nn.Module):
    """Item vectors of length one.

    Args:
        text: whitened text vectors, float32 [N, T]; zero rows for items without text.
        met: bool [N], items that have events to learn an id part from.
        dim: length D of an item vector.
        id_dropout: share of the items whose id part is silenced in a step.
    """

    text: Tensor
    met: Tensor

    def __init__(self, text: Tensor, met: Tensor, dim: int, id_dropout: float = 0.1) -> None:
        super().__init__()
        self.project = nn.Linear(text.shape[1], dim, bias=False)
        nn.init.normal_(self.project.weight, std=1 / math.sqrt(dim))
        self.identity = nn.Parameter(torch.randn(len(text), dim) * ID_SPREAD)
        self.id_dropout = id_dropout
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("met", met.to(torch.float32)[:, None], persistent=False)

    def forward(self) -> Tensor:
        """Vectors of all items, unit rows, float32 [N, D]."""
        weight_N1 = self.met
        if self.training and self.id_dropout > 0:
            weight_N1 = weight_N1 * (torch.rand(len(weight_N1), 1) >= self.id_dropout)
        return F.normalize(self.project(self.text) + self.identity * weight_N1, dim=-1)


class TextOnly(nn.Module):
    """The part of an item tower that needs no events: text vectors [n, T] to item vectors [n, D]. What a bundle exports."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        self.project = tower.project

    def forward(self, text: Tensor) -> Tensor:
        """Unit vectors, float32 [n, D]; the zero vector for a zero text."""
        return F.normalize(self.project(text), dim=-1)
