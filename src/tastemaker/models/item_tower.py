"""The item tower: what an item is (its text, picture, sound, place in a graph) and what people made of it (its id), in one space.

e = normalise(content + id), where the content is a gated sum of the item's signals. The id part is silenced at random in training, so that the content
alone lands near the same place: an item without any event gets its vector from its content (cold start). Signals are silenced at random too, so that any
of them may be missing for any item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.schema.signals import Signals

ID_SPREAD = 0.02
_ALL = slice(None)
_HASHES = (0x9E3779B1, 0x85EBCA77)  # odd numbers near 2^32 over the golden ratio, and xxHash's second prime


class GatedSum(nn.Module):
    """Signals of an item in one space, each weighed among those that the item has.

    content = Σ_s g_s W_s v_s with g = softmax, over the signals that are there, of a_s + q_s · W_s v_s (a gated multimodal unit: Arevalo et al. 2017). A gate
    begins as 1 / (number of signals that are there) and sums to one with the others, so that a missing signal leaves no hole. A single signal has no gate.

    Args:
        widths: name of each signal to the length of its vectors.
        dim: length D of the content.
    """

    def __init__(self, widths: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict()
        for name, width in widths.items():
            self.project[name] = nn.Linear(width, dim, bias=False)
            nn.init.normal_(self.project[name].weight, std=1 / math.sqrt(dim))  # type: ignore[arg-type]
        if len(widths) > 1:
            self.prior = nn.Parameter(torch.zeros(len(widths)))
            self.query = nn.Parameter(torch.zeros(len(widths), dim))

    def forward(self, vectors: Sequence[Tensor], dropout: float = 0.0, rows: slice = _ALL, total: int | None = None) -> Tensor:
        """Content, float32 [n, D]; zero for an item that has no signal.

        Args:
            vectors: of each signal in order, float32 [n, W_s]; zero rows where the item lacks it.
            dropout: share of an item's signals that are silenced, the last one that is left never.
            rows, total: these items are those rows of so many, all of which chance draws for; else they are all.
        """
        parts = [project(given) for project, given in zip(self.project.values(), vectors, strict=True)]
        if len(parts) == 1:
            found: Tensor = parts[0]
            return found
        there_nS = torch.stack([given.abs().sum(-1) > 0 for given in vectors], dim=-1)
        if dropout > 0:
            drawn_nS = torch.rand(len(there_nS) if total is None else total, len(parts))[rows]
            kept_nS = there_nS & (drawn_nS >= dropout)
            there_nS = torch.where(kept_nS.any(-1, keepdim=True), kept_nS, there_nS)
        parts_nSD = torch.stack(parts, dim=-2)
        logits_nS = self.prior + (parts_nSD * self.query).sum(-1)
        gates_nS = torch.softmax(logits_nS.masked_fill(~there_nS, -1e9), dim=-1) * there_nS
        return (gates_nS[..., None] * parts_nSD).sum(-2)


class ItemTower(nn.Module):
    """Item vectors of length one.

    Args:
        signals: what the items are, N of them.
        met: bool [N], items that have events to learn an id part from.
        dim: length D of an item vector.
        id_dropout: share of the items whose id part is silenced in a step.
        id_rows: rows R of the table of id parts. A larger catalogue shares them: an item's part is the sum of two rows that hashes of its number
            choose (hash embeddings, Svenstrup et al. 2017), so that memory does not grow with the catalogue. Two items share both rows with a
            chance of about 2 / R².
        signal_dropout: share of the signals of items with several that are silenced in a step.
    """

    met: Tensor

    def __init__(
        self,
        signals: Signals,
        met: Tensor,
        dim: int,
        id_dropout: float = 0.1,
        id_rows: int = 2**62,
        signal_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim, self.widths = dim, signals.widths
        self.content = GatedSum(self.widths, dim)
        self.hashed = len(signals) > id_rows
        self.identity = nn.Parameter(torch.randn(min(len(signals), id_rows), dim) * ID_SPREAD)
        self.n_items, self.id_dropout, self.signal_dropout = len(signals), id_dropout, signal_dropout
        for part in signals.parts:
            self.register_buffer(f"_{part.name}", torch.from_numpy(part.vectors), persistent=False)
        self.register_buffer("met", met.to(torch.float32)[:, None], persistent=False)

    def signals(self, items: Tensor | None = None) -> list[Tensor]:
        """The vectors of each signal in order, float32 [N, W]; of some items only where their numbers are given, int64 [n]."""
        whole = [self.get_buffer(f"_{name}") for name in self.widths]
        return whole if items is None else [vectors[items] for vectors in whole]

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [N, D]; of some items only where their numbers are given, int64 [n]."""
        weight_n1 = self.met if items is None else self.met[items]
        if self.training and self.id_dropout > 0:
            weight_n1 = weight_n1 * (torch.rand(len(weight_n1), 1) >= self.id_dropout)
        content_nD = self.content(self.signals(items), self.signal_dropout if self.training else 0.0)
        return F.normalize(content_nD + self._identity(items) * weight_n1, dim=-1)

    def part(self, rows: slice) -> Tensor:
        """Those rows of what `forward()` would give, chance and all, float32 [n, D]; the others are not computed."""
        weight_n1 = self.met[rows]
        if self.training and self.id_dropout > 0:
            weight_n1 = weight_n1 * (torch.rand(self.n_items, 1) >= self.id_dropout)[rows]
        vectors = [self.get_buffer(f"_{name}")[rows] for name in self.widths]
        content_nD = self.content(vectors, self.signal_dropout if self.training else 0.0, rows, self.n_items)
        return F.normalize(content_nD + self.identity[rows] * weight_n1, dim=-1)

    def _identity(self, items: Tensor | None) -> Tensor:
        if not self.hashed:
            return self.identity if items is None else F.embedding(items, self.identity)
        numbers = torch.arange(self.n_items) if items is None else items
        first, second = (((numbers + 1) * odd >> 7) % len(self.identity) for odd in _HASHES)
        return F.embedding(first, self.identity) + F.embedding(second, self.identity)


class ItemRows:
    """The vectors of a tower's items, computed for those that are asked for: a step over a sample never touches the rest."""

    def __init__(self, tower: ItemTower) -> None:
        self._tower = tower

    def __len__(self) -> int:
        return self._tower.n_items

    def __getitem__(self, items: Tensor) -> Tensor:
        """Unit vectors of items, int64 of any shape, float32 [..., D]; each different one is computed once."""
        found, place = torch.unique(items, return_inverse=True)
        return F.embedding(place, self._tower(found))


class ContentOnly(nn.Module):
    """The part of an item tower that needs no events: contents [n, C], signals one behind the other, to item vectors [n, D]. What a bundle exports."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        self.content, self.widths = tower.content, list(tower.widths.values())

    def forward(self, content: Tensor) -> Tensor:
        """Unit vectors, float32 [n, D]; the zero vector for a content of zeros."""
        return F.normalize(self.content(torch.split(content, self.widths, dim=-1)), dim=-1)
