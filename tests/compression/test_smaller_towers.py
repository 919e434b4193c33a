"""Smaller user towers and rankers: taught by the larger ones on real histories and candidates, and refused where chances are no longer what they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import toy_bundle
from restless_network import write_network
from tastemaker.bundle.registry import Registry
from tastemaker.cli import compress
from tastemaker.cli.compress import Served
from tastemaker.compression import ranker, steps, students, user
from tastemaker.compression.ranker import Lists
from tastemaker.compression.step import NotApplicable, Step, Tools
from tastemaker.compression.text import answers_of, cosine
from tastemaker.features.ranker_input import RankerInput
from tastemaker.models.calibration import Calibration
from tastemaker.models.ranker import Ranker
from tastemaker.models.user_sequence import NarrowTower
from tastemaker.schema.protocols import Asker
from tastemaker.schema.settings import CompressSettings
from toy_ranker import write_ranker

LABEL = "view"


def rich(place: Path) -> None:
    """A ranker of three experts whose answers hang on all that it reads."""
    write_ranker(place)
    old = Ranker.load(place / "ranker")
    shape = msgspec.structs.replace(old.plan.shape, body="dcn", sharing="mmoe", experts=3, hidden=(16, 8))
    plan = msgspec.structs.replace(old.plan, shape=shape, calibrations=(Calibration(slope=0.8, offset=-0.5),))
    write_network(place / "ranker", plan, shape)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a ranker that reads what `item_events` tells."""
    space = tmp_path_factory.mktemp("space")
    toy_bundle.write_workspace(space, users=120, besides=rich)
    return Registry(space / "bundles").live()


def tools(folder: Path, steps: int = 30) -> Tools:
    return Tools(Served, None, None, CompressSettings(heal_steps=steps), folder)  # type: ignore[arg-type]


def taken(step: Step, bundle: Path, folder: Path, heal: int = 30) -> tuple[dict[str, Any], Path]:
    place = folder / "place"
    place.mkdir()
    return step.apply(bundle, place, tools(folder, heal)), place


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_lists_are_what_a_request_reads_features_told(bundle: Path, tmp_path: Path) -> None:
    learn, check = ranker.lists_of(bundle, tools(tmp_path))
    columns = Ranker.load(bundle / "ranker").plan.shape.dense
    assert learn.dense.shape == (len(learn.plain), columns)
    assert (len(learn.begin) - 1, len(check.begin) - 1) == (90, 30), "of three quarters of the users is learned"
    assert learn.begin[-1] == len(learn.plain) == len(learn.codes)
    assert check.begin[0] == 0
    told = RankerInput.load(bundle / "ranker").names.index("item_events")
    assert np.ptp(learn.dense[:, told]) > 0, "a declared feature is told, and differs from item to item"
    again = Lists.joined([learn, check])
    assert again.begin.tolist() == [*learn.begin.tolist(), *(check.begin[1:] + len(learn.plain)).tolist()]


def test_features_are_told_of_each_question_by_who_asks_it_and_when(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "AT_ONCE", 16)
    served, random = Served(bundle), np.random.default_rng(0)
    histories = [random.permutation(30)[:4].astype(np.int32) for _ in range(40)]  # more than are answered at once
    items = [np.setdiff1d(np.arange(30, dtype=np.int32), history)[:8] for history in histories]
    askers = [Asker(f"u{row % 120}", 1.6e9 + 86_400 * row) for row in range(40)]
    told, alone = served.chances(histories, items, askers), served.chances(histories, items)
    assert any(not np.allclose(one, other) for one, other in zip(told, alone, strict=True))
    assert [state.asker for state in served._states(histories, askers, slice(16, 32))] == askers[16:32]
    lists = served.lists(histories, 5, askers)
    for row in (0, 7, 39):
        itself = slice(row, row + 1)
        assert np.allclose(told[row], served.chances(histories[itself], items[itself], askers[itself])[0], atol=1e-5)
        assert lists[row].tolist() == served.lists(histories[itself], 5, askers[itself])[0].tolist()


def test_a_rankers_weights_as_bytes(bundle: Path, tmp_path: Path) -> None:
    facts, place = taken(steps.INT8_RANKER, bundle, tmp_path)
    assert size(place / "ranker") < size(bundle / "ranker")
    assert facts["tables in bytes"] == 5, "cross layers, both layers of the experts, gates and what stands beside them"
    assert facts[f"correlation of {LABEL}"] > 0.999
    before, after = Ranker.load(bundle / "ranker"), Ranker.load(place / "ranker")
    _, check = ranker.lists_of(bundle, tools(tmp_path))
    apart = np.abs(check.own(before) - check.own(after)).max()
    assert 0 < apart < 0.05
    assert after.plan == before.plan
    with pytest.raises(NotApplicable, match="bytes already"):
        ranker.int8(place, tmp_path / "again", tools(tmp_path))


