"""A sample stands for the whole catalogue, weights count, and defaults change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ring_world import ring

from tastemaker.data.negatives import Hard, OwnItems, popular_chance, uniform_chance
from tastemaker.data.sequences import Sequences, build
from tastemaker.models.losses import fused_cross_entropy, log_inclusion, stratified_cross_entropy
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training import contrast
from tastemaker.training.contrast import Batch, Contrast, contrast_of
from tastemaker.training.holdout import hold_out
from tastemaker.training.sequence import SequenceModel, SequenceTask, Validation, train_sequence

N, P, D, TURNS = 60, 32, 6, 160
NO_TEXT = Signals.of(np.zeros((40, 1), dtype=np.float32))
SMALL = ["sequence.dim=16", "sequence.dropout=0", "sequence.id_dropout=0", "train.threads=1", "train.precision=fp32"]


def chosen(*lines: str) -> Settings:
    return load_settings(None, [*SMALL, *lines], {})


class World:
    """Positions whose targets follow a softmax that the towers do not know yet."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.items = F.normalize(torch.randn(N, D, generator=random), dim=-1).requires_grad_()
        self.states = (F.normalize(torch.randn(P, D, generator=random), dim=-1) * 4).requires_grad_()
        popular = 1 / torch.arange(1, N + 1).float()
        self.bias = (0.5 * popular.log()).requires_grad_()
        with torch.no_grad():
            self.truth = torch.softmax(0.5 * self.states @ self.items.T + popular.log(), dim=1)
        self.share = self.truth.mean(0)
        torch.manual_seed(1)

    def batch(self) -> tuple[Batch, OwnItems]:
        target = torch.multinomial(self.truth, 1)[:, 0]
        log = Sequences(
            [""] * P, [""] * N, np.arange(P + 1), target.numpy().astype(np.int32), np.zeros(P), np.zeros(P, np.int16), ["e"]
        )
        return Batch(self.states, self.items, self.bias, target, np.arange(P)), OwnItems(log)

    def gradients(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, (self.items, self.states, self.bias))])


def distance(make: Callable[[World, OwnItems, int], Contrast]) -> float:
    """How far the expected gradient of a sampled softmax lies from that of the full one, relative to its length."""
    world = World()
    sampled, full = torch.zeros(()), torch.zeros(())
    for turn in range(TURNS):
        batch, own = world.batch()
        sampled = sampled + world.gradients(make(world, own, turn).loss(batch, torch.float32))
        full = full + world.gradients(F.cross_entropy(batch.states @ batch.items.T + batch.bias, batch.target))
    return float((sampled - full).norm() / full.norm())


def made(name: str, correction: str) -> Callable[[World, OwnItems, int], Contrast]:
    def make(world: World, own: OwnItems, turn: int) -> Contrast:
        chance, draws, hard = world.share, 20, None
        if name == "uniform":
            chance = torch.from_numpy(uniform_chance(N)).float()
        if name == "popularity":
            chance = torch.from_numpy(popular_chance((world.share.numpy() * 1e6).astype(int), 0.75)).float()
        if name == "in_batch":
            draws = 0
        if name == "hard":
            hard = (Hard(own, pool=12, skip=2), 6)
        return Contrast(chance, draws, world.share, correction, hard)

    return make


@pytest.mark.parametrize("name", ["uniform", "popularity", "in_batch", "hard"])
def test_the_corrected_sample_pulls_as_the_whole_catalogue_does(name: str) -> None:
    assert distance(made(name, "log_q")) < 0.25
    assert distance(made(name, "none")) > 0.4


def test_the_correction_of_negatives_alone_pulls_as_the_whole_does() -> None:
    assert distance(made("popularity", "log_q_negatives")) < 0.25


def test_a_flipped_sign_and_a_wrong_share_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = lambda world, own, turn: Contrast(torch.from_numpy(uniform_chance(N)).float(), 20)  # noqa: E731
    assert distance(ignored) > 0.4
    monkeypatch.setattr(contrast, "log_inclusion", lambda *given: -log_inclusion(*given))
    assert distance(made("popularity", "log_q")) > 0.4


