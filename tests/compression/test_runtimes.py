"""The runtime of a graph: right before fast, remembered outside of the bundle, and never a crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tastemaker.compression.quantize import quantize
from tastemaker.compression.text import write_golden
from tastemaker.inference import runtimes
from tastemaker.schema.errors import BundleError
from toy_bundle import graph

SIZE = 80


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An int8 graph with its golden inputs, and a cache of its own."""
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "SECONDS", 0.05)
    random = np.random.default_rng(0)
    text = f"agraph (float[n,{SIZE}] x) => (float[n,{SIZE}] y) {{ y = MatMul (x, w) }}"
    (tmp_path / "part").mkdir()
    onnx.save(graph(text, {"w": random.normal(size=(SIZE, SIZE)).astype(np.float32)}), tmp_path / "float.onnx")
    feed = {"x": random.normal(size=(8, SIZE)).astype(np.float32)}
    quantize(tmp_path / "float.onnx", tmp_path / "part" / "model.onnx", [feed])
    write_golden(tmp_path / "part", feed)
    return tmp_path / "part"


def golden(bundle: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.load(bundle / "golden.npz") as table:
        return {"x": table["x"]}, table["vector"]


def chosen(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in (tmp_path / "cache").rglob("*.json")]


class Wrong:
    """Saturating integers: a CPU whose eight-bit instructions overflow."""

    def __init__(self, path: Path, threads: int) -> None:
        self._right = runtimes.by_onnxruntime(path, threads)

    def run(self, names: None, inputs: Mapping[str, Any]) -> list[Any]:
        return [np.clip(value, -0.5, 0.1) for value in self._right.run(None, inputs)]


def missing(path: Path, threads: int) -> Any:
    raise RuntimeError("no kernel for MatMulInteger on this CPU")


def test_the_choice_is_right_and_is_remembered_outside(bundle: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    runs = runtimes.open_graph(bundle / "model.onnx")
    feed, wanted = golden(bundle)
    assert np.abs(runs.run(None, feed)[0] - wanted).max() < 0.15
    assert len(chosen(tmp_path)) == 1
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == before


def test_wrong_and_missing_runtimes_are_told_and_the_next_best_answers(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openers = {"onnxruntime": Wrong, "openvino": missing, "onnxruntime-float": runtimes.openers()["onnxruntime-float"]}
    monkeypatch.setattr(runtimes, "openers", lambda: openers)
    runs = runtimes.open_graph(bundle / "model.onnx")
    feed, wanted = golden(bundle)
    assert np.abs(runs.run(None, feed)[0] - wanted).max() < 1e-3
    told = capsys.readouterr().out
    assert "its answers differ" in told
    assert "no kernel" in told
    assert "onnxruntime-float" in chosen(tmp_path)[0]


def test_where_none_is_right_the_bundle_is_refused_with_a_sentence(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "openers", lambda: {"onnxruntime": Wrong, "openvino": missing})
    with pytest.raises(BundleError, match="Use another bundle"):
        runtimes.open_graph(bundle / "model.onnx")


def test_a_remembered_runtime_that_is_gone_or_broken_is_chosen_anew(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes.open_graph(bundle / "model.onnx")
    path = next((tmp_path / "cache").rglob("*.json"))
    for spoiled in (b"{", b'{"runtime": "gone"}', b"[]", b'{"seconds": 1}'):
        path.write_bytes(spoiled)
        assert runtimes.open_graph(bundle / "model.onnx").run(None, golden(bundle)[0])
    path.write_bytes(b'{"runtime": "openvino"}')
    real = runtimes.openers()
    monkeypatch.setattr(runtimes, "openers", lambda: {**real, "openvino": missing})
    assert runtimes.open_graph(bundle / "model.onnx").run(None, golden(bundle)[0])
    assert "another runtime is chosen" in capsys.readouterr().out


def test_without_a_place_to_remember_it_answers_all_the_same(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "file"))
    assert runtimes.open_graph(bundle / "model.onnx").run(None, golden(bundle)[0])


def test_a_graph_without_golden_inputs_runs_as_it_is(bundle: Path, tmp_path: Path) -> None:
    (bundle / "golden.npz").unlink()
    runtimes.open_graph(bundle / "model.onnx")
    assert not chosen(tmp_path)
