"""Losses over a whole catalogue or over columns that all positions share, made for CPUs: the softmax cross entropy here, others in `binary`.

The gradients are computed in the forward pass, chunk by chunk, so that the [positions, items] matrix of logits never exists as a whole and
nothing is computed twice. The matrix products run in bf16 where the caller says that the CPU computes in it. After Liger-Kernel's
fused linear cross entropy (Hsu et al. 2024, arXiv 2410.10989), without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

_CELLS = 4_000_000  # logits of one chunk: stays within the last-level cache of common CPUs
_LEAST = 1e-12  # sum of weights of a batch in which nothing counts


class Rule(Protocol):
    """What a loss makes of logits."""

    def __call__(self, logits_CN: Tensor, rows: slice) -> Tensor:
        """The sum of the loss over some positions, a float64 scalar; overwrites their logits with its gradient by them."""


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, bias: Tensor, rule: Rule, dtype: torch.dtype, total: float) -> Tensor:
        rows, columns = hidden.shape[0], items.shape[0]
        chunk = max(16, min(512, _CELLS // max(columns, 1)))
        hidden_PD, items_ND, bias_N = (part.detach().to(dtype) for part in (hidden, items, bias))
        items_DN = items_ND.t()
        grad_hidden, grad_items, grad_bias = torch.empty_like(hidden_PD), torch.zeros_like(items), torch.zeros_like(bias)
        room_CN = torch.empty(min(chunk, rows), columns, dtype=dtype)  # one for all chunks: fresh pages cost as much as the sums
        loss = torch.zeros((), dtype=torch.float64)
        for begin in range(0, rows, chunk):
            part_CD = hidden_PD[begin : begin + chunk]
            logits_CN = torch.addmm(bias_N, part_CD, items_DN, out=room_CN[: len(part_CD)])
            loss += rule(logits_CN, slice(begin, begin + len(part_CD)))
            torch.mm(logits_CN, items_ND, out=grad_hidden[begin : begin + chunk])
            if dtype == torch.float32:
                grad_items.addmm_(logits_CN.t(), part_CD)
            else:
                grad_items += logits_CN.t() @ part_CD
            grad_bias += logits_CN.sum(0, dtype=torch.float32)
        grad_hidden = grad_hidden.float()
        ctx.save_for_backward(grad_hidden.div_(total), grad_items.div_(total), grad_bias.div_(total))
        return (loss / total).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        grad_hidden, grad_items, grad_bias = ctx.saved_tensors
        return grads[0] * grad_hidden, grads[0] * grad_items, grads[0] * grad_bias, None, None, None


def fused(hidden: Tensor, items: Tensor, bias: Tensor, rule: Rule, dtype: torch.dtype, weight: Tensor | None) -> Tensor:
    """Weighted mean over positions of what the rule makes of the logits `hidden · itemsᵀ + bias`, a scalar that can be differentiated once.

    Args:
        hidden, items, bias: float32 [P, D], [N, D], [N].
        rule: the loss; it weighs its positions itself.
        dtype: in which the matrix products run.
        weight: by which it weighs, float32 [P]; None: all alike.
    """
    total = hidden.shape[0] if weight is None else max(float(weight.sum()), _LEAST)
    loss: Tensor = _Fused.apply(hidden, items, bias, rule, dtype, total)  # type: ignore[no-untyped-call]
    return loss


@dataclass(frozen=True)
class _Softmax:
    """The cross entropy; `target`, `weight` and `lift` are those of `fused_cross_entropy`."""

    target: Tensor
    weight: Tensor | None
    lift: Tensor | None

    def __call__(self, logits_CN: Tensor, rows: slice) -> Tensor:
        wanted_C, place = self.target[rows], torch.arange(len(logits_CN))
        if self.lift is not None:
            logits_CN[place, wanted_C] += self.lift[rows].to(logits_CN.dtype)
        torch.softmax(logits_CN, dim=-1, out=logits_CN)
        gain_C = logits_CN[place, wanted_C].double().clamp_min(1e-12).log()
        logits_CN[place, wanted_C] -= 1
        if self.weight is not None:
            gain_C = gain_C * self.weight[rows]
            logits_CN *= self.weight[rows, None].to(logits_CN.dtype)
        return -gain_C.sum()


def fused_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    bias: Tensor,
    target: Tensor,
    dtype: torch.dtype = torch.float32,
    weight: Tensor | None = None,
    lift: Tensor | None = None,
) -> Tensor:
    """Weighted mean over positions of `-log softmax(hidden · itemsᵀ + bias)[target]`, a scalar that can be differentiated once.

    Args:
        hidden: user states at the real positions only, float32 [P, D].
        items: item vectors, float32 [N, D].
        bias: what each item brings by itself (its popularity prior), float32 [N].
        target: the item that came next, int64 [P], in [0, N).
        dtype: in which the matrix products run, `torch.float32` or `torch.bfloat16`.
        weight: what each position counts, not negative, float32 [P]; None: all alike.
        lift: added to the logit of each position's target, float32 [P]; None: nothing.
    """
    return fused(hidden, items, bias, _Softmax(target, weight, lift), dtype, weight)


@dataclass(frozen=True)
class _PartOfSoftmax:
    """The cross entropy where others hold the other columns; the fields are arguments of `part_of_cross_entropy`."""

    target: Tensor
    weight: Tensor | None
    together: Callable[[Tensor], Tensor]

    def __call__(self, logits_CN: Tensor, rows: slice) -> Tensor:
        wanted_C = self.target[rows]
        top_C = logits_CN.amax(-1).float()
        torch.softmax(logits_CN, dim=-1, out=logits_CN)
        mine_C = top_C - logits_CN.amax(-1).float().log()  # log Σ exp over these columns, read off the likeliest one
        logits_CN *= (mine_C - self.together(mine_C).logsumexp(0)).exp_().to(logits_CN.dtype)[:, None]
        place = (wanted_C >= 0).nonzero()[:, 0]
        wanted = wanted_C[place]
        gain = logits_CN[place, wanted].double().clamp_min(1e-12).log()
        logits_CN[place, wanted] -= 1
        if self.weight is not None:
            weight_C = self.weight[rows]
            gain = gain * weight_C[place]
            logits_CN *= weight_C[:, None].to(logits_CN.dtype)
        return -gain.sum()


def part_of_cross_entropy(
    hidden: Tensor,
    items: Tensor,
    bias: Tensor,
    target: Tensor,
    together: Callable[[Tensor], Tensor],
    dtype: torch.dtype = torch.float32,
    weight: Tensor | None = None,
) -> Tensor:
    """This part's share of `fused_cross_entropy`, where each part of the catalogue is scored somewhere else: the shares and their gradients sum to the whole.

    The parallel vocabulary of Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053, section 3): of a position's softmax the parts tell each other one number.

    Args:
        hidden, dtype, weight: as in `fused_cross_entropy`, the same for all parts.
        items, bias: of this part's items, float32 [n, D], [n] with n > 0.
        target: the place of each position's target among them, int64 [P]; -1 where it is another part's.
        together: gives the numbers that all parts have for the same positions, float32 [C] to [parts, C].
    """
    return fused(hidden, items, bias, _PartOfSoftmax(target, weight, together), dtype, weight)


def smoothing_gap(hidden: Tensor, items: Tensor, bias: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean over positions of `s(y) - mean of s(i) over all items`: what label smoothing adds to the cross entropy, a scalar.

    With labels `1 - ε + ε / N` for the item y that came next and `ε / N` for the others (Szegedy et al. 2016, section 7) the cross entropy is
    `log Σᵢ exp s(i) - (1 - ε) s(y) - ε mean s(i)` = the plain one + ε times this gap. A mean of logits is the logit of means, so no [P, N] matrix is needed,
    and a sampled softmax is smoothed over the whole catalogue all the same.

    Args:
        hidden, items, bias, target, weight: as in `fused_cross_entropy`.
    """
    gap = (hidden * (items[target] - items.mean(0))).sum(1) + bias[target] - bias.mean()
    return gap.mean() if weight is None else (gap * weight).sum() / weight.sum().clamp_min(_LEAST)


