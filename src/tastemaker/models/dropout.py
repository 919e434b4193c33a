"""Dropout (Srivastava et al. 2014) with one random byte a number: torch's own draws a double for each, a tenth of a small model's training."""

from __future__ import annotations

import torch
from torch import Tensor

_SHARES = 256


def dropout(values: Tensor, rate: float, training: bool = True) -> Tensor:
    """Each number silenced with the chance `rate`, the others raised so that the mean stays; as it is where not `training`.

    Args:
        values: float32, any shape.
        rate: in [0, 1); rounded to a multiple of 1/256, the mean follows the rounded one.
        training: False leaves the values.
    """
    silenced = round(_SHARES * rate)
    if not training or silenced == 0:
        return values
    words = torch.empty(values.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)  # whole words: every bit is random
    kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= silenced
    return values * kept.to(values.dtype).mul_(_SHARES / max(_SHARES - silenced, 1))
