"""Losses that tell the item that came next apart from items one by one, without a softmax: BCE, gBCE and BPR.

Notation: `s(i)` is the logit of item i, `y` the item that came next, `σ` the logistic function, `E` the mean over a user's negatives: items of the columns that the user never
met. All positions of a batch share the drawn columns; a position of K negatives counts their mean K times. As each negative enters on its own, the expected loss and gradient are those
of K negatives drawn for every position apart, with less noise wherever more than K columns are drawn, and the work is one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tastemaker.models.losses import fused


@dataclass(frozen=True)
class Opponents:
    """What the positions of a batch are told apart from.

    Attributes:
        target: the column of the item that came next, int64 [P].
        user: whose position it is, int64 [P], a row of `share`.
        share: of each column among a user's negatives, float32 [U, C]; rows sum to one, or to zero where no negative is left. Zero at every target of the user.
        weight: what each position counts, not negative, float32 [P]; None: all alike.
    """

    target: Tensor
    user: Tensor
    share: Tensor
    weight: Tensor | None = None


def binary_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    bias: Tensor,
    opponents: Opponents,
    negatives: int,
    power: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weighted mean over positions of `-(log σ(s(y))^power + K E log(1 - σ(s(i)))) / (K + 1)`, a scalar that can be differentiated once.

    With `power` 1 the binary cross entropy of one positive and K negatives; K = 1 is SASRec's (Kang and McAuley 2018, arXiv 1808.09781). With `generalised_power` it is gBCE.

    Args:
        hidden: user states, float32 [P, D].
        items, bias: of the columns, float32 [C, D] and [C].
        opponents: which column is the target, which are negatives.
        negatives: K.
        power: β of gBCE.
        dtype: in which the matrix products run.
    """
    return fused(hidden, items, bias, _Pointwise(opponents, negatives, power), dtype, opponents.weight)


def generalised_power(negatives: int, n_items: int, calibration: float) -> float:
    """β = α (t (1 - 1/α) + 1/α) with the sampling rate α = K / (N - 1): the power of gBCE (Petrov and Macdonald 2023, RecSys, arXiv 2308.07192).

    Args:
        negatives: K; more than N - 1 count as all.
        n_items: N.
        calibration: t in [0, 1]: 0 is plain BCE, 1 undoes all of the overconfidence that comes from sampling.
    """
    rate = min(1.0, negatives / max(n_items - 1, 1))
    return 1.0 - calibration * (1.0 - rate)


def bayesian_personalised_ranking(
    hidden: Tensor, items: Tensor, bias: Tensor, opponents: Opponents, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Weighted mean over positions of `-E log σ(s(y) - s(i))` (Rendle et al. 2009, UAI), a scalar that can be differentiated once.

    Args:
        hidden, items, bias, opponents, dtype: as in `binary_cross_entropy`.
    """
    return fused(hidden, items, bias, _Pairwise(opponents), dtype, opponents.weight)


@dataclass(frozen=True)
class _Pointwise:
    opponents: Opponents
    negatives: int
    power: float

    def __call__(self, logits_CN: Tensor, rows: slice) -> Tensor:
        found, place = self.opponents, torch.arange(len(logits_CN))
        target_C = found.target[rows]
        wanted_C = logits_CN[place, target_C].float()
        share_CN = found.share[found.user[rows]] * _scale(found, rows, self.negatives / (self.negatives + 1))
        loss = (F.softplus(logits_CN).float() * share_CN).sum(dtype=torch.float64)
        logits_CN.sigmoid_().mul_(share_CN)
        own_C = self.power * _scale(found, rows, 1 / (self.negatives + 1))[:, 0]
        logits_CN[place, target_C] -= (own_C * torch.sigmoid(-wanted_C)).to(logits_CN.dtype)
        return loss + (own_C * F.softplus(-wanted_C)).sum(dtype=torch.float64)


@dataclass(frozen=True)
class _Pairwise:
    opponents: Opponents

    def __call__(self, logits_CN: Tensor, rows: slice) -> Tensor:
        found, place = self.opponents, torch.arange(len(logits_CN))
        target_C = found.target[rows]
        logits_CN -= logits_CN[place, target_C][:, None].clone()
        share_CN = found.share[found.user[rows]] * _scale(found, rows, 1.0)
        loss = (F.softplus(logits_CN).float() * share_CN).sum(dtype=torch.float64)
        logits_CN.sigmoid_().mul_(share_CN)
        logits_CN[place, target_C] -= logits_CN.sum(1)
        return loss


def _scale(opponents: Opponents, rows: slice, by: float) -> Tensor:
    """What each position counts, times a number, float32 [C, 1]."""
    weight = torch.ones(rows.stop - rows.start) if opponents.weight is None else opponents.weight[rows]
    return (weight * by)[:, None]