def test_strata_that_hold_everything_are_the_full_softmax() -> None:
    world = World()
    batch, own = world.batch()
    full = F.cross_entropy(batch.states @ batch.items.T + batch.bias, batch.target)
    whole = Contrast(torch.from_numpy(uniform_chance(N)).float(), 3_000, world.share, "log_q", (Hard(own, pool=9, skip=2), 9))
    found = whole.loss(batch, torch.float32)
    assert found.item() == pytest.approx(full.item(), rel=1e-4)
    wanted, given = world.gradients(full), world.gradients(whole.loss(batch, torch.float32))
    assert float((wanted - given).norm() / wanted.norm()) < 1e-3


def test_log_inclusion_of_two_samples_is_the_chance_to_be_in_either() -> None:
    one, two = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.1, 0.1, 0.8])
    first, second = torch.multinomial(one.expand(20_000, 3), 2, True), torch.multinomial(two.expand(20_000, 3), 3, True)
    drawn = torch.cat([first, second], dim=1)
    seen = torch.stack([(drawn == item).any(1).float().mean() for item in range(3)])
    assert torch.allclose(log_inclusion(one, 2, two, 3).exp(), seen, atol=0.015)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_weights_and_lifts_enter_the_fused_loss_as_the_plain_one(dtype: torch.dtype, tolerance: float) -> None:
    world = World()
    batch, _ = world.batch()
    weight, lift = torch.rand(P) * 3, torch.randn(P)
    weight[:4] = 0
    logits = batch.states @ batch.items.T + batch.bias
    logits = logits.scatter_add(1, batch.target[:, None], lift[:, None])
    plain = (F.cross_entropy(logits, batch.target, reduction="none") * weight).sum() / weight.sum()
    fused = fused_cross_entropy(batch.states, batch.items, batch.bias, batch.target, dtype, weight, lift)
    assert fused.item() == pytest.approx(plain.item(), rel=max(tolerance, 1e-5))
    wanted, found = world.gradients(plain), world.gradients(fused)
    assert float((wanted - found).norm() / wanted.norm()) < tolerance


def test_a_batch_in_which_nothing_counts_teaches_nothing() -> None:
    world = World()
    batch, _ = world.batch()
    loss = fused_cross_entropy(batch.states, batch.items, batch.bias, batch.target, weight=torch.zeros(P))
    assert loss.item() == 0.0
    assert not world.gradients(loss).any()


def test_own_columns_and_barred_ones_enter_the_stratified_loss() -> None:
    shared = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]])
    own = torch.tensor([[0.7], [-torch.inf]])
    barred = torch.tensor([[False, True, False], [False, False, False]])
    loss = stratified_cross_entropy(shared, torch.tensor([0, 1]), own, barred, torch.tensor([1.0, 3.0]))
    one = np.log(np.exp([1.0, 3.0, 0.7]).sum()) - 1.0
    two = np.log(np.exp([0.5, 0.0, -1.0]).sum())
    assert loss.item() == pytest.approx((one + 3 * two) / 4)


def _trained(settings: Settings) -> list[torch.Tensor]:
    model, _ = train_sequence(build(ring(60)), NO_TEXT, settings, stop_after=1)
    return list(model.state_dict().values())


def test_neutral_settings_change_no_bit() -> None:
    plain = _trained(chosen("sequence.min_steps=0", "sequence.epochs=2"))
    neutral = ["sampling.weights=event=2", "sampling.value=log", "sampling.user_power=0", "sampling.count=7"]
    again = _trained(chosen("sequence.min_steps=0", "sequence.epochs=2", *neutral))
    other = _trained(chosen("sequence.min_steps=0", "sequence.epochs=2", "sampling.user_power=0.5"))
    assert all(torch.equal(one, two) for one, two in zip(plain, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(plain, other, strict=True))


def test_a_large_catalogue_is_sampled_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast, "FULL_SOFTMAX_ITEMS", 10)
    monkeypatch.setattr(contrast, "SAMPLED_ITEMS", 16)
    sequences = build(ring(60))
    made = contrast_of(sequences, Settings().sampling, np.ones(40))
    assert made is not None
    states, items, bias = torch.randn(9, D), torch.randn(40, D), torch.randn(40)
    target = torch.arange(9)
    torch.manual_seed(3)
    found = made.loss(Batch(states, items, bias, target, np.zeros(9, np.int64)), torch.float32)
    torch.manual_seed(3)
    counts = sequences.counts()
    chance = torch.from_numpy((0.5 * counts / counts.sum() + 0.5 / 40).astype(np.float32))
    columns, place = torch.unique(torch.cat([target, torch.multinomial(chance, 16, True)]), return_inverse=True)
    corrected = bias[columns] - log_inclusion(chance[columns], 16 + 9)
    assert found.item() == fused_cross_entropy(states, items[columns], corrected, place[:9]).item()


