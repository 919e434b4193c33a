"""Dropout silences the share that it is asked for, and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from tastemaker.models.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4, 0.9])
def test_the_share_asked_for_is_silenced_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(1_000, 333), rate)
    assert float((found == 0).float().mean()) == pytest.approx(rate, abs=0.004)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.006 / (1 - rate))
    assert len(found.unique()) == 2


def test_all_places_are_silenced_alike_and_apart_from_each_other() -> None:
    torch.manual_seed(0)
    silenced = (dropout(torch.ones(4_000, 64), 0.5) == 0).float()
    assert float((silenced.mean(dim=0) - 0.5).abs().max()) < 0.04
    alike = torch.corrcoef(silenced.T).fill_diagonal_(0)
    assert float(alike.abs().max()) < 0.08


def test_the_gradient_passes_only_what_was_kept() -> None:
    values = torch.ones(64, requires_grad=True)
    found = dropout(values, 0.5)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found.detach())


def test_nothing_is_silenced_outside_training_or_at_rate_zero_and_nothing_may_be_empty() -> None:
    values = torch.randn(3, 5)
    assert dropout(values, 0.5, training=False) is values
    assert dropout(values, 0.0) is values
    assert dropout(torch.zeros(0, 4), 0.5).shape == (0, 4)


def test_the_seed_decides() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(dropout(torch.ones(100), 0.4))
    assert torch.equal(*found)