def test_bytes_that_are_wrong_are_seen_in_the_chances(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ranker.bytes_of

    def wrong(name: str, array: Any) -> Any:
        found = right(name, array)
        return None if found is None else (found[0], 3 * found[1])

    monkeypatch.setattr(ranker, "bytes_of", wrong)
    with pytest.raises(NotApplicable, match="chance"):
        taken(steps.INT8_RANKER, bundle, tmp_path)


def test_a_smaller_ranker_keeps_the_chances(bundle: Path, tmp_path: Path) -> None:
    facts, place = taken(steps.SMALLER_RANKER, bundle, tmp_path)
    before, after = Ranker.load(bundle / "ranker"), Ranker.load(place / "ranker")
    assert after.plan.shape.hidden == (8, 4)
    assert after.plan.shape.all_experts == 1
    assert facts["weights"] < facts["weights before"] / 2
    assert after.plan.calibrations == before.plan.calibrations
    _, check = ranker.lists_of(bundle, tools(tmp_path))
    was, now = (float(one.plan.calibrations[0].apply(check.own(one)[:, 1]).mean()) for one in (before, after))
    assert now == pytest.approx(was, rel=0.02)
    assert facts["best ten kept"] > 0.8


def test_a_ranker_that_has_learned_nothing_is_not_taken(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match=f"chance.* of {LABEL} would"):
        taken(steps.SMALLER_RANKER, bundle, tmp_path, heal=0)


def test_chances_that_rise_and_fall_otherwise_are_refused_though_their_mean_is_kept(bundle: Path, tmp_path: Path) -> None:
    _, check = ranker.lists_of(bundle, tools(tmp_path))
    before = Ranker.load(bundle / "ranker")
    flat = Ranker(before.plan, {**before.arrays, "tower": before.arrays["tower"] * 0, "wide": before.arrays["wide"] * 0})
    flat.arrays["bias"] = flat.arrays["bias"].copy()
    flat.arrays["bias"][1] += students._shift(before, 1, check.own(before)[:, 1], check.own(flat)[:, 1])
    with pytest.raises(NotApplicable, match="keep a correlation of"):
        ranker.kept(before, flat, check)


def test_what_has_no_ranker_says_so(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle" / "ranker")
    for step in (steps.INT8_RANKER, steps.SMALLER_RANKER):
        with pytest.raises(NotApplicable, match="the bundle has no ranker"):
            step.apply(tmp_path / "bundle", tmp_path / "place", tools(tmp_path))


def test_a_narrow_tower_reads_nothing_behind_the_last_event_and_knows_nobody() -> None:
    torch.manual_seed(0)
    tower = NarrowTower(torch.linalg.qr(torch.randn(16, 16))[0][:8], 1, 2, 10, 12.0).eval()
    torch.nn.init.normal_(tower.out.bias)
    vectors, lengths = torch.randn(3, 6, 16), torch.tensor([6, 2, 0])
    with torch.inference_mode():
        found = tower(vectors, lengths)
        vectors[1, 2:] = 100.0
        again = tower(vectors, lengths)
    assert torch.allclose(found, again, atol=1e-5)
    assert found.norm(dim=-1).tolist() == pytest.approx([12.0, 12.0, 0.0], abs=1e-4)


def test_begun_histories_are_those_of_one_user_up_to_an_event(bundle: Path) -> None:
    vectors = np.load(bundle / "channels" / "items.npy")
    offsets, items = (np.load(bundle / "users" / f"{name}.npy") for name in ("offsets", "items"))
    known = {
        tuple(items[offsets[row] : end].tolist())
        for row in range(len(offsets) - 1)
        for end in range(offsets[row] + 1, offsets[row + 1] + 1)
    }
    feeds = user.begun_feeds(bundle, 10_000, 0)
    found = 0
    for feed in feeds:
        for row, length in zip(feed["vectors"], feed["lengths"].tolist(), strict=True):
            met = tuple(int(np.argmin(((vectors - one) ** 2).sum(1))) for one in row[:length])
            assert met in known
            found += 1
    assert found == len(items)
    lengths = np.concatenate([feed["lengths"] for feed in feeds])
    assert (np.diff(lengths) >= 0).all(), "of like length in a batch"


def test_a_smaller_tower_learns_the_vectors_of_the_larger_one(bundle: Path, tmp_path: Path) -> None:
    feeds, alike = user.history_feeds(bundle, 100, 7), list[float]()
    wanted = answers_of(bundle / "user_tower" / "model.onnx", feeds)
    for heal in (0, 15):
        tower = students.tower_of(bundle, tools(tmp_path, heal))
        assert tower.into.out_features == toy_bundle.WIDTH // 2
        with torch.inference_mode():
            told = [tower(*(torch.from_numpy(feed[name]) for name in ("vectors", "lengths"))).numpy() for feed in feeds]
        alike.append(cosine(wanted, np.concatenate(told)))
    assert alike[1] > 0.9
    assert alike[1] > alike[0] + 0.01, "what was not taught gives something else"


@pytest.mark.long
def test_a_smaller_tower_is_written_as_it_was_taught(bundle: Path, tmp_path: Path) -> None:
    facts, place = taken(steps.SMALLER_USER, bundle, tmp_path, heal=15)
    feeds = user.history_feeds(bundle, 100, 7)
    wanted, found = (answers_of(folder / "user_tower" / "model.onnx", feeds) for folder in (bundle, place))
    assert float(facts["cosine"]) == pytest.approx(cosine(wanted, found), abs=0.02)
    assert cosine(wanted, found) > 0.9
    with np.load(place / "user_tower" / "golden.npz") as table:
        assert len(table["lengths"]) == user.GOLDEN
