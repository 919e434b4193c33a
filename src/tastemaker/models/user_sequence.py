"""The user tower: causal blocks over the vectors of the items that a user met (SASRec: Kang and McAuley 2018; the blocks are those of `blocks`).

The output is a unit vector times a learned temperature, so that `user · item + bias` are the logits of the next item.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.blocks import TRANSFORMER, make_block
from tastemaker.models.dropout import dropout

TEMPERATURE = 12.0


class UserSequence(nn.Module):
    """Histories as item vectors, padded on the right, to user vectors.

    Args:
        dim: length D of item and user vectors; a multiple of `heads`.
        layers, heads, dropout: of the blocks.
        max_length: events that are read.
        block: one of `blocks.BLOCKS`.

    Raises:
        SettingsError: an unknown block.
    """

    def __init__(self, dim: int, layers: int, heads: int, max_length: int, dropout: float, block: str = TRANSFORMER) -> None:
        super().__init__()
        self.max_length, self.dropout = max_length, dropout
        self.blocks = nn.ModuleList([make_block(block, dim, heads, max_length, dropout) for _ in range(layers)])
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
