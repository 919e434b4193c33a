"""What a layer of the user tower is: three named choices that take states [B, L, D] and give states [B, L, D], none looking ahead.

All have a norm before each part, and a learned bias for each distance in place of positions. Their sizes differ: with D numbers a state, a layer of `transformer` has
10 D² weights, `ligr` 12 D², `hstu` 5 D².
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.models.dropout import dropout
from tastemaker.schema.errors import SettingsError

TRANSFORMER = "transformer"
_MASKED = -1e4
_EPSILON = 1e-6


class Block(nn.Module):
    """Attention to what came before, then a gated feed-forward: `x + A(norm x)`, then `x + F(norm x)`.

    The block of recent language models: norms first, SwiGLU feed-forward (Shazeer 2020, arXiv 2002.05202), a bias for each distance (Raffel et al. 2020).
    """

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
        hidden_BLD = hidden_BLD + dropout(self.heard(hidden_BLD), self.dropout, self.training)
        return hidden_BLD + dropout(self.thought(hidden_BLD), self.dropout, self.training)

    def latest(self, hidden_BLD: Tensor, last_B: Tensor) -> Tensor:
        """The state after this block at one place of each history, float32 [B, 1, D]: all that a last block must compute; no dropout."""
        asked_B1D = at(hidden_BLD, last_B)
        asked_B1D = asked_B1D + self.heard_at(hidden_BLD, asked_B1D, last_B)
        return asked_B1D + self.thought(asked_B1D)

    def heard_at(self, hidden_BLD: Tensor, asked_B1D: Tensor, last_B: Tensor) -> Tensor:
        """What attention brings to one place of each history, float32 [B, 1, D].

        A single place asks, so no key and no value of an event has to be made: q · (K x) = (Kᵀ q) · x, and Σ w (V x) = V (Σ w x), head by head.
        """
        length, dim = hidden_BLD.shape[1:]
        ask, keys, values = torch.split(self.query_key_value.weight, dim)
        key_HdD, value_HDd = keys.view(self.heads, -1, dim), values.view(self.heads, -1, dim).transpose(1, 2)
        normed_BLD = self.norm_attention(hidden_BLD)
        query_HBd = F.linear(self.norm_attention(asked_B1D), ask).view(-1, self.heads, dim // self.heads).transpose(0, 1)
        query_BHD = (query_HBd @ (key_HdD * (dim // self.heads) ** -0.5)).transpose(0, 1)
        distance_BL = _distances_of(last_B, length)[:, 0]
        bias_BHL = self.distance[:, distance_BL.clamp(min=0)].transpose(0, 1) + _MASKED * (distance_BL < 0)[:, None]
        weight_BHL = torch.softmax(query_BHD @ normed_BLD.transpose(1, 2) + bias_BHL, dim=-1)
        heard_HBd = (weight_BHL @ normed_BLD).transpose(0, 1) @ value_HDd
        heard_B1D: Tensor = self.out(heard_HBd.transpose(0, 1).flatten(1)[:, None])
        return heard_B1D

    def heard(self, hidden_BLD: Tensor) -> Tensor:
        """What attention brings, float32 [B, L, D]."""
        length, dim = hidden_BLD.shape[1:]
        split = self.query_key_value(self.norm_attention(hidden_BLD)).unflatten(-1, (3, self.heads, dim // self.heads))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        distance_LL = _distances(length, hidden_BLD.device)
        bias_HLL = self.distance[:, distance_LL.clamp(min=0)] + _MASKED * (distance_LL < 0)
        weight_BHLL = torch.softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias_HLL, dim=-1)
        weight_BHLL = dropout(weight_BHLL, self.dropout / 2, self.training)
        heard_BLD: Tensor = self.out((weight_BHLL @ value).transpose(1, 2).flatten(2))
        return heard_BLD

    def thought(self, hidden_BLD: Tensor) -> Tensor:
        """What the feed-forward brings, float32 [B, L, D]."""
        gate, up = self.gate_up(self.norm_forward(hidden_BLD)).chunk(2, dim=-1)
        thought_BLD: Tensor = self.down(F.silu(gate) * up)
        return thought_BLD


class LigrBlock(Block):
    """The transformer's block with learned gates on its residuals: `x + sigmoid(W x) * A(norm x)`, the same for the feed-forward.

    LiGR (Borisyuk et al. 2025, arXiv 2502.03417) as eSASRec takes it (Tikhonovich et al., RecSys 2025, arXiv 2508.06450). The gates read the state before the norm.
    """

    def __init__(self, dim: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__(dim, heads, max_length, dropout)
        self.gate_attention, self.gate_forward = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """The states after this block, float32 [B, L, D]."""
        gate_BLD = torch.sigmoid(self.gate_attention(hidden_BLD))
        hidden_BLD = hidden_BLD + gate_BLD * dropout(self.heard(hidden_BLD), self.dropout, self.training)
        gate_BLD = torch.sigmoid(self.gate_forward(hidden_BLD))
        return hidden_BLD + gate_BLD * dropout(self.thought(hidden_BLD), self.dropout, self.training)

    def latest(self, hidden_BLD: Tensor, last_B: Tensor) -> Tensor:
        """As `Block.latest`."""
        asked_B1D = at(hidden_BLD, last_B)
        asked_B1D = asked_B1D + torch.sigmoid(self.gate_attention(asked_B1D)) * self.heard_at(hidden_BLD, asked_B1D, last_B)
        return asked_B1D + torch.sigmoid(self.gate_forward(asked_B1D)) * self.thought(asked_B1D)


class HstuBlock(nn.Module):
    """Pointwise attention whose answer is gated, without a feed-forward.

        U, V, Q, K = SiLU(W₁ norm x);   A = SiLU(Q Kᵀ + b(distance)) / L_max;   x + W₂ (norm(A V) * U)

    The unit of HSTU (Zhai et al. 2024, arXiv 2402.17152, equations 1 to 3): attention weights need not sum to one, so that how much was heard survives. The bias is that of
    distance in the history alone; the paper's bias of time needs times, which the tower is not given.
    """

    def __init__(self, dim: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.max_length, self.dropout = heads, max_length, dropout
        self.norm, self.norm_heard = nn.LayerNorm(dim, eps=_EPSILON), nn.LayerNorm(dim, eps=_EPSILON)
        self.gate_value_query_key = nn.Linear(dim, 4 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.distance = nn.Parameter(torch.zeros(heads, max_length))

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        """The states after this block, float32 [B, L, D]."""
        length, dim = hidden_BLD.shape[1:]
        mixed_BLD4 = F.silu(self.gate_value_query_key(self.norm(hidden_BLD)))
        split = mixed_BLD4.view(-1, length, 4, self.heads, dim // self.heads)
        gate, value, query, key = split.permute(2, 0, 3, 1, 4).unbind(0)
        distance_LL = _distances(length, hidden_BLD.device)
        bias_HLL = self.distance[:, distance_LL.clamp(min=0)]
        weight_BHLL = F.silu(query @ key.transpose(-1, -2) + bias_HLL) * ((distance_LL >= 0) / self.max_length)
        heard_BLD = self.norm_heard((weight_BHLL @ value).transpose(1, 2).flatten(2)) * gate.transpose(1, 2).flatten(2)
        changed_BLD: Tensor = hidden_BLD + self.out(dropout(heard_BLD, self.dropout, self.training))
        return changed_BLD

    def latest(self, hidden_BLD: Tensor, last_B: Tensor) -> Tensor:
        """As `Block.latest`."""
        length, dim = hidden_BLD.shape[1:]
        gate_W, value_W, query_W, key_W = torch.split(self.gate_value_query_key.weight, dim)
        asked_B1D, normed_BLD = at(hidden_BLD, last_B), self.norm(hidden_BLD)
        normed_B1D = self.norm(asked_B1D)

        def mixed(normed: Tensor, weight: Tensor) -> Tensor:
            return F.silu(F.linear(normed, weight)).view(-1, normed.shape[1], self.heads, dim // self.heads).transpose(1, 2)

        query, key, value = mixed(normed_B1D, query_W), mixed(normed_BLD, key_W), mixed(normed_BLD, value_W)
        distance_B1L = _distances_of(last_B, length)
        bias_BH1L = self.distance[:, distance_B1L.clamp(min=0)].transpose(0, 1)
        weight_BH1L = F.silu(query @ key.transpose(-1, -2) + bias_BH1L) * ((distance_B1L >= 0) / self.max_length)[:, None]
        heard_B1D = self.norm_heard((weight_BH1L @ value).transpose(1, 2).flatten(2)) * F.silu(F.linear(normed_B1D, gate_W))
        changed_B1D: Tensor = asked_B1D + self.out(heard_B1D)
        return changed_B1D


BLOCKS: dict[str, type[Block] | type[HstuBlock]] = {TRANSFORMER: Block, "hstu": HstuBlock, "ligr": LigrBlock}


def make_block(name: str, dim: int, heads: int, max_length: int, dropout: float) -> nn.Module:
    """One layer of the user tower.

    Raises:
        SettingsError: an unknown name.
    """
    if name not in BLOCKS:
        raise SettingsError(f"sequence.block is {name!r}; expected {', '.join(BLOCKS)}.")
    return BLOCKS[name](dim, heads, max_length, dropout)


def at(hidden_BLD: Tensor, last_B: Tensor) -> Tensor:
    """The states at one place of each history, float32 [B, 1, D]."""
    return hidden_BLD.gather(1, last_B[:, None, None].expand(-1, 1, hidden_BLD.shape[-1]))


def _distances_of(last_B: Tensor, length: int) -> Tensor:
    """How many events one place of each history lies behind each other one, int64 [B, 1, L]; below 0 for what comes later."""
    return last_B[:, None, None] - torch.arange(length, device=last_B.device)


def _distances(length: int, device: torch.device) -> Tensor:
    """How many events each place (row) lies behind each other one (column), int64 [L, L]; below 0 for what comes later."""
    place = torch.arange(length, device=device)
    return place[:, None] - place[None, :]
