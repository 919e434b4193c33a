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
_HASHES = (0x9E3779B1, 0x85EBCA77)  # odd numbers near 2^32 over the golden ratio, and xxHash's second prime


class ItemTower(nn.Module):
    """Item vectors of length one.

    Args:
        text: whitened text vectors, float32 [N, T]; zero rows for items without text.
        met: bool [N], items that have events to learn an id part from.
        dim: length D of an item vector.
        id_dropout: share of the items whose id part is silenced in a step.
        id_rows: rows R of the table of id parts. A larger catalogue shares them: an item's part is the sum of two rows that hashes of its number
            choose (hash embeddings, Svenstrup et al. 2017), so that memory does not grow with the catalogue. Two items share both rows with a
            chance of about 2 / R².
    """

    text: Tensor
    met: Tensor

    def __init__(self, text: Tensor, met: Tensor, dim: int, id_dropout: float = 0.1, id_rows: int = 2**62) -> None:
        super().__init__()
        self.project = nn.Linear(text.shape[1], dim, bias=False)
        nn.init.normal_(self.project.weight, std=1 / math.sqrt(dim))
        self.hashed = len(text) > id_rows
        self.identity = nn.Parameter(torch.randn(min(len(text), id_rows), dim) * ID_SPREAD)
        self.id_dropout = id_dropout
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("met", met.to(torch.float32)[:, None], persistent=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [N, D]; of some items only where their numbers are given, int64 [n]."""
        text, weight_n1 = (self.text, self.met) if items is None else (self.text[items], self.met[items])
        if self.training and self.id_dropout > 0:
            weight_n1 = weight_n1 * (torch.rand(len(weight_n1), 1) >= self.id_dropout)
        return F.normalize(self.project(text) + self._identity(items) * weight_n1, dim=-1)

    def _identity(self, items: Tensor | None) -> Tensor:
        if not self.hashed:
            return self.identity if items is None else F.embedding(items, self.identity)
        numbers = torch.arange(len(self.text)) if items is None else items
        first, second = (((numbers + 1) * odd >> 7) % len(self.identity) for odd in _HASHES)
        return F.embedding(first, self.identity) + F.embedding(second, self.identity)


class ItemRows:
    """The vectors of a tower's items, computed for those that are asked for: a step over a sample never touches the rest."""

    def __init__(self, tower: ItemTower) -> None:
        self._tower = tower

    def __len__(self) -> int:
        return len(self._tower.text)

    def __getitem__(self, items: Tensor) -> Tensor:
        """Unit vectors of items, int64 of any shape, float32 [..., D]; each different one is computed once."""
        found, place = torch.unique(items, return_inverse=True)
        return F.embedding(place, self._tower(found))


class TextOnly(nn.Module):
    """The part of an item tower that needs no events: text vectors [n, T] to item vectors [n, D]. What a bundle exports."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        self.project = tower.project

    def forward(self, text: Tensor) -> Tensor:
        """Unit vectors, float32 [n, D]; the zero vector for a zero text."""
        return F.normalize(self.project(text), dim=-1)
