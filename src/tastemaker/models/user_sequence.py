"""The user tower: a causal transformer over the vectors of the items that a user met.

After SASRec (Kang and McAuley 2018) with the block of recent language models: norms before each part, a gated feed-forward (SwiGLU), and a learned
bias for each distance in place of positions. The output is a unit vector times a learned temperature, so that
`user · item + bias` are the logits of the next item.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.dropout import dropout

TEMPERATURE = 12.0
_MASKED = -1e4


class Block(nn.Module):
    """Attention to what came before, then a gated feed-forward."""

    def __init__(self, dim: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.distance = nn.Parameter(torch.zeros(heads, max_length))
        self.gate_up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """The states after this block, float32 [B, L, D]."""
        length, dim = hidden_BLD.shape[1:]
        split = self.query_key_value(self.norm_attention(hidden_BLD)).unflatten(-1, (3, self.heads, dim // self.heads))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        place = torch.arange(length, device=hidden_BLD.device)
        distance_LL = place[:, None] - place[None, :]
        bias_HLL = self.distance[:, distance_LL.clamp(min=0)] + _MASKED * (distance_LL < 0)
        weight_BHLL = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias_HLL, dim=-1)
        weight_BHLL = dropout(weight_BHLL, self.dropout / 2, self.training)
        heard_BLD = self.out((weight_BHLL @ value).transpose(1, 2).flatten(2))
        hidden_BLD = hidden_BLD + dropout(heard_BLD, self.dropout, self.training)
        gate, up = self.gate_up(self.norm_forward(hidden_BLD)).chunk(2, dim=-1)
        return hidden_BLD + dropout(self.down(F.silu(gate) * up), self.dropout, self.training)


class UserSequence(nn.Module):
    """Histories as item vectors, padded on the right, to user vectors.

    Args:
        dim: length D of item and user vectors; a multiple of `heads`.
        layers, heads, dropout: of the transformer.
        max_length: events that are read.
    """

    def __init__(self, dim: int, layers: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.max_length, self.dropout = max_length, dropout
        self.blocks = nn.ModuleList([Block(dim, heads, max_length, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(TEMPERATURE)))

    def states(self, vectors_BLD: Tensor) -> Tensor:
        """The user vector after each event, float32 [B, L, D]; what follows an event does not change its state."""
        hidden_BLD = vectors_BLD * (math.sqrt(vectors_BLD.shape[-1]) / 4)
        hidden_BLD = dropout(hidden_BLD, self.dropout, self.training)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD)
        return F.normalize(self.norm(hidden_BLD), dim=-1) * self.log_temperature.exp()

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """The user vector after the last event, float32 [B, D]; zero for an empty history.

        Args:
            vectors: item vectors, oldest first, float32 [B, L, D] with L up to `max_length`.
            lengths: events of each history, int64 [B].
        """
        states_BLD = self.states(vectors)
        last_B1D = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states_BLD.shape[-1])
        return states_BLD.gather(1, last_B1D)[:, 0] * (lengths > 0)[:, None].to(states_BLD.dtype)
