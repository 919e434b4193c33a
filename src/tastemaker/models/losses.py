"""Softmax cross entropy over a whole catalogue, made for CPUs.

The gradients are computed in the forward pass, chunk by chunk, so that the [positions, items] matrix of logits never exists as a whole and
nothing is computed twice. The matrix products run in bf16 where the caller says that the CPU computes in it. After Liger-Kernel's
fused linear cross entropy (Hsu et al. 2024, arXiv 2410.10989), without a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CELLS = 4_000_000  # logits of one chunk: stays within the last-level cache of common CPUs
_LEAST = 1e-12  # sum of weights of a batch in which nothing counts


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        items: Tensor,
        bias: Tensor,
        target: Tensor,
        dtype: torch.dtype,
        weight: Tensor | None,
        lift: Tensor | None,
    ) -> Tensor:
        rows, columns = hidden.shape[0], items.shape[0]
        chunk = max(16, min(512, _CELLS // max(columns, 1)))
        hidden_PD, items_ND, bias_N = (part.detach().to(dtype) for part in (hidden, items, bias))
        items_DN = items_ND.t()
        grad_hidden, grad_items, grad_bias = torch.empty_like(hidden_PD), torch.zeros_like(items), torch.zeros_like(bias)
        room_CN = torch.empty(min(chunk, rows), columns, dtype=dtype)  # one for all chunks: fresh pages cost as much as the sums
        loss = torch.zeros((), dtype=torch.float64)
        total = rows if weight is None else max(float(weight.sum()), _LEAST)
        for begin in range(0, rows, chunk):
            part_CD, wanted_C = hidden_PD[begin : begin + chunk], target[begin : begin + chunk]
            share_CN = torch.addmm(bias_N, part_CD, items_DN, out=room_CN[: len(part_CD)])
            place = torch.arange(len(wanted_C))
            if lift is not None:
                share_CN[place, wanted_C] += lift[begin : begin + chunk].to(dtype)
            torch.softmax(share_CN, dim=-1, out=share_CN)
            gain_C = share_CN[place, wanted_C].double().clamp_min(1e-12).log()
            share_CN[place, wanted_C] -= 1
            if weight is not None:
                gain_C = gain_C * weight[begin : begin + chunk]
                share_CN *= weight[begin : begin + chunk, None].to(dtype)
            loss -= gain_C.sum()
            torch.mm(share_CN, items_ND, out=grad_hidden[begin : begin + chunk])
            if dtype == torch.float32:
                grad_items.addmm_(share_CN.t(), part_CD)
            else:
                grad_items += share_CN.t() @ part_CD
            grad_bias += share_CN.sum(0, dtype=torch.float32)
        grad_hidden = grad_hidden.float()
        ctx.save_for_backward(grad_hidden.div_(total), grad_items.div_(total), grad_bias.div_(total))
        return (loss / total).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        grad_hidden, grad_items, grad_bias = ctx.saved_tensors
        return grads[0] * grad_hidden, grads[0] * grad_items, grads[0] * grad_bias, None, None, None, None


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
    loss: Tensor = _FusedCrossEntropy.apply(hidden, items, bias, target, dtype, weight, lift)  # type: ignore[no-untyped-call]
    return loss


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