def test_the_loss_is_the_mean_by_the_weight_of_what_came_next() -> None:
    data = ring(30)
    half = np.arange(data.events.height) % 3 == 0
    kinds = np.where(half, "buy", "view")
    sequences = build(data.with_events(data.events.with_columns(event_type=kinds)))
    settings = chosen("sampling.weights=buy=3, view=0")
    torch.manual_seed(0)
    model = SequenceModel(NO_TEXT, torch.from_numpy(sequences.counts()), settings.sequence).eval()
    task = SequenceTask(sequences, model, settings, None)
    batch = next(task.batches(0))
    found = task.loss(batch).item()
    bought, total = 0, 0.0
    for user in range(sequences.n_users):
        history = sequences.history(user)
        with torch.no_grad():
            states = model.users.states(model.items()[torch.from_numpy(history[None].astype(np.int64))])[0]
            scores = torch.log_softmax(states @ model.items().T + model.bias, dim=1)
        for place in range(1, len(history)):
            if sequences.type_names[sequences.event_types[sequences.offsets[user] + place]] == "buy":
                bought, total = bought + 1, total - float(scores[place - 1, history[place]])
    every = [task.loss(part).item() for part in task.batches(0)]
    assert bought > 20
    assert len(every) > 1
    whole = task.loss(np.arange(sequences.n_users)).item()
    assert whole == pytest.approx(total / bought, rel=1e-4)
    assert found != pytest.approx(whole, rel=1e-6)


def test_rare_items_come_more_often_when_asked_for() -> None:
    histories = [[0, 1, 0, 1]] * 39 + [[0, 2, 3]]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    log = Sequences([""] * 40, [""] * 4, offsets, items, np.zeros(len(items)), np.zeros(len(items), np.int16), ["e"])

    def often(share: float) -> float:
        settings = chosen(f"sampling.rare_share={share}")
        model = SequenceModel(Signals.of(np.zeros((4, 1), np.float32)), torch.from_numpy(log.counts()), settings.sequence)
        task = SequenceTask(log, model, settings, None)
        drawn = np.concatenate([part for epoch in range(40) for part in task.batches(epoch)])
        assert len(drawn) == 40 * 40
        return float((drawn == 39).mean())

    assert often(0.0) == 1 / 40
    # items 0, 1, 2, 3 come next: two of them only in the last history, which half of the balanced draws take
    assert often(1.0) == pytest.approx(0.5, abs=0.06)
    assert often(0.5) == pytest.approx(0.5 * 0.5 + 0.5 / 40, abs=0.05)


@pytest.mark.parametrize("name", ["uniform", "popularity", "in_batch", "hard"])
@pytest.mark.parametrize(
    "more", [(), ("sampling.user_power=0.5", "sampling.correction=log_q_negatives", "sampling.rare_share=0.2")]
)
def test_every_choice_learns_the_ring(name: str, more: tuple[str, ...]) -> None:
    held = hold_out(build(ring()), 0.0, 0)
    settings = chosen(
        f"sampling.negatives={name}", "sampling.count=10", "sampling.hard_pool=8", "sampling.hard_count=4", *more,
        "sequence.min_steps=120", "sequence.learning_rate=0.01",
    )  # fmt: skip
    _, result = train_sequence(held.train, NO_TEXT, settings, Validation(held.histories, held.targets))
    assert result.best_score is not None
    assert result.best_score > 0.8


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sampling.negatives=random", "expected full, uniform, popularity, in_batch or hard"),
        ("sampling.correction=yes", "expected log_q, log_q_negatives, none"),
        ("sampling.weights=sale=2", "names sale"),
    ],
)
def test_words_that_mean_nothing_are_explained(line: str, words: str) -> None:
    lines = [line] if "negatives" in line else ["sampling.negatives=uniform", line]
    with pytest.raises(SettingsError, match=words):
        _trained(chosen(*lines))
