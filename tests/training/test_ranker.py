"""The ranker: the same numbers with and without torch, chances that hold, an order that is only taken where it is better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.evaluation.calibration import auc, log_loss, reliability
from tastemaker.features.preparation import Reduction
from tastemaker.features.ranker_input import RankerInput, channel_names, relative
from tastemaker.index.channels import CHANNELS
from tastemaker.models import ranker
from tastemaker.models.calibration import Calibration
from tastemaker.models.ranker import BODIES, SHARINGS, Columns, Plan, Ranker, Shape, behind
from tastemaker.models.ranker_network import RankerNetwork
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training import ranker_fit
from tastemaker.training.alignment import agreement, directions, rotation
from tastemaker.training.calibration import fit_calibration
from tastemaker.training.preparation import fit_preparation
from tastemaker.training.ranker import TrainedRanker, check_ranker, train_ranker
from tastemaker.training.ranker_rows import JUDGED, LABEL, RankerRows

QUICK = [
    "train.threads=1",
    "ranker.epochs=4",
    "ranker.vector_dim=2",
    "ranker.categories=category",
    "ranker.experts=2",
    "ranker.hidden=16",
]
ITEMS, DIM, DEPTH = 60, 6, 12


def settings(*more: str) -> Settings:
    return load_settings(None, [*QUICK, *more], {})


def world(signal: float, questions: int = 500, seed: int = 0, heads: tuple[str, ...] = ("click", "buy", "never")) -> RankerRows:
    """Lists whose answers follow the fusion's score and, by `signal`, a column that the fusion does not know."""
    random = np.random.default_rng(seed)
    total = questions * DEPTH
    names = [*channel_names(CHANNELS), "told", "noise"]
    values = random.standard_normal((total, len(names))).astype(np.float32)
    fusion = 2 * random.standard_normal(total).astype(np.float32)
    values[:, names.index("fusion")] = fusion
    worth = (fusion + signal * values[:, names.index("told")]).reshape(questions, DEPTH)
    target = (worth + random.gumbel(size=worth.shape)).argmax(axis=1)
    label = (np.arange(DEPTH) == target[:, None]).astype(np.float32).ravel()
    click = random.random(total) < 1 / (1 + np.exp(2 - values[:, names.index("told")]))
    labels = np.stack([click, click & (random.random(total) < 0.3), np.zeros(total)], axis=1)[:, : len(heads)].astype(np.float32)
    owner = np.repeat(np.arange(questions), DEPTH)
    items = random.integers(0, ITEMS, total).astype(np.int32)
    asked = pl.DataFrame(
        {
            "question": owner,
            "user_id": [f"u{number}" for number in owner // 2],
            "item_id": [f"i{item}" for item in items],
            "timestamp": owner.astype(np.float64),
            LABEL: label,
        }
    )
    plain = np.zeros(total, dtype=bool)
    return RankerRows(
        asked, names, values, values, heads, labels, np.arange(0, total + 1, DEPTH), items, random.standard_normal((questions, DIM)).astype(np.float32),
        fusion, fusion, plain, plain, np.full(total, -1), np.arange(questions) >= questions * (1 - JUDGED),
        np.full(questions, -1, dtype=np.int8), np.zeros(questions, dtype=bool),
    )  # fmt: skip


def learned(rows: RankerRows, *more: str) -> TrainedRanker | str:
    chosen = settings(*more)
    preparation = fit_preparation(rows.names, rows.compared[rows.learned], None, "zscore", select=False)
    vectors = np.random.default_rng(1).standard_normal((ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    catalogue = pl.DataFrame(
        {"item_id": [f"i{item}" for item in range(ITEMS)], "categories": [[f"c{item % 5}"] for item in range(ITEMS)]}
    )
    return train_ranker(
        rows, Reduction(name="text", mean=[], components=[], explained=[]), preparation, catalogue, vectors, 0.0, chosen
    )


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("fields", [0, 2])
def test_lists_are_answered_alike_in_one_product_and_as_a_table(body: str, sharing: str, fields: int) -> None:
    torch.manual_seed(0)
    shape = Shape(dense=13, fields=fields, buckets=11, embedding=3, tasks=3, body=body, sharing=sharing, experts=2, hidden=(8, 5))
    network, random = RankerNetwork(shape), np.random.default_rng(0)
    arrays = {name: random.standard_normal(value.shape).astype(np.float32) for name, value in network.named_parameters()}
    plan = Plan(shape=shape, heads=("a", "b"), calibrations=(Calibration(),) * 2, orders=True, found=1.0, boost=0.0, depth=5)
    begin, fusion = np.array([0, 4, 5, 17]), random.standard_normal(17).astype(np.float32)
    prepared, mine, theirs = (random.standard_normal(size).astype(np.float32) for size in ((17, 4), (3, 3), (17, 3)))
    columns, codes = Columns(prepared, mine, theirs, begin), random.integers(0, 12, (17, fields))
    each = np.repeat(mine, np.diff(begin), axis=0)
    table = np.concatenate([prepared, each, theirs, each * theirs], axis=1)
    assert np.array_equal(columns.table(), table)
    found = [Ranker(plan, arrays).logits(given, codes, fusion) for given in (columns, table)]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
    assert found[0].std() > 1


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_numpy_answers_as_torch_does(body: str, sharing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ranker, "_ZEROS", np.zeros(50, dtype=np.float32)
    )  # negatives are made 0 in many pieces, the last one shorter
    torch.manual_seed(0)
    shape = Shape(dense=7, fields=2, buckets=11, embedding=3, tasks=3, body=body, sharing=sharing, experts=2, hidden=(8, 5))
    network = RankerNetwork(shape, dropout=0.5).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    random = np.random.default_rng(0)
    dense, fusion = random.standard_normal((40, 7)).astype(np.float32), random.standard_normal(40).astype(np.float32)
    codes = random.integers(0, 12, (40, 2))
    with torch.no_grad():
        expected = network(torch.from_numpy(dense), torch.from_numpy(codes), torch.from_numpy(fusion)).numpy()
    arrays = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    plan = Plan(shape=shape, heads=("a", "b"), calibrations=(Calibration(),) * 2, orders=True, found=1.0, boost=0.0, depth=5)
    Ranker(plan, arrays).save(tmp_path)
    again = Ranker.load(tmp_path)
    assert again.plan == plan
    np.testing.assert_allclose(again.logits(dense, codes, fusion), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).std() > 0.1


def test_it_begins_as_the_fusion() -> None:
    network = RankerNetwork(Shape(dense=4, fields=1, buckets=3, embedding=2, tasks=2)).eval()
    fusion = torch.randn(20)
    with torch.no_grad():
        logits = network(torch.randn(20, 4), torch.zeros(20, 1, dtype=torch.int64), fusion)
    assert torch.equal(logits[:, 0], fusion)


@pytest.fixture(scope="module")
def found() -> TrainedRanker:
    made = learned(world(3.0))
    assert isinstance(made, TrainedRanker)
    return made


def test_what_the_fusion_does_not_know_is_learned_and_taken(found: TrainedRanker) -> None:
    assert found.gate.passed
    assert found.ranker.plan.orders
    assert found.gate.gain.low > 0.05
    assert set(found.heads) == {"click", "buy"}
    assert any("'never' was dropped" in note for note in found.notes)
    assert 0.9 < found.heads["click"].ratio < 1.1
    assert 0.5 < found.heads["buy"].ratio < 1.7
    assert found.heads["click"].auc > 0.65


def test_what_brings_nothing_leaves_the_fusion_in_charge() -> None:
    noise = learned(world(0.0))
    assert isinstance(noise, TrainedRanker)
    assert not noise.gate.passed
    assert not noise.ranker.plan.orders
    assert any("only tells chances" in note for note in noise.notes)
    forced = learned(world(0.0), "ranker.mode=always")
    assert isinstance(forced, TrainedRanker)
    assert forced.ranker.plan.orders


def test_a_gain_on_one_kind_of_questions_at_the_cost_of_the_other_is_not_taken() -> None:
    rows = world(3.0)
    later = np.arange(500) % 5 > 0
    both = learned(replace(rows, later=later))
    assert isinstance(both, TrainedRanker)
    assert both.gate.passed
    assert both.gate.last > 0.05
    assert (both.gate.questions, both.gate.last_questions) == (120, 30)
    turned = rows.values.copy()
    turned[~later[rows.owner], rows.names.index("told")] *= -1
    one = learned(replace(rows, compared=turned, later=later))
    assert isinstance(one, TrainedRanker)
    assert one.gate.gain.low > 0
    assert one.gate.last < 0
    assert not one.gate.passed


def test_a_planted_leak_would_be_taken_for_skill_and_the_judged_rows_are_apart() -> None:
    rows = world(0.0)
    leak = rows.values.copy()
    leak[:, rows.names.index("noise")] = rows.asked[LABEL].to_numpy() + 0.01 * leak[:, rows.names.index("noise")]
    found = learned(replace(rows, compared=leak))
    assert isinstance(found, TrainedRanker)
    assert found.gate.ranker > 0.9, "a column that knows the answer is seen in the figures"
    only = leak.copy()
    only[~rows.learned, rows.names.index("noise")] = 0.0
    honest = learned(replace(rows, compared=only))
    assert isinstance(honest, TrainedRanker)
    assert not honest.gate.passed, "what helps on learned rows alone does not pass"


def test_where_no_time_decides_each_question_is_judged_by_a_ranker_that_has_not_seen_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranker_fit, "LEAST_STEPS", 100)
    rows = world(1.5)
    folds = (np.arange(len(rows.judged)) // 2 % 3).astype(np.int8)
    rows = replace(rows, folds=folds, judged=folds == 0)
    found = learned(rows, "ranker.epochs=2")
    assert isinstance(found, TrainedRanker)
    assert found.gate.questions == len(folds)
    assert found.gate.passed
    assert found.gate.ranker > found.gate.fusion
    mine = (folds == 1)[rows.owner]
    label = rows.asked[LABEL].to_numpy().reshape(-1, DEPTH).copy()
    label[folds == 1] = np.roll(label[folds == 1], 1, axis=1)  # the answers of these users are others now
    other = learned(replace(rows, asked=rows.asked.with_columns(pl.Series(LABEL, label.ravel()))), "ranker.epochs=2")
    assert isinstance(other, TrainedRanker)
    assert np.array_equal(other.first[mine], found.first[mine]), "who judges them learned from others"
    assert not np.array_equal(other.first[~mine], found.first[~mine])
    name = next(iter(found.ranker.arrays))
    assert not np.array_equal(other.ranker.arrays[name], found.ranker.arrays[name]), "the ranker that answers learned from all"


def test_the_seed_decides_everything() -> None:
    few = world(1.0, questions=200)
    one, two, other = learned(few), learned(few), learned(few, "train.seed=5")
    assert isinstance(one, TrainedRanker)
    assert isinstance(two, TrainedRanker)
    assert isinstance(other, TrainedRanker)
    assert one.ranker.plan == two.ranker.plan
    assert all(np.array_equal(one.ranker.arrays[name], two.ranker.arrays[name]) for name in one.ranker.arrays)
    assert any(not np.array_equal(one.ranker.arrays[name], other.ranker.arrays[name]) for name in one.ranker.arrays)


def test_too_few_questions_are_said() -> None:
    found = learned(world(1.0, questions=40))
    assert isinstance(found, str)
    assert "No ranker" in found


def test_weights_are_changed_without_training(found: TrainedRanker) -> None:
    ranker = found.ranker
    assert ranker.weights({}).tolist() == [1, 0, 0]
    assert ranker.weights({"buy": 2.0, "next": 0.5}).tolist() == [0.5, 0, 2]
    with pytest.raises(SettingsError, match="'like', but this ranker knows next, click, buy"):
        ranker.weights({"like": 1.0})
    for nothing in ({"buy": 0.0}, {"buy": float("nan")}):
        with pytest.raises(SettingsError, match="weighs nothing"):
            ranker.weights(nothing)


def test_chances_are_probabilities_and_next_falls_back_to_the_fusion(found: TrainedRanker) -> None:
    logits = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    raised, scores = np.zeros(8, bool), np.arange(8, dtype=np.float32)
    ours = found.ranker.chances(logits, raised, scores)
    assert ((ours >= 0) & (ours <= 1)).all()
    assert ours[:, 0].sum() == pytest.approx(found.ranker.plan.found, abs=1e-5)
    assert ours[:, 0].argmax() == logits[:, 0].argmax()
    theirs = Ranker(msgspec.structs.replace(found.ranker.plan, orders=False), found.ranker.arrays).chances(logits, raised, scores)
    assert theirs[:, 0].argmax() == 7


def test_those_that_are_not_ordered_stay_behind_in_their_order() -> None:
    scores = np.array([5, 1, 4, 2, 3], np.float32)
    final = behind(scores, np.array([0, 2]), np.array([0.1, 0.7], np.float32))
    assert np.argsort(-final).tolist() == [2, 0, 4, 3, 1]
    assert np.isfinite(behind(scores, np.arange(5), scores)).all()
    assert behind(scores[:0], np.zeros(0, np.int64), scores[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ["isotonic", "platt", "auto"])
def test_calibrated_chances_say_what_happens(kind: str) -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal(20_000).astype(np.float32)
    truth = 1 / (1 + np.exp(3 - 0.5 * logits))
    label = (random.random(len(logits)) < truth).astype(np.float32)
    one = fit_calibration(logits[:10_000], label[:10_000], kind)
    told = reliability(one.apply(logits[10_000:]), label[10_000:])
    assert 0.9 < told.ratio < 1.1
    assert told.loss < told.base
    assert np.abs(np.array(told.said) - told.happened).max() < 0.03
    grown = one.apply(np.sort(logits))
    assert (np.diff(grown.astype(np.float64)) >= 0).all()
    again = msgspec.json.decode(msgspec.json.encode(one), type=Calibration)
    assert np.array_equal(again.apply(logits), one.apply(logits))


def test_a_head_that_says_nothing_gives_the_mean() -> None:
    label = np.array([1.0, 0.0] * 500, np.float32)
    turned = fit_calibration(
        np.where(label > 0, -1.0, 1.0).astype(np.float32) + np.linspace(0, 1, 1_000).astype(np.float32), label, "platt"
    )
    assert turned.slope > 0
    assert turned.apply(np.zeros(3, np.float32)) == pytest.approx([0.5] * 3, abs=0.01)


def test_figures_of_chances() -> None:
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.75)
    assert auc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    assert np.isnan(auc(np.ones(3), np.ones(3)))
    assert log_loss(np.array([0.8, 0.3]), np.array([1, 0])) == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    told = reliability(np.array([0.2] * 5 + [0.6] * 5), np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0]), bins=2)
    assert told.said == pytest.approx([0.2, 0.6])
    assert told.happened == pytest.approx([0.2, 0.6])
    assert told.ratio == pytest.approx(1.0)


def test_vectors_of_another_fit_are_turned_into_the_first_ones_frame() -> None:
    random = np.random.default_rng(0)
    early = random.standard_normal((200, DIM)).astype(np.float32)
    early /= np.linalg.norm(early, axis=1, keepdims=True)
    turn = np.linalg.qr(random.standard_normal((DIM, DIM)))[0].astype(np.float32)
    later = early @ turn
    assert agreement(early, later, np.eye(DIM, dtype=np.float32)) < 0.6
    found = rotation(early, later)
    assert agreement(early, later, found) == pytest.approx(1.0, abs=1e-4)
    of_user, of_item = directions(early, early, 3)
    np.testing.assert_allclose(early @ of_item, later @ (found @ of_item), atol=1e-3)
    assert of_user.shape == (DIM, 3)
    assert directions(early, early, 0)[0].shape == (DIM, 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ranker.mode=maybe", r"ranker\.mode is 'maybe'; expected auto, always, chances, off"),
        ("ranker.body=cnn", r"ranker\.body is 'cnn'"),
        ("ranker.sharing=all", r"ranker\.sharing is 'all'"),
        ("ranker.calibration=guess", r"ranker\.calibration is 'guess'"),
        ("ranker.heads=next", "which every ranker has"),
        ("ranker.heads=rating>=many", "is no label"),
        ("ranker.hidden=[]", r"ranker\.hidden is \[\]"),
        ("ranker.weights=buy=0", "weighs nothing"),
    ],
)
def test_mistakes_in_the_settings_are_explained(line: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        check_ranker(load_settings(None, [line], {}))


def test_weights_of_unknown_heads_are_refused_before_training() -> None:
    with pytest.raises(SettingsError, match=r"'like', which is none of ranker\.heads: click"):
        check_ranker(load_settings(None, ["ranker.heads=click", "ranker.weights=like=1"], {}))


def test_the_input_comes_back_from_its_folder(found: TrainedRanker, tmp_path: Path) -> None:
    found.export(tmp_path)
    again, rows = RankerInput.load(tmp_path), world(1.0)
    user, items = rows.users[0], np.eye(DIM, dtype=np.float32)
    np.testing.assert_array_equal(again.dense(rows.values[:DIM], user, items), found.input.dense(rows.values[:DIM], user, items))
    assert len(again.names) == again.dense(rows.values[:DIM], user, items).shape[1]
    assert (tmp_path / "report.json").is_file()


def test_what_a_whole_list_shares_is_not_read() -> None:
    told = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    begin = np.array([0, 4, 4, 9])
    found = relative(told, begin)
    assert found[:4].mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-6)
    shifted = told.copy()
    shifted[4:] += [5.0, -2.0, 100.0]
    np.testing.assert_allclose(relative(shifted, begin), found, atol=1e-4)
    assert relative(told[:0], np.zeros(1, np.int64)).shape == (0, 3)


