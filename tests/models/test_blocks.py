"""Each block of the user tower looks only back, hears order, and is the formula of its paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tastemaker.models.blocks import BLOCKS, Block, HstuBlock, LigrBlock, make_block
from tastemaker.models.user_sequence import LastState, UserSequence
from tastemaker.schema.errors import SettingsError

D, HEADS, L = 16, 2, 8


def _tower(name: str) -> UserSequence:
    torch.manual_seed(0)
    tower = UserSequence(D, 2, HEADS, L, 0.3, name)
    with torch.no_grad():
        for block in tower.blocks:
            block.distance.normal_()
    return tower.eval()


@pytest.mark.parametrize("name", list(BLOCKS))
def test_what_comes_later_or_pads_changes_nothing_and_order_matters(name: str) -> None:
    tower, vectors = _tower(name), torch.randn(1, L, D)
    other = vectors.clone()
    other[:, 5:] = torch.randn(1, 3, D)
    assert torch.allclose(tower.states(vectors)[:, :5], tower.states(other)[:, :5], atol=1e-6)
    assert not torch.allclose(tower.states(vectors)[:, 5], tower.states(other)[:, 5], atol=1e-3)
    five = torch.tensor([5])
    assert torch.allclose(tower(vectors, five), tower(vectors[:, :5], five), atol=1e-6)
    earlier = torch.cat([vectors[:, [2, 1, 0]], vectors[:, 3:5]], dim=1)
    assert not torch.allclose(tower(vectors, five), tower(earlier, five), atol=1e-3)


@pytest.mark.parametrize("name", list(BLOCKS))
def test_the_last_state_alone_is_the_same_as_among_all(name: str) -> None:
    tower, vectors = _tower(name), torch.randn(7, L, D)
    lengths = torch.tensor([8, 1, 5, 0, 2, 7, 3])
    with torch.no_grad():
        assert torch.allclose(LastState(tower)(vectors, lengths), tower(vectors, lengths), atol=2e-6)
        seen: list[tuple[int, ...]] = []
        last = tower.blocks[-1]
        last.out.register_forward_hook(lambda module, given, found: seen.append(tuple(found.shape)))
        LastState(tower)(vectors, lengths)
    assert seen == [(7, 1, D)], "the last block answers for one place only"


@pytest.mark.parametrize("name", list(BLOCKS))
def test_dropout_works_in_training_alone_and_every_weight_learns(name: str) -> None:
    tower, vectors = _tower(name), torch.randn(3, L, D)
    assert torch.equal(tower.states(vectors), tower.states(vectors))
    tower.train()
    assert not torch.equal(tower.states(vectors), tower.states(vectors))
    (tower.states(vectors) * torch.randn(3, L, D)).sum().backward()
    assert [part for part, value in tower.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_the_hstu_block_is_its_formula_one_pair_at_a_time() -> None:
    torch.manual_seed(0)
    block, hidden = HstuBlock(D, HEADS, L, 0.0).eval(), torch.randn(1, 6, D)
    with torch.no_grad():
        block.distance.normal_()
        block.norm_heard.weight.normal_()
        mixed = F.silu(F.layer_norm(hidden[0], [D], block.norm.weight, block.norm.bias, 1e-6) @ block.gate_value_query_key.weight.T)
        gate, value, query, key = mixed.split(D, dim=1)
        heard = torch.zeros(6, D)
        for now in range(6):
            for then in range(now + 1):
                for head in range(HEADS):
                    part = slice(head * D // HEADS, (head + 1) * D // HEADS)
                    score = F.silu(query[now, part] @ key[then, part] + block.distance[head, now - then]) / L
                    heard[now, part] += score * value[then, part]
        normal = F.layer_norm(heard, [D], block.norm_heard.weight, block.norm_heard.bias, 1e-6)
        wanted = hidden[0] + (normal * gate) @ block.out.weight.T
        assert torch.allclose(block(hidden)[0], wanted, atol=1e-5)


def test_open_gates_of_ligr_are_the_transformer_and_closed_ones_change_nothing() -> None:
    torch.manual_seed(0)
    plain, gated, hidden = Block(D, HEADS, L, 0.0).eval(), LigrBlock(D, HEADS, L, 0.0).eval(), torch.randn(2, 6, D)
    gated.load_state_dict(plain.state_dict(), strict=False)
    for bias, wanted in ((60.0, plain(hidden)), (-60.0, hidden)):
        with torch.no_grad():
            for gate in (gated.gate_attention, gated.gate_forward):
                gate.weight.zero_()
                gate.bias.fill_(bias)
        assert torch.allclose(gated(hidden), wanted, atol=1e-6)


def test_the_gates_of_ligr_read_the_state_before_the_norm() -> None:
    torch.manual_seed(0)
    block, hidden = LigrBlock(D, HEADS, L, 0.0).eval(), torch.randn(1, 4, D) + 3
    middle = hidden + torch.sigmoid(block.gate_attention(hidden)) * block.heard(hidden)
    wanted = middle + torch.sigmoid(block.gate_forward(middle)) * block.thought(middle)
    assert torch.allclose(block(hidden), wanted, atol=1e-6)


def test_an_unknown_block_is_explained() -> None:
    with pytest.raises(SettingsError, match="'mamba'; expected transformer, hstu, ligr"):
        make_block("mamba", D, HEADS, L, 0.0)
