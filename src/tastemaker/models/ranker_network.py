"""The ranker's network in torch; `models.ranker.forward` is the same formula in NumPy, and the weights bear the same names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.ranker import Shape

NAMED = 0.05
"""Standard deviation of the vectors of names at the start."""
POSITIONS = 64
"""Places of an answer that have a number of their own; what stands lower shares the last."""


class RankerNetwork(nn.Module):
    """Cross network or factorisation machine, and experts behind gates (MMoE: J. Ma et al., 2018; PLE: H. Tang et al., 2020).

    The position tower (J. Zhao et al., 2019: a shallow tower) learns what the place of a shown item alone brings; it is no part of what answers.

    Args:
        shape: how it is built. dropout: share of the experts' units that are silenced.
    """

    mask: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        width, experts, tasks = shape.width, shape.all_experts, shape.tasks
        self.tables = nn.Parameter(NAMED * torch.randn(shape.fields, shape.buckets + 1, shape.embedding))
        if shape.body == "dcn":
            self.cross = nn.Parameter(torch.randn(shape.cross_layers, width, width) * 0.1 / math.sqrt(width))
            self.cross_bias = nn.Parameter(torch.zeros(shape.cross_layers, width))
        if shape.body == "deepfm":
            self.factors = nn.Parameter(NAMED * torch.randn(shape.dense, shape.embedding))
        before = width
        for layer, size in enumerate(shape.hidden):
            self.register_parameter(
                f"expert_{layer}", nn.Parameter(torch.randn(experts, before, size) * math.sqrt(2 / max(before, 1)))
            )
            self.register_parameter(f"expert_bias_{layer}", nn.Parameter(torch.zeros(experts, 1, size)))
            before = size
        self.gate = nn.Parameter(torch.zeros(width, tasks * experts))
        self.wide = nn.Parameter(torch.zeros(shape.wide, tasks))
        self.tower = nn.Parameter(torch.zeros(tasks, before))
        with torch.no_grad():  # `next` begins as the fusion itself
            self.tower[1:] = torch.randn(tasks - 1, before) / math.sqrt(before)
        self.bias = nn.Parameter(torch.zeros(tasks))
        self.fusion_scale = nn.Parameter(torch.ones(1))
        self.positions = nn.Parameter(torch.zeros(POSITIONS + 1, tasks))
        self.register_buffer("mask", torch.from_numpy(shape.mask()), persistent=False)

    def forward(self, dense: Tensor, codes: Tensor, fusion: Tensor) -> Tensor:
        """Logits of all tasks, [n, T], from columns [n, X], numbers of names [n, C] and the fusion's scores [n]."""
        shape = self.shape
        named = self.tables[torch.arange(shape.fields), codes]
        x = torch.cat([dense, named.flatten(1)], 1)
        h = x[None]
        for layer in range(len(shape.hidden)):
            weight, bias = getattr(self, f"expert_{layer}"), getattr(self, f"expert_bias_{layer}")
            h = F.dropout(F.relu(h @ weight + bias), self.dropout, self.training)
        gate = torch.softmax((x @ self.gate).view(len(x), shape.tasks, shape.all_experts) + self.mask, -1)
        told = torch.einsum("jnh,th->ntj", h, self.tower)
        logits = self._wide(dense, named, x) @ self.wide + (gate * told).sum(-1) + self.bias
        first = logits[:, :1] + self.fusion_scale * fusion[:, None]
        return torch.cat([first, logits[:, 1:]], 1)

    def of_position(self, positions: Tensor) -> Tensor:
        """What the places of shown items bring, [n, T]; 0 where a row was not shown (-1)."""
        known = (positions >= 0).float()[:, None]
        return self.positions[positions.clamp(0, POSITIONS)] * known

    def _wide(self, dense: Tensor, named: Tensor, x: Tensor) -> Tensor:
        if self.shape.body == "deepfm":
            total = dense @ self.factors + named.sum(1)
            squares = (dense * dense) @ (self.factors**2) + (named * named).sum(1)
            return torch.cat([x, 0.5 * (total * total - squares)], 1)
        crossed = x
        if self.shape.body == "dcn":
            for weight, bias in zip(self.cross, self.cross_bias, strict=True):
                crossed = x * (crossed @ weight + bias) + crossed
        return crossed