def test_an_item_without_events_keeps_the_place_that_the_fusion_gives_it(found: TrainedRanker) -> None:
    random = np.random.default_rng(0)
    logits, fusion = random.standard_normal((6, 3)).astype(np.float32), random.standard_normal(6).astype(np.float32)
    new, begin = np.array([False, True, False, False, True, True]), np.array([0, 4, 6])
    scale = found.ranker.arrays["fusion_scale"][0]
    own = logits[:, 0] - scale * fusion
    settled = found.ranker.settled(logits, fusion, new, begin)
    np.testing.assert_allclose(settled[~new], logits[~new, 0], rtol=1e-5)
    assert settled[1] == pytest.approx(scale * fusion[1] + own[[0, 2, 3]].mean(), abs=1e-5)
    np.testing.assert_allclose(settled[4:], scale * fusion[4:], atol=1e-5)


def test_the_place_of_a_shown_item_is_learned_apart() -> None:
    rows = world(0.0, questions=240)
    places = np.tile(np.arange(DEPTH), 240)
    click = (np.random.default_rng(3).random(len(places)) < 0.9 ** (3 * places) * 0.8).astype(np.float32)
    shown = replace(rows, positions=places, labels=np.stack([click, click, click], axis=1))
    one, other = learned(shown, "ranker.epochs=2"), learned(replace(shown, positions=np.full(len(places), -1)), "ranker.epochs=2")
    assert isinstance(one, TrainedRanker)
    assert isinstance(other, TrainedRanker)
    assert "positions" not in one.ranker.arrays, "it is no part of what answers"
    assert any(not np.array_equal(one.ranker.arrays[name], other.ranker.arrays[name]) for name in one.ranker.arrays)
    network = RankerNetwork(Shape(dense=2, fields=0, buckets=1, embedding=1, tasks=2))
    with torch.no_grad():
        network.positions[3] = 1.5
    assert network.of_position(torch.tensor([3, -1, 0, 10_000])).tolist() == [[1.5, 1.5], [0, 0], [0, 0], [0, 0]]
