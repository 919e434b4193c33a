"""The fused softmax gives the loss and the gradients of the plain one."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F

from tastemaker.models.losses import fused_cross_entropy, log_inclusion, part_of_cross_entropy


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("weighed", [False, True])
def test_parts_of_the_catalogue_make_the_whole_softmax(dtype: torch.dtype, tolerance: float, weighed: bool) -> None:
    hidden, items, bias, target = _toy()
    weight = torch.rand(700) if weighed else None
    fused = fused_cross_entropy(hidden, items, bias, target, dtype, weight)
    wanted = torch.autograd.grad(fused, (hidden, items, bias))
    meeting, told = threading.Barrier(2), [torch.zeros(0)] * 2
    losses = [torch.zeros(())] * 2

    def score(part: int, rows: slice) -> None:
        def together(value: torch.Tensor) -> torch.Tensor:
            meeting.wait(60)
            told[part] = value.clone()
            meeting.wait(60)
            return torch.stack(told)

        here = (target >= rows.start) & (target < rows.stop)
        column = torch.where(here, target - rows.start, -1)
        losses[part] = part_of_cross_entropy(hidden, items[rows], bias[rows], column, together, dtype, weight)

    threads = [threading.Thread(target=score, args=one) for one in enumerate((slice(0, 100), slice(100, 301)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    whole = losses[0] + losses[1]
    found = torch.autograd.grad(whole, (hidden, items, bias))
    assert abs(whole.item() - fused.item()) < tolerance * fused.item()
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < tolerance
