"""The user tower: causal blocks over the vectors of the items that a user met (SASRec: Kang and McAuley 2018; the blocks are those of `blocks`).

The output is a unit vector times a learned temperature, so that `user · item + bias` are the logits of the next item.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.blocks import TRANSFORMER, Block, HstuBlock, make_block
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
        return self._out(self._through(vectors_BLD, len(self.blocks)))

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """The user vector after the last event, float32 [B, D], for answers (without dropout); zero for an empty history.

        Args:
            vectors: item vectors, oldest first, float32 [B, L, D] with L up to `max_length`.
            lengths: events of each history, int64 [B].
        """
        top, at_B = len(self.blocks) - 1, (lengths - 1).clamp(min=0)
        last: HstuBlock | Block = self.blocks[top]  # type: ignore[assignment]
        state_BD = self._out(last.last(self._through(vectors, top), at_B))[:, 0]
        return state_BD * (lengths > 0)[:, None].to(state_BD.dtype)

    def _through(self, vectors_BLD: Tensor, blocks: int) -> Tensor:
        """The states after so many blocks, float32 [B, L, D]."""
        hidden_BLD = vectors_BLD * (math.sqrt(vectors_BLD.shape[-1]) / 4)
        hidden_BLD = dropout(hidden_BLD, self.dropout, self.training)
        for block in self.blocks[:blocks]:
            hidden_BLD = block(hidden_BLD)
        return hidden_BLD

    def _out(self, hidden_BLD: Tensor) -> Tensor:
        return F.normalize(self.norm(hidden_BLD), dim=-1) * self.log_temperature.exp()
