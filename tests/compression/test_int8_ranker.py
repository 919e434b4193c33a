"""A ranker whose products are computed in eight bits: right to the last bit, the same whoever stands beside a row, and in float where that is not possible or not quicker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import toy_bundle
from restless_network import write_network
from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.write import write_bundle
from tastemaker.cli.compress import Served
from tastemaker.compression import ranker, ranker_graph, steps, students
from tastemaker.compression.ranker import Lists
from tastemaker.compression.step import Facts, NotApplicable, Tools
from tastemaker.features.ranker_input import RankerInput
from tastemaker.inference import ranker as served
from tastemaker.inference.cpu import flags
from tastemaker.inference.ranker import open_ranker
from tastemaker.models.ranker import PRODUCTS, Columns, Ranker
from tastemaker.models.ranker_network import RankerNetwork
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import CompressSettings
from toy_ranker import write_ranker

WIDTH = 3
needs_integers = pytest.mark.skipif(not flags() & served.INTEGERS, reason="this CPU has no instructions for products of bytes")


def wide(place: Path, hidden: tuple[int, ...] = (64, 32)) -> None:
    """A ranker of one wide network that reads three directions of the vectors."""
    write_ranker(place)
    folder = place / "ranker"
    old, given = Ranker.load(folder), RankerInput.load(folder)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((toy_bundle.WIDTH,) * 2))[0].astype(np.float32)[:, :WIDTH]
    RankerInput(given.preparation, given.text, type(given.categories)((), 7), turn, turn).save(folder)
    own = len(given.names)
    shape = msgspec.structs.replace(old.plan.shape, dense=own + 3 * WIDTH, fields=0, hidden=hidden)
    write_network(folder, msgspec.structs.replace(old.plan, shape=shape), shape)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    space = tmp_path_factory.mktemp("space")
    toy_bundle.write_workspace(space, users=120, besides=wide)
    return Registry(space / "bundles").live()


@pytest.fixture(scope="module")
def lists(bundle: Path) -> tuple[Lists, Lists]:
    return ranker.lists_of(bundle, tools(bundle))


@pytest.fixture(scope="module")
def made(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the step makes of it: of so few candidates eight bits need not be quicker here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker, "QUICKER", np.inf)
        facts, space = Facts(), tmp_path_factory.mktemp("made")
        version = write_bundle(
            space,
            lambda place: facts.update(steps.INT8_RANKER.apply(bundle, place, tools(space))),
            data=open_bundle(bundle).manifest.data,
        )
    assert facts["products"] == "in eight bits"
    return space / version


def tools(folder: Path, steps: int = 30) -> Tools:
    return Tools(Served, None, None, CompressSettings(heal_steps=steps), folder, ranker=open_ranker)  # type: ignore[arg-type]


def taken(bundle: Path, folder: Path) -> tuple[Facts, Path]:
    place = folder / "place"
    place.mkdir()
    return steps.INT8_RANKER.apply(bundle, place, tools(folder)), place


def told(one: Ranker, lists: Lists) -> FloatArray:
    return one.logits(lists.columns, lists.codes, lists.plain)


def in_integers(before: Ranker, after: Ranker, learn: Lists, asked: Lists) -> NDArray[np.float64]:
    """The formula once more, each sum of products of bytes a sum of whole numbers; what is no expert's weight is `after`'s."""
    arrays, mine, table = after.arrays, ranker_graph.mine_of(learn.columns), asked.dense.astype(np.float64)
    others, h = np.delete(np.arange(table.shape[1]), mine), table
    for place, layer in enumerate(ranker_graph.layers_of(before, learn.columns)):
        rows = others if place == 0 else np.arange(h.shape[1])
        whole = (
            np.clip(np.rint(h[:, rows].astype(np.float32) * layer.rows[rows] / np.float32(layer.scale)) + layer.zero, 0, 255)
            - layer.zero
        )
        sums = whole.astype(np.int64) @ layer.codes[rows].astype(np.int64)
        h = sums * (layer.scale * layer.steps.astype(np.float64)) + arrays[f"expert_bias_{place}"].reshape(-1)
        if place == 0:
            h += table[:, mine] @ (layer.codes[mine] * layer.steps * layer.rows[mine, None])
    found = table @ arrays["wide"] + arrays["bias"] + np.maximum(h, 0) @ arrays["tower"].T
    found[:, 0] += arrays["fusion_scale"][0] * asked.plain
    return found


@needs_integers
def test_sums_of_bytes_are_what_whole_numbers_give(bundle: Path, made: Path, lists: tuple[Lists, Lists]) -> None:
    after = open_ranker(made / "ranker")
    assert after.products is not None
    wanted, found = in_integers(Ranker.load(bundle / "ranker"), after, *lists), told(after, lists[1])
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    assert found.std(axis=0).min() > 0.3
    size = [sum(path.stat().st_size for path in (place / "ranker").iterdir()) for place in (made, bundle)]
    assert size[0] < size[1]


@needs_integers
def test_a_row_has_the_same_bits_whatever_stands_beside_it(made: Path, lists: tuple[Lists, Lists]) -> None:
    after, some = open_ranker(made / "ranker"), lists[1]
    together = told(after, some)
    for place in (0, 7, len(some.begin) - 2):
        rows = slice(int(some.begin[place]), int(some.begin[place + 1]))
        alone = told(after, some.some(place, place + 1))
        assert np.array_equal(alone, together[rows])
        read = some.columns
        for row in (rows.start, rows.stop - 1):
            one = Columns(read.prepared[row : row + 1], read.mine[place : place + 1], read.theirs[row : row + 1], np.array([0, 1]))
            assert np.array_equal(after.logits(one, some.codes[row : row + 1], some.plain[row : row + 1])[0], together[row])
    turned = Columns(np.asfortranarray(some.columns.prepared), some.columns.mine, some.columns.theirs, some.begin)
    assert np.array_equal(after.logits(turned, some.codes, some.plain), together)
    empty = Columns(some.columns.prepared[:0], some.columns.mine[:1], some.columns.theirs[:0], np.array([0, 0]))
    assert after.logits(empty, some.codes[:0], some.plain[:0]).shape == (0, 2)


@needs_integers
def test_lists_without_candidates_are_passed_over(made: Path, lists: tuple[Lists, Lists]) -> None:
    after, some = open_ranker(made / "ranker"), lists[1]
    read, rows = some.columns, int(some.begin[1])
    gaps = Columns(read.prepared[:rows], read.mine[[3, 0, 4]], read.theirs[:rows], np.array([0, 0, rows, rows]))
    assert np.array_equal(after.logits(gaps, some.codes[:rows], some.plain[:rows]), told(after, some.some(0, 1)))


@needs_integers
def test_a_cpu_without_the_instructions_computes_in_float_with_the_same_weights(
    bundle: Path, made: Path, lists: tuple[Lists, Lists], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bytes = open_ranker(made / "ranker")
    monkeypatch.setattr(served, "flags", lambda: frozenset({"avx2"}))
    in_float = open_ranker(made / "ranker")
    assert in_float.products is None
    found, before = told(in_float, lists[1]), told(Ranker.load(bundle / "ranker"), lists[1])
    for one, other in ((found, before), (found, told(in_bytes, lists[1]))):
        assert not np.array_equal(one, other)
        assert np.sqrt(((one - other) ** 2).mean(axis=0) / before.var(axis=0)).max() < 0.03, (
            "rounding is 3 % of a head's spread at most"
        )


@needs_integers
def test_a_graph_that_answers_otherwise_or_not_at_all_is_not_used(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(name: str, spoil: Any) -> str:
        folder = tmp_path / name / "ranker"
        shutil.copytree(made / "ranker", folder)
        spoil(folder)
        assert open_ranker(folder).products is None
        return capsys.readouterr().out

    def other(folder: Path) -> None:  # a CPU whose sums of bytes overflow
        kept = dict(np.load(folder / "golden.npz"))
        np.savez(folder / "golden.npz", **kept | {"vector": kept["vector"] * 1.01})

    assert "are wrong here" in opened("other", other)
    assert "can't be run" in opened("damaged", lambda folder: (folder / PRODUCTS).write_bytes(b"no graph"))
    assert "can't be run" in opened("short", lambda folder: (folder / "golden.npz").unlink())
    codes = np.load(made / "ranker" / "weights.expert_1.npy")
    assert "are wrong here" in opened("codes", lambda folder: np.save(folder / "weights.expert_1.npy", codes // 2)), (
        "it reads this file"
    )
    assert opened("none", lambda folder: (folder / PRODUCTS).unlink()) == ""


@needs_integers
def test_the_service_and_the_judge_answer_by_the_same_graph(made: Path) -> None:
    live = Served(made)._live
    assert live.ranker is not None
    assert live.ranker.list.ranker.products is not None
    for mode in ("always", "chances"):
        settings = msgspec.structs.replace(live.settings.ranker, mode=mode)
        one = live.ranker.list
        wanted = type(one).wanted(one.ranker, one.given, one.fusion, one.vectors, one.texts, one.codes, settings)
        assert wanted.ranker.products is one.ranker.products
        assert wanted.ranker.plan.orders == (mode == "always")


def test_what_is_not_quicker_stays_in_float(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker, "QUICKER", 0.0)
    facts, place = taken(bundle, tmp_path)
    assert str(facts["products"]).startswith("in float: ")
    assert not (place / "ranker" / PRODUCTS).exists()
    assert not (place / "ranker" / "golden.npz").exists()
    plain = ranker.bytes_of("expert_0", Ranker.load(bundle / "ranker").arrays["expert_0"])
    assert plain is not None
    assert np.array_equal(np.load(place / "ranker" / "weights.expert_0.npy"), plain[0])
    assert not (place / "ranker" / "scale.expert_0.rows.npy").exists()


@pytest.mark.parametrize("change", [{"body": "dcn"}, {"fields": 1}, {"sharing": "mmoe"}])
def test_other_networks_say_so(bundle: Path, tmp_path: Path, lists: tuple[Lists, Lists], change: dict[str, Any]) -> None:
    one = Ranker.load(bundle / "ranker")
    other = Ranker(msgspec.structs.replace(one.plan, shape=msgspec.structs.replace(one.plan.shape, **change)), one.arrays)
    with pytest.raises(NotApplicable, match=r"only one network without crosses and names .* ranker.sharing = bottom"):
        ranker.in_eight_bits(tmp_path, other, lists, tools(tmp_path))


@needs_integers
def test_chances_that_eight_bits_would_move_are_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranker, "QUICKER", np.inf)
    right = ranker_graph.activation_scale
    monkeypatch.setattr(ranker_graph, "activation_scale", lambda low, high: right(low / 8, high / 8))  # most is cut off
    facts, place = taken(bundle, tmp_path)
    assert "in float: " in str(facts["products"])
    assert "would" in str(facts["products"])
    assert not (place / "ranker" / PRODUCTS).exists()


@needs_integers
def test_another_network_takes_the_graph_of_the_old_one_away(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "kept", lambda *given: {})  # it has learned nothing here
    (tmp_path / "place").mkdir()
    students.ranker(made, tmp_path / "place", tools(tmp_path, 0))
    left = {path.name for path in (tmp_path / "place" / "ranker").iterdir()}
    assert not left & {PRODUCTS, "golden.npz", "scale.expert_0.rows.npy", "scale.expert_1.npy"}
    assert {"of_item.npy", "preparation.json", "ranker.json"} <= left
    assert open_ranker(tmp_path / "place" / "ranker").plan.shape.hidden == (32, 16)


@needs_integers
@pytest.mark.parametrize(("width", "hidden"), [(0, (16, 8)), (3, (16,)), (3, (16, 8, 4))])
def test_without_vectors_and_of_any_depth(width: int, hidden: tuple[int, ...], bundle: Path, tmp_path: Path) -> None:
    random, old = np.random.default_rng(0), Ranker.load(bundle / "ranker")
    shape = msgspec.structs.replace(old.plan.shape, dense=9 + 3 * width, hidden=hidden)
    torch.manual_seed(0)
    network = RankerNetwork(shape)
    torch.nn.init.normal_(network.tower, 0, 0.3)
    arrays = {name: value.detach().numpy() for name, value in network.state_dict().items() if name != "positions"}
    before = Ranker(msgspec.structs.replace(old.plan, shape=shape), arrays)
    parts = [random.standard_normal(size).astype(np.float32) for size in ((300, 9), (3, width), (300, width))]
    some = Lists(Columns(*parts, np.array([0, 100, 101, 300])), np.zeros((300, 0), np.int64), np.zeros(300, np.float32))
    before.save(tmp_path)
    layers = ranker_graph.layers_of(before, some.columns)
    ranker_graph.write(tmp_path, before, layers, ranker_graph.mine_of(some.columns))
    first = some.some(0, 1).columns
    ranker.write_golden(tmp_path, {"prepared": first.prepared, "theirs": first.theirs, "mine": first.mine})
    after = open_ranker(tmp_path)
    assert after.products is not None
    np.testing.assert_allclose(told(after, some), in_integers(before, after, some, some), atol=3e-5)
