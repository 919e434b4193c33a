"""A catalogue that is too large for a table of its own rows: hashed id parts, and steps that touch only what they drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ring_world import ITEMS, ring
from scipy.stats import chisquare

from tastemaker.data.sequences import build
from tastemaker.models.item_tower import ItemRows, ItemTower
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training.contrast import Draw
from tastemaker.training.holdout import hold_out
from tastemaker.training.sequence import SequenceModel, SequenceTask, Validation, train_sequence

SEQUENCES = build(ring(users=160))
HELD = hold_out(SEQUENCES, 0.1, 0)
TEXT = Signals.of(np.zeros((ITEMS, 1), dtype=np.float32))


def chosen(*more: str) -> Settings:
    lines = ["sequence.dim=16", "sequence.dropout=0.1", "sequence.min_steps=400", "train.threads=1", "train.precision=fp32"]
    return load_settings(None, [*lines, *more], {})


def tower(id_rows: int, items: int = 500) -> ItemTower:
    torch.manual_seed(0)
    return ItemTower(Signals.of(torch.randn(items, 6).numpy()), torch.ones(items, dtype=torch.bool), 8, 0.0, id_rows)


@pytest.mark.parametrize("id_rows", [500, 40])
def test_some_items_are_what_they_are_among_all(id_rows: int) -> None:
    made = tower(id_rows).eval()
    assert len(made.identity) == id_rows
    asked = torch.tensor([[3, 499], [3, 0]])
    assert torch.allclose(ItemRows(made)[asked], made()[asked], atol=1e-6)
    assert len(ItemRows(made)) == 500


def test_items_that_share_a_row_are_still_told_apart() -> None:
    made = tower(64, items=1_000).eval()
    with torch.no_grad():
        made.content.project["text"].weight.zero_()
        parts = made()
    assert len(torch.unique(parts.round(decimals=4), dim=0)) > 750  # 64 · 65 / 2 pairs of rows for a thousand items
    used = torch.zeros(64)
    made.zero_grad()
    made(torch.arange(1_000)).sum().backward()
    used = made.identity.grad.abs().sum(1)
    assert bool((used > 0).all()), "every row is somebody's"


def test_draws_follow_the_chances_and_never_give_what_has_none() -> None:
    chance = torch.tensor([0.0, 0.5, 0.125, 0.0, 0.375, 0.0])
    torch.manual_seed(0)
    found = np.bincount(Draw(chance)(20_000).numpy(), minlength=6)
    assert found[[0, 3, 5]].sum() == 0
    assert chisquare(found[[1, 2, 4]], np.array([0.5, 0.125, 0.375]) * 20_000).pvalue > 1e-3


@pytest.mark.parametrize(
    "words", [("sampling.negatives=uniform", "sampling.count=20"), ("sequence.loss=bce", "sampling.negatives=popularity")]
)
def test_a_step_over_a_sample_computes_only_what_it_needs(words: tuple[str, ...]) -> None:
    model = SequenceModel(TEXT, torch.from_numpy(HELD.train.counts()), chosen().sequence)
    task = SequenceTask(HELD.train, model, chosen(*words, "sampling.count=5"), None)
    asked: list[int] = []
    whole = model.items.forward
    model.items.forward = lambda items=None: asked.append(ITEMS if items is None else len(items)) or whole(items)  # type: ignore[method-assign]
    task.loss(next(task.batches(0))[:1])
    assert asked
    assert max(asked) < ITEMS


def test_hashed_parts_and_samples_learn_the_ring() -> None:
    validation = Validation(HELD.histories, HELD.targets)
    known = HELD.train.counts()[HELD.targets] > 0
    validation = Validation([history for history, there in zip(HELD.histories, known, strict=True) if there], HELD.targets[known])
    given = chosen("sequence.id_rows=24", "sampling.negatives=uniform", "sampling.count=30")
    model, result = train_sequence(HELD.train, TEXT, given, validation)
    assert model.items.identity.shape == (24, 16)
    assert result.best_score is not None
    assert result.best_score > 0.8
