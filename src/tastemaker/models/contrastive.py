"""InfoNCE between rows of vectors, and the small network that can stand behind a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.dropout import dropout


def info_nce(
    queries: Tensor,
    items: Tensor,
    target: Tensor,
    barred: Tensor,
    temperature: float,
    log_share: Tensor | None = None,
    matryoshka: Sequence[int] = (),
) -> Tensor:
    """Mean cross entropy of each query's own item among all items (van den Oord et al. 2018), a scalar.

    Args:
        queries: [P, H]; made unit length here, as their leading dimensions are.
        items: [U, H].
        target: place of each query's item, int64 [P].
        barred: bool [P, U], items that count neither for nor against; a target is never barred.
        temperature: by which cosines are divided.
        log_share: log of the chance that an item is in the batch, [U]; subtracted, as it else stands in for its worth (Yi et al. 2019).
        matryoshka: leading dimensions on which the loss is also taken, with equal weight (Kusupati et al. 2022); wider ones are left out.
    """
    width = items.shape[1]
    barred = barred.scatter(1, target[:, None], False)
    losses = []
    for dim in (width, *(dim for dim in matryoshka if dim < width)):
        logits_PU = F.normalize(queries[:, :dim], dim=-1) @ F.normalize(items[:, :dim], dim=-1).T / temperature
        if log_share is not None:
            logits_PU = logits_PU - log_share
        losses.append(F.cross_entropy(logits_PU.masked_fill(barred, -torch.inf), target))
    return torch.stack(losses).mean()


class ResidualHead(nn.Module):
    """Whitened vectors plus what a two-layer network adds to them; before training it adds nothing.

    Args:
        mean: subtracted first, [H].
        components: whitening directions, [T, H].
        hidden: width of the network.
        rate: share of the numbers silenced in training.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor, hidden: int = 512, rate: float = 0.3) -> None:
        super().__init__()
        width = components.shape[0]
        self.register_buffer("mean", mean)
        self.register_buffer("components", components)
        self.down, self.up, self.rate = nn.Linear(width, hidden), nn.Linear(hidden, width), rate
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors [B, H] to vectors [B, T]."""
        white_BT = F.normalize((vectors - self.mean) @ self.components.T, dim=-1)
        inner = F.gelu(self.down(dropout(white_BT, self.rate, self.training)), approximate="tanh")
        found: Tensor = white_BT + self.up(dropout(inner, self.rate, self.training))
        return found