def stratified_cross_entropy(shared: Tensor, target: Tensor, own: Tensor, barred: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean over positions of `-log softmax` of the target among the columns that all share and those of the position alone.

    Args:
        shared: corrected logits of the shared items, float32 [P, C].
        target: the column of the item that came next, int64 [P], in [0, C).
        own: corrected logits of the position's own items, float32 [P, n]; minus infinity where there is none.
        barred: shared columns that a position does not see, as its own items stand for them, bool [P, C]; never the target's.
        weight: what each position counts, not negative, float32 [P]; None: all alike.
    """
    logits = torch.cat([shared.masked_fill(barred, -torch.inf), own], dim=1)
    loss = torch.logsumexp(logits, dim=1) - shared.gather(1, target[:, None])[:, 0]
    return loss.mean() if weight is None else (loss * weight).sum() / weight.sum().clamp_min(_LEAST)


def log_inclusion(weights: Tensor, draws: int, others: Tensor | None = None, more: int = 0) -> Tensor:
    """Logarithm of the chance that each item is in a sample of `draws` with replacement, float32 [N]; or in a second one beside it.

    Taken off an item's logit, it makes a sampled softmax stand for the full one (the log-Q correction of Bengio and Senécal 2008).

    Args:
        weights: chance of each item in one draw, float32 [N].
        draws: size of the sample.
        others, more: chance and size of the second sample, which is drawn independently; None: there is none.
    """
    log_missed = draws * torch.log1p(-weights.double().clamp(max=1 - 1e-9))
    if others is not None:
        log_missed = log_missed + more * torch.log1p(-others.double().clamp(max=1 - 1e-9))
    return torch.log1p(-torch.exp(log_missed)).clamp_min(-30.0).float()
