"""Vectors of nodes and relations by which true edges are told from wrong ones: TransE (Bordes et al. 2013) and RotatE (Sun et al. 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TRANSE, ROTATE = "transe", "rotate"


class EdgeModel(nn.Module):
    """How far an edge (head, relation, tail) is from being true.

    TransE: the tail lies where head + relation leads, |h + r - t|₁. RotatE: numbers are complex, a relation turns each of them by an angle,
    |h ∘ r - t|, so that symmetric, inverse and composed relations can be said.

    Args:
        nodes, relations: how many there are.
        dim: length D of a node's vector; even for RotatE, whose D / 2 complex numbers are stored as real parts, then imaginary parts.
        kind: `transe` or `rotate`.
        margin: γ, the distance within which an edge counts as true.
    """

    def __init__(self, nodes: int, relations: int, dim: int, kind: str, margin: float) -> None:
        super().__init__()
        self.kind, self.margin = kind, margin
        spread = (margin + 2.0) / dim
        self.nodes = nn.Parameter(torch.empty(nodes, dim).uniform_(-spread, spread))
        width = dim if kind == TRANSE else dim // 2
        reach = spread if kind == TRANSE else math.pi
        self.relations = nn.Parameter(torch.empty(relations, width).uniform_(-reach, reach))

    def distance(self, head_BD: Tensor, relation_B: Tensor, tail_BD: Tensor) -> Tensor:
        """Distances, float32, of vectors that broadcast against each other in all but the last place."""
        relation = F.embedding(relation_B, self.relations)
        while relation.ndim < max(head_BD.ndim, tail_BD.ndim):
            relation = relation[:, None]
        if self.kind == TRANSE:
            return (head_BD + relation - tail_BD).abs().sum(-1)
        (real, imaginary), (real_t, imaginary_t) = head_BD.chunk(2, -1), tail_BD.chunk(2, -1)
        cosine, sine = torch.cos(relation), torch.sin(relation)
        first = real * cosine - imaginary * sine - real_t
        second = real * sine + imaginary * cosine - imaginary_t
        return torch.sqrt(first * first + second * second + 1e-12).sum(-1)

    def loss(self, edges: Tensor, wrong_K: Tensor, weight_B: Tensor, temperature: float) -> Tensor:
        """Self-adversarial negative sampling (Sun et al. 2019, eq. 5): the wrong ends that look truest weigh most.

        Args:
            edges: head, relation, tail, int64 [B, 3].
            wrong_K: nodes that stand for wrong heads and wrong tails of all edges of the batch, int64 [K].
            weight_B: weights of the edges.
            temperature: α; 0 weighs all wrong ends alike.
        """
        head_BD, tail_BD = F.embedding(edges[:, 0], self.nodes), F.embedding(edges[:, 2], self.nodes)
        wrong_KD = F.embedding(wrong_K, self.nodes)
        true_B = F.logsigmoid(self.margin - self.distance(head_BD, edges[:, 1], tail_BD))
        total_B = -true_B
        for head, tail in ((head_BD[:, None], wrong_KD[None]), (wrong_KD[None], tail_BD[:, None])):
            gap_BK = self.margin - self.distance(head, edges[:, 1], tail)
            share_BK = torch.softmax(temperature * gap_BK, dim=1).detach()
            total_B = total_B - 0.5 * (share_BK * F.logsigmoid(-gap_BK)).sum(1)
        return (total_B * weight_B).sum() / weight_B.sum()
