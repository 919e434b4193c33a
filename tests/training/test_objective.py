"""Losses by name: their negatives, their edges, and that each of them and each block learns, exports and answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ring_world import ITEMS, ring

from tastemaker.data.negatives import OwnItems
from tastemaker.data.sequences import Sequences, build
from tastemaker.inference.engine import UserTower
from tastemaker.models.blocks import BLOCKS, TRANSFORMER
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, load_settings, to_table
from tastemaker.schema.signals import Signals
from tastemaker.training import contrast
from tastemaker.training.contrast import Batch
from tastemaker.training.export import export_users
from tastemaker.training.holdout import hold_out
from tastemaker.training.objective import LOSSES, OneByOne, Softmax, objective_of
from tastemaker.training.sequence import SequenceModel, Validation, train_sequence

SMALL = ["sequence.dim=16", "sequence.dropout=0", "sequence.id_dropout=0", "train.threads=1", "train.precision=fp32"]
SOURCES = ("full", "uniform", "popularity", "in_batch")


def chosen(*lines: str) -> Settings:
    return load_settings(None, [*SMALL, *lines], {})


def log_of(histories: list[list[int]], n_items: int) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    users, names = [""] * len(histories), [""] * n_items
    return Sequences(users, names, offsets, items, np.zeros(len(items)), np.zeros(len(items), np.int16), ["e"])


def batch_of(log: Sequences, n_items: int) -> Batch:
    """Every event but the first of each user as a target."""
    torch.manual_seed(0)
    place = np.flatnonzero(np.concatenate([np.arange(length) > 0 for length in log.lengths()]))
    users = np.repeat(np.arange(log.n_users), log.lengths())[place]
    states, items = F.normalize(torch.randn(len(place), 4), dim=1) * 5, F.normalize(torch.randn(n_items, 4), dim=1)
    return Batch(states, items, torch.randn(n_items), torch.from_numpy(log.items[place].astype(np.int64)), users)


LOG = log_of([[0, 1, 2, 1], [3, 4], [0, 5, 6]], 12)


def made(name: str, *lines: str) -> OneByOne:
    found = objective_of(LOG, chosen(f"sequence.loss={name}", *lines), np.ones(12))
    assert isinstance(found, OneByOne)
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_nobody_is_told_apart_from_what_he_met(source: str) -> None:
    batch = batch_of(LOG, 12)
    columns, found = made("bpr", f"sampling.negatives={source}", "sampling.count=40").opponents(batch)
    assert torch.equal(columns[found.target], batch.target)
    own = OwnItems(LOG)
    for position, user in enumerate(batch.users):
        share = found.share[found.user[position]]
        assert share.sum().item() == pytest.approx(1.0)
        assert not own.has(np.array([user]), columns[share > 0].numpy()[None]).any()


def test_the_negatives_follow_their_distribution() -> None:
    batch = batch_of(LOG, 12)

    def often(*lines: str) -> torch.Tensor:
        objective, total = made("bpr", *lines), torch.zeros(12)
        for _ in range(400):
            columns, found = objective.opponents(batch)
            total[columns] += found.share[1] / 400  # the second user met the items 3 and 4
        return total

    met = torch.tensor(LOG.counts().astype(np.float32))
    met[[3, 4]] = 0
    alike = torch.ones(12)
    alike[[3, 4]] = 0
    wanted = met**0.5 / (met**0.5).sum()
    assert torch.allclose(often("sampling.negatives=full"), alike / 10, atol=1e-5)
    assert torch.allclose(often("sampling.negatives=uniform", "sampling.count=200"), alike / 10, atol=0.01)
    lines = ("sampling.negatives=popularity", "sampling.count=200", "sampling.alpha=0.5")
    assert torch.allclose(often(*lines), wanted, atol=0.01)
    aimed = torch.bincount(batch.target, minlength=12).float()
    aimed[[3, 4]] = 0
    assert torch.allclose(often("sampling.negatives=in_batch"), aimed / aimed.sum(), atol=1e-5)


@pytest.mark.parametrize("name", ["bce", "gbce", "bpr"])
def test_drawn_negatives_estimate_all_of_them(name: str) -> None:
    batch = batch_of(LOG, 12)
    whole, drawn = (
        made(name, "sequence.loss_negatives=3"),
        made(name, "sequence.loss_negatives=3", "sampling.negatives=uniform", "sampling.count=30"),
    )
    torch.manual_seed(0)
    mean = np.mean([drawn.loss(batch, torch.float32).item() for _ in range(300)])
    assert mean == pytest.approx(whole.loss(batch, torch.float32).item(), rel=0.03)


def test_gbce_without_calibration_is_bce_and_with_it_lower() -> None:
    batch, few = batch_of(LOG, 12), "sequence.loss_negatives=2"
    bce, same, calibrated = (
        objective.loss(batch, torch.float32).item()
        for objective in (made("bce", few), made("gbce", few, "sequence.gbce_t=0"), made("gbce", few))
    )
    assert bce == same > calibrated


def test_binary_losses_begin_at_the_odds_of_their_negatives() -> None:
    counts = torch.from_numpy(LOG.counts())

    def bias(*lines: str) -> torch.Tensor:
        return SequenceModel(Signals.of(np.zeros((12, 1), np.float32)), counts, chosen(*lines).sequence).bias.detach()

    for name in ("bce", "gbce"):
        found = bias(f"sequence.loss={name}", "sequence.loss_negatives=16")
        assert torch.allclose(found, bias() - np.log(16), atol=1e-6)
    assert torch.equal(bias("sequence.loss=bpr"), bias())


def test_a_large_catalogue_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "FULL_SOFTMAX_ITEMS", 10)
    monkeypatch.setattr(contrast, "SAMPLED_ITEMS", 2)
    columns, _ = made("bce").opponents(batch_of(LOG, 12))
    assert len(columns) <= 6 + 2


def test_smoothing_reaches_the_loss_of_training_whole_and_sampled() -> None:
    batch = batch_of(LOG, 12)
    wanted = F.cross_entropy(batch.states @ batch.items.T + batch.bias, batch.target, label_smoothing=0.2).item()
    whole = objective_of(LOG, chosen("sequence.label_smoothing=0.2"), np.ones(12))
    assert whole.loss(batch, torch.float32).item() == pytest.approx(wanted, rel=1e-5)
    lines = ("sequence.label_smoothing=0.2", "sampling.negatives=uniform", "sampling.count=3000")
    sampled = objective_of(LOG, chosen(*lines), np.ones(12))
    assert isinstance(sampled, Softmax)
    assert sampled.loss(batch, torch.float32).item() == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("histories", [[[0, 0, 0]], [[0, 1, 2, 0]], [[0, 0], [0]]])
def test_one_item_or_one_user_is_learned_without_a_fault(name: str, histories: list[list[int]]) -> None:
    n_items = 1 + max(item for history in histories for item in history)
    lines = ("sequence.min_steps=3", "sequence.epochs=1", f"sequence.loss={name}")
    model, result = train_sequence(log_of(histories, n_items), Signals.of(np.zeros((n_items, 1), np.float32)), chosen(*lines))
    assert np.isfinite(result.losses).all()
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.parametrize(
    "lines",
    [
        ("sequence.loss=bce",),
        ("sequence.loss=gbce", "sampling.negatives=popularity", "sampling.count=20"),
        ("sequence.loss=bpr", "sampling.negatives=uniform", "sampling.count=20", "sampling.user_power=0.5"),
        ("sequence.label_smoothing=0.1",),
        ("sequence.block=hstu",),
        ("sequence.block=ligr",),
    ],
)
def test_every_choice_learns_the_ring(lines: tuple[str, ...]) -> None:
    held = hold_out(build(ring()), 0.0, 0)
    settings = chosen(*lines, "sequence.loss_negatives=16", "sequence.min_steps=120", "sequence.learning_rate=0.01")
    _, result = train_sequence(
        held.train, Signals.of(np.zeros((ITEMS, 1), np.float32)), settings, Validation(held.histories, held.targets)
    )
    assert result.best_score is not None
    assert result.best_score > 0.8


@pytest.mark.parametrize("name", [name for name in BLOCKS if name != TRANSFORMER])  # that one: test_fit_export.py
def test_every_block_answers_without_torch_as_with_it(name: str, tmp_path: Path) -> None:
    settings = chosen(f"sequence.block={name}", "sequence.max_length=12").sequence
    torch.manual_seed(0)
    model = SequenceModel(Signals.of(torch.randn(30, 6).numpy()), torch.arange(30), settings)
    with torch.no_grad():
        for value in model.users.parameters():
            value += 0.1 * torch.randn_like(value)
    export_users(model.users, settings.dim, tmp_path / "model.onnx")
    random = np.random.default_rng(0)
    histories = [random.integers(0, 30, length).astype(np.int32) for length in (0, 1, 2, 5, 12, 40)]
    vectors = model.item_vectors()
    found = UserTower(tmp_path / "model.onnx", settings.max_length).vectors(histories, lambda rows: vectors[rows])
    wanted = model.user_vectors(histories)
    assert np.abs(wanted[1:]).max() > 1
    assert np.abs(found - wanted).max() <= 1e-4


def test_settings_of_a_bundle_made_before_mean_what_they_meant() -> None:
    table = to_table(Settings())
    for key in ("block", "loss", "loss_negatives", "gbce_t", "label_smoothing"):
        del table["sequence"][key]
    assert from_table(table) == Settings()
    assert (Settings().sequence.block, Settings().sequence.loss, Settings().sequence.label_smoothing) == (
        "transformer",
        "softmax",
        0,
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("sequence.loss=hinge",), "sequence.loss is 'hinge'; expected softmax, bce, gbce, bpr"),
        (("sequence.block=mamba",), "sequence.block is 'mamba'; expected transformer, hstu, ligr"),
        (
            ("sequence.loss=bce", "sampling.negatives=hard"),
            "'hard'; the loss 'bce' shares its negatives: expected full, uniform, popularity, in_batch",
        ),
        (("sequence.loss=bpr", "sequence.label_smoothing=0.1"), "goes with the loss softmax; the loss is 'bpr'"),
    ],
)
def test_words_that_mean_nothing_are_explained(lines: tuple[str, ...], words: str) -> None:
    settings = chosen(*lines)
    with pytest.raises(SettingsError, match=words):
        train_sequence(LOG, Signals.of(np.zeros((12, 1), np.float32)), settings)
