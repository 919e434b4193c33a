"""The user tower: causal blocks over the vectors of the items that a user met (SASRec: Kang and McAuley 2018; the blocks are those of `blocks`).

The output is a unit vector times a learned temperature, so that `user · item + bias` are the logits of the next item.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.blocks import TRANSFORMER, at, make_block
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
        hidden_BLD = _scaled(vectors_BLD)
        hidden_BLD = dropout(hidden_BLD, self.dropout, self.training)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD)
        return self._told(hidden_BLD)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """The user vector after the last event, float32 [B, D]; zero for an empty history.

        Args:
            vectors: item vectors, oldest first, float32 [B, L, D] with L up to `max_length`.
            lengths: events of each history, int64 [B].
        """
        last_BD = at(self.states(vectors), (lengths - 1).clamp(min=0))[:, 0]
        return last_BD * (lengths > 0)[:, None].to(last_BD.dtype)

    def _told(self, hidden_BLD: Tensor) -> Tensor:
        return F.normalize(self.norm(hidden_BLD), dim=-1) * self.log_temperature.exp()


class LastState(nn.Module):
    """The same answers as a tower's, without what the last block would compute of earlier events: what is served. It learns nothing.

    Args:
        tower: in evaluation mode.
    """

    def __init__(self, tower: UserSequence) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """As `UserSequence.forward`."""
        *earlier, last_block = list(self.tower.blocks)
        latest: Callable[[Tensor, Tensor], Tensor] = last_block.latest  # type: ignore[assignment]  # every block has it
        hidden_BLD, last_B = _scaled(vectors), (lengths - 1).clamp(min=0)
        for block in earlier:
            hidden_BLD = block(hidden_BLD)
        last_BD = self.tower._told(latest(hidden_BLD, last_B))[:, 0]
        return last_BD * (lengths > 0)[:, None].to(last_BD.dtype)


class NarrowTower(nn.Module):
    """A tower that works with fewer numbers a state than the vectors have that it reads and gives: what a distilled one is.

    Args:
        directions: unit directions in which item vectors lie apart, one a row, [N, D]; it begins with these, in and out.
        layers, heads, max_length, block: as of `UserSequence`, which works in between.
        length: of the vectors that it gives.
    """

    def __init__(
        self, directions: Tensor, layers: int, heads: int, max_length: int, length: float, block: str = TRANSFORMER
    ) -> None:
        super().__init__()
        self.length = length
        narrow, dim = directions.shape
        self.into, self.out = nn.Linear(dim, narrow, bias=False), nn.Linear(narrow, dim)
        self.inner = LastState(UserSequence(narrow, layers, heads, max_length, 0.0, block))
        with torch.no_grad():
            self.into.weight.copy_(directions)
            self.out.weight.copy_(directions.T)
            self.out.bias.zero_()

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """As `UserSequence.forward`."""
        told_BD = F.normalize(self.out(self.inner(self.into(vectors), lengths)), dim=-1) * self.length
        return told_BD * (lengths > 0)[:, None].to(told_BD.dtype)


def _scaled(vectors_BLD: Tensor) -> Tensor:
    return vectors_BLD * (math.sqrt(vectors_BLD.shape[-1]) / 4)
