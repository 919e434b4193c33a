"""An item tower with several signals: any may be missing, text alone changes no bit, what is exported agrees with what is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tastemaker.models.item_tower import ContentOnly, ItemTower
from tastemaker.schema.signals import Signal, Signals

N, DIM = 40, 12
RANDOM = np.random.default_rng(0)


def unit(width: int, missing: slice = slice(0, 0)) -> np.ndarray:
    rows = RANDOM.normal(size=(N, width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[missing] = 0
    return rows


BOTH = Signals.of(unit(7, slice(0, 10)), Signal("image", unit(5, slice(5, 20))), Signal("graph", unit(3, slice(5, 10))))


def tower(signals: Signals = BOTH, **more: float) -> ItemTower:
    torch.manual_seed(1)
    found = ItemTower(signals, torch.ones(N, dtype=torch.bool), DIM, **more)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, value in found.named_parameters():
            if name.endswith(("prior", "query")):
                value.normal_()
    return found


def test_with_text_alone_the_numbers_and_the_chance_are_those_of_the_plain_formula() -> None:
    text = torch.from_numpy(unit(7, slice(3, 5)))
    torch.manual_seed(3)
    one = ItemTower(Signals.of(text.numpy()), torch.arange(N) % 2 == 0, DIM, id_dropout=0.3, signal_dropout=0.9)
    found, after = one(), torch.rand(3)
    torch.manual_seed(3)
    project = torch.nn.Linear(7, DIM, bias=False)
    torch.nn.init.normal_(project.weight, std=DIM**-0.5)
    identity = torch.randn(N, DIM) * 0.02
    weight = (torch.arange(N) % 2 == 0).float()[:, None] * (torch.rand(N, 1) >= 0.3)
    assert torch.equal(found, F.normalize(project(text) + identity * weight, dim=-1))
    assert torch.equal(after, torch.rand(3)), "no random number more or less is drawn"
    assert {name for name, _ in one.named_parameters()} == {"identity", "content.project.text.weight"}


def test_a_missing_signal_has_no_say_and_the_others_fill_its_place() -> None:
    full = tower().eval()
    with torch.no_grad():
        full.identity.zero_()
        found = full()
        parts = [F.linear(vectors, one.weight) for vectors, one in zip(full.signals(), full.content.project.values(), strict=True)]
    assert torch.allclose(found[10:20], F.normalize(_gated(full, parts, (0, 2))[10:20], dim=-1), atol=1e-6)
    assert torch.allclose(found[0:5], F.normalize(_gated(full, parts, (1, 2))[0:5], dim=-1), atol=1e-6)
    assert torch.allclose(found[20:], F.normalize(_gated(full, parts, (0, 1, 2))[20:], dim=-1), atol=1e-6)
    assert not found[5:10].any(), "an item without any signal has no content"
    image_only = Signals.of(np.zeros((N, 7), np.float32), Signal("image", BOTH.others[0].vectors), Signal("graph", unit(3) * 0))
    with torch.no_grad():
        alone = tower(image_only).eval().content(tower(image_only).signals())
    assert torch.allclose(alone, parts[1], atol=1e-6), "the only signal has the gate 1"


def _gated(one: ItemTower, parts: list[torch.Tensor], there: tuple[int, ...]) -> torch.Tensor:
    logits = torch.stack([one.content.prior[at] + parts[at] @ one.content.query[at] for at in there], dim=-1)
    gates = torch.softmax(logits, dim=-1).detach()
    return sum((gates[:, [place]] * parts[at] for place, at in enumerate(there)), torch.zeros(N, DIM))


def test_silenced_signals_are_about_as_many_as_asked_and_never_the_last() -> None:
    many = 4_000
    there = np.ones((many, 1), np.float32)
    signals = Signals.of(there, Signal("image", there), Signal("audio", there * 0))
    one = ItemTower(signals, torch.zeros(many, dtype=torch.bool), DIM, signal_dropout=0.3)
    with torch.no_grad():
        text, image = (project.weight[:, 0] for project in list(one.content.project.values())[:2])
        found = one.train()()
        kept = [torch.isclose(found, F.normalize(given, dim=-1), atol=1e-5).all(1) for given in (text, image, text + image)]
        assert torch.equal(one.eval()(), one())
    assert (kept[0] | kept[1] | kept[2]).all(), "an item with two signals always shows one"
    shares = [float(rows.float().mean()) for rows in kept]
    assert shares == pytest.approx([0.21, 0.21, 0.49 + 0.09], abs=0.03)


def test_gradients_stay_finite_where_everything_is_missing() -> None:
    one = tower(id_dropout=1.0, signal_dropout=0.5).train()
    one().pow(3).sum().backward()
    for name, value in one.named_parameters():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


def test_what_is_exported_reads_a_content_as_the_tower_does() -> None:
    one = tower().eval()
    with torch.no_grad():
        one.identity.zero_()
        assert torch.allclose(ContentOnly(one)(torch.from_numpy(BOTH.content())), one(), atol=1e-6)
        some = torch.tensor([30, 2, 11])
        assert torch.allclose(one(some), one()[some], atol=1e-6)


def test_signals_that_do_not_fit_together_are_told() -> None:
    with pytest.raises(ValueError, match="expected 'text' first and each once"):
        Signals((Signal("image", unit(3)),))
    with pytest.raises(ValueError, match="expected 'text' first and each once"):
        Signals.of(unit(3), Signal("image", unit(3)), Signal("image", unit(3)))
    with pytest.raises(ValueError, match="one row an item in each"):
        Signals.of(unit(3), Signal("image", unit(3)[:5]))
    with pytest.raises(ValueError, match="expected float32"):
        Signal("image", np.zeros((3, 2)))
    assert BOTH.others[0].present.tolist() == [not 5 <= row < 20 for row in range(N)]
    assert BOTH.widths == {"text": 7, "image": 5, "graph": 3}
    assert BOTH.content([0, 39]).shape == (2, 15)
