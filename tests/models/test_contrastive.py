"""InfoNCE against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tastemaker.models.contrastive import ResidualHead, info_nce


def _plain(queries: torch.Tensor, items: torch.Tensor, target: list[int], barred: torch.Tensor, temperature: float) -> float:
    """The definition, one pair at a time."""
    total = 0.0
    for row, wanted in enumerate(target):
        logits = [float(torch.cosine_similarity(queries[row], item, dim=0)) / temperature for item in items]
        kept = [logit for place, logit in enumerate(logits) if place == wanted or not barred[row, place]]
        total -= logits[wanted] - math.log(sum(math.exp(logit) for logit in kept))
    return total / len(target)


def test_it_is_the_definition_with_barred_items_left_out() -> None:
    torch.manual_seed(0)
    queries, items, target = torch.randn(3, 6), torch.randn(5, 6), torch.tensor([0, 4, 2])
    barred = torch.tensor([[True, True, False, False, False], [False] * 5, [False, True, True, False, True]])
    found = float(info_nce(queries, items, target, barred, 0.2))
    assert found == pytest.approx(_plain(queries, items, [0, 4, 2], barred, 0.2), rel=1e-5)
    assert found != pytest.approx(_plain(queries, items, [0, 4, 2], torch.zeros(3, 5, dtype=torch.bool), 0.2), rel=1e-3)


def test_frequent_negatives_weigh_less_with_the_correction() -> None:
    queries, items = torch.eye(2), torch.eye(2)
    none, target = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([0, 0])
    often = torch.log(torch.tensor([0.01, 0.99]))
    plain, corrected = (float(info_nce(queries, items, target, none, 1.0, share)) for share in (None, often))
    wanted = [-math.log(1 / (1 + 0.01 / 0.99 * math.exp(-sign))) for sign in (1, -1)]
    assert corrected == pytest.approx(sum(wanted) / 2, rel=1e-4)
    assert corrected < plain


def test_matryoshka_teaches_the_leading_dimensions() -> None:
    torch.manual_seed(0)
    items, target, none = torch.randn(4, 8), torch.arange(4), torch.zeros(4, 4, dtype=torch.bool)
    whole, part = info_nce(items, items, target, none, 0.5), info_nce(items[:, :2], items[:, :2], target, none, 0.5)
    assert torch.allclose(info_nce(items, items, target, none, 0.5, matryoshka=(2, 8, 99)), (whole + part) / 2)


def test_an_untrained_head_whitens_only() -> None:
    torch.manual_seed(0)
    mean, components, vectors = torch.randn(6), torch.randn(4, 6), torch.randn(5, 6)
    head = ResidualHead(mean, components).eval()
    assert torch.allclose(head(vectors), torch.nn.functional.normalize((vectors - mean) @ components.T, dim=-1))
