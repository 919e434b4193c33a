"""The fused softmax gives the loss and the gradients of the plain one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tastemaker.models.losses import fused_cross_entropy, log_inclusion


def _toy() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = (F.normalize(torch.randn(700, 16), dim=-1) * 12).requires_grad_()
    items = F.normalize(torch.randn(301, 16), dim=-1).requires_grad_()
    bias = torch.randn(301).requires_grad_()
    return hidden, items, bias, torch.randint(0, 301, (700,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_loss_and_gradients_are_those_of_the_plain_cross_entropy(dtype: torch.dtype, tolerance: float) -> None:
    hidden, items, bias, target = _toy()
    plain = F.cross_entropy(hidden @ items.T + bias, target)
    wanted = torch.autograd.grad(3 * plain, (hidden, items, bias))
    fused = fused_cross_entropy(hidden, items, bias, target, dtype)
    found = torch.autograd.grad(3 * fused, (hidden, items, bias))
    assert abs(fused.item() - plain.item()) < tolerance * plain.item()
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < tolerance


def test_log_inclusion_is_the_chance_to_be_drawn_at_least_once() -> None:
    weights = torch.tensor([0.5, 0.25, 0.125, 0.125])
    drawn = torch.multinomial(weights.expand(20_000, 4), 5, replacement=True)
    seen = torch.stack([(drawn == item).any(1).float().mean() for item in range(4)])
    assert torch.allclose(log_inclusion(weights, 5).exp(), seen, atol=0.015)
