"""Bad bundles of eight kinds are kept out, equal ones are let in, and the record tells of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import helper, numpy_helper

from tastemaker.bundle.record import RECORD, read_record
from tastemaker.bundle.registry import Registry
from tastemaker.cli.app import call
from tastemaker.models.fusion import Fusion
from toy_bundle import candidate, fusion, write_later_workspace

USERS = 400


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates") / "space"
    write_later_workspace(folder, USERS)
    return folder


def refused(space: Path, version: str, capsys: pytest.CaptureFixture[str]) -> str:
    live = Registry(space / "bundles").stages().live
    assert call(["release", str(space), version]) == 1
    assert Registry(space / "bundles").stages().live == live
    assert read_record(space / "bundles")[-1].action == "refused"
    return capsys.readouterr().err


def with_fusion(change: Callable[[Fusion], Fusion]) -> Callable[[Path], None]:
    return lambda folder: (folder / "fusion.json").write_bytes(msgspec.json.encode(change(fusion()).to_dict())) and None


def with_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        np.save(folder / name, change(np.load(folder / name)))

    return spoil


def shuffled(folder: Path) -> None:
    path = folder / "catalogue" / "items.parquet"
    rows = pl.read_parquet(path)
    rows.with_columns(rows.sample(fraction=1.0, shuffle=True, seed=1)["item_id"]).write_parquet(path)


def half_hidden(folder: Path) -> None:
    path = folder / "catalogue" / "items.parquet"
    pl.read_parquet(path).with_row_index().with_columns(hidden=pl.col("index") % 2 == 1).drop("index").write_parquet(path)


def a_little_worse(folder: Path) -> None:
    """Two things are taken for each other: a fault of one row in thirty."""
    path = folder / "catalogue" / "items.parquet"
    swap = {"guitar-3": "boots-3", "boots-3": "guitar-3"}
    pl.read_parquet(path).with_columns(pl.col("item_id").replace(swap)).write_parquet(path)


def slow(folder: Path) -> None:
    """The user tower goes through a large product that changes nothing."""
    path = folder / "user_tower" / "model.onnx"
    model = onnx.load(path)
    last = model.graph.node[-1]
    name, last.output[0] = last.output[0], "fast"
    width = 3_000
    ballast = np.zeros((24, width), np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(ballast, "ballast_wide"), numpy_helper.from_array(np.zeros((width, width), np.float32), "ballast_square"),
                                    numpy_helper.from_array(ballast.T.copy(), "ballast_narrow")])  # fmt: skip
    chain = ["ballast_wide", *["ballast_square"] * 16, "ballast_narrow"]
    for place, weight in enumerate(chain):
        source = f"a{place}" if place else "fast"
        model.graph.node.append(helper.make_node("MatMul", [source, weight], [f"a{place + 1}"]))
    model.graph.node.append(helper.make_node("Add", ["fast", f"a{len(chain)}"], [name]))
    onnx.save(model, path)


def heavy(folder: Path) -> None:
    """Its tokenizer knows many words that nobody uses: small on disk for what it takes in memory."""
    path = folder / "text_encoder" / "tokenizer.json"
    told = msgspec.json.decode(path.read_bytes())
    words = told["model"]["vocab"]
    words |= {f"w{number:x}": len(words) + number for number in range(250_000)}
    path.write_bytes(msgspec.json.encode(told))


def only_popular(old: Fusion) -> Fusion:
    linear = np.zeros_like(old.linear)
    linear[21] = 1.0
    return replace(old, linear=linear)


BAD: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "weights that are no numbers": (with_fusion(lambda old: replace(old, linear=old.linear * np.nan)), 0, "no numbers"),
    "constant scores": (with_fusion(lambda old: replace(old, linear=old.linear * 0)), 0, "NDCG@10 changes by -"),
    "popularity alone": (with_fusion(only_popular), 0, "most popular items"),
    "ids shuffled": (shuffled, 0, "NDCG@10 changes by -"),
    "behind the journal": (lambda folder: None, USERS, "events of the journal"),
    "slow": (slow, 0, "times as long"),
    "a little worse": (a_little_worse, 0, "NDCG@10 changes by -"),
    "half of the items": (half_hidden, 0, "different items were shown"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_bundle_is_kept_out(space: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, behind, words = BAD[kind]
    assert words in refused(space, candidate(space, spoil, behind), capsys)


def test_a_bundle_that_needs_much_memory_is_kept_out(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = candidate(space, heavy)
    assert call(["release", str(space), version, "--check", "--set", "release.larger=1000", "--set", "release.slower=5"]) == 1
    assert "MB of memory" in capsys.readouterr().err


def test_a_damaged_bundle_is_kept_out_even_by_force(space: Path) -> None:
    version = candidate(space)
    path = space / "bundles" / version / "channels" / "items.npy"
    path = path if path.is_file() else next((space / "bundles" / version / "channels").glob("*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert call(["release", str(space), version, "--force"]) == 1


def test_an_equal_bundle_goes_live_and_back(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Registry(space / "bundles").stages().live
    version = candidate(space)
    assert call(["release", str(space), version, "--check"]) == 0
    assert Registry(space / "bundles").stages().live == first
    assert call(["release", str(space), version, "--why", "a better day", "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert told["live"] == version
    assert any(f"on {USERS} events that neither has learned from" in words for words in told["findings"])
    assert call(["rollback", str(space)]) == 0
    *_, released, back = read_record(space / "bundles")
    assert (released.action, released.before, released.version, released.why) == ("release", first, version, "a better day")
    assert (back.action, back.before, back.version) == ("rollback", version, first)
    assert released.who
    assert released.time <= back.time


def test_without_later_events_the_last_known_ones_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_later_workspace(tmp_path / "space", 60)
    good, bad = candidate(tmp_path / "space"), candidate(tmp_path / "space", shuffled)
    assert "both have learned from" in refused(tmp_path / "space", bad, capsys)
    assert call(["release", str(tmp_path / "space"), good]) == 0


def test_force_is_recorded_with_what_spoke_against_it(tmp_path: Path) -> None:
    write_later_workspace(tmp_path / "space", 60)
    assert call(["release", str(tmp_path / "space"), candidate(tmp_path / "space", shuffled), "--force"]) == 0
    assert read_record(tmp_path / "space" / "bundles")[-1].against
    with (tmp_path / "space" / "bundles" / RECORD).open("ab") as file:
        file.write(b'{"action":"rel')
    assert len(read_record(tmp_path / "space" / "bundles")) == 1
