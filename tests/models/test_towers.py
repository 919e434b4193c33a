"""What the towers promise: length one, no look ahead, no difference between padded and single histories, cold items by their text."""

from __future__ import annotations

import pytest
import torch

from tastemaker.models.item_tower import ContentOnly, ItemTower
from tastemaker.models.user_sequence import UserSequence
from tastemaker.schema.signals import Signals


@pytest.fixture
def users() -> UserSequence:
    torch.manual_seed(0)
    tower = UserSequence(dim=16, layers=2, heads=2, max_length=8, dropout=0.3)
    with torch.no_grad():
        for block in tower.blocks:
            block.distance.normal_()
    return tower.eval()


def test_what_comes_later_or_pads_changes_nothing(users: UserSequence) -> None:
    vectors = torch.randn(1, 8, 16)
    other = vectors.clone()
    other[:, 5:] = torch.randn(1, 3, 16)
    assert torch.allclose(users.states(vectors)[:, :5], users.states(other)[:, :5], atol=1e-6)
    five = torch.tensor([5])
    assert torch.allclose(users(vectors, five), users(vectors[:, :5], five), atol=1e-6)


def test_order_matters_and_an_empty_history_is_the_zero_vector(users: UserSequence) -> None:
    vectors = torch.randn(1, 4, 16)
    assert not torch.allclose(users(vectors, torch.tensor([4])), users(vectors.flip(1), torch.tensor([4])), atol=1e-3)
    assert users(vectors, torch.tensor([0])).abs().max().item() == 0.0


def test_item_vectors_have_length_one_and_cold_items_are_read_from_their_text() -> None:
    torch.manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(6, 5), dim=-1)
    text[5] = 0
    tower = ItemTower(Signals.of(text.numpy()), torch.tensor([True, True, True, False, False, True]), dim=4).eval()
    with torch.no_grad():
        tower.identity.normal_()
        vectors, read = tower(), ContentOnly(tower)(text)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(6), atol=1e-6)
    assert torch.allclose(vectors[3:5], read[3:5], atol=1e-6)
    assert not torch.allclose(vectors[:3], read[:3], atol=1e-2)


def test_id_dropout_silences_about_its_share_and_only_in_training() -> None:
    torch.manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(2_000, 5), dim=-1)
    tower = ItemTower(Signals.of(text.numpy()), torch.ones(2_000, dtype=torch.bool), dim=4, id_dropout=0.3)
    with torch.no_grad():
        tower.identity.normal_()
        silent = torch.isclose(tower.train()(), ContentOnly(tower)(text), atol=1e-6).all(1)
        assert 0.25 < float(silent.float().mean()) < 0.35
        assert torch.equal(tower.eval()(), tower())
