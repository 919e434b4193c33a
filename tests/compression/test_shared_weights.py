"""Weights in a file of their own: the same numbers, known to every check that knows the graph, and read by whoever may read the bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tastemaker.bundle.verify import payload_files
from tastemaker.compression import text
from tastemaker.compression.figures import parameters
from tastemaker.compression.quantize import quantize
from tastemaker.compression.shared import shared
from tastemaker.compression.step import NotApplicable
from tastemaker.compression.text import write_golden
from tastemaker.inference import runtimes
from toy_bundle import graph

ROWS, WIDTH = 4_000, 80


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A payload with a large graph and a small one."""
    random = np.random.default_rng(0)
    made = tmp_path / "bundle"
    for part, rows in (("text_encoder", ROWS), ("user_tower", 90)):
        words = f"agraph (int64[n, l] x) => (float[n, {WIDTH}] y) {{ g = Gather <axis = 0> (words, x)\n s = ReduceMean <axes = [1], keepdims = 0> (g)\n y = MatMul (s, w) }}"
        (made / part).mkdir(parents=True)
        weights: dict[str, Any] = {"words": random.normal(size=(rows, WIDTH)), "w": random.normal(size=(WIDTH, WIDTH))}
        onnx.save(graph(words, {name: value.astype(np.float32) for name, value in weights.items()}), made / part / "model.onnx")
        (made / part / "tokenizer.json").write_text("{}")
    return made


def feed(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).integers(0, 90, (6, 5))}


def test_the_numbers_stay_and_the_weights_lie_apart(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    before = (bundle / "text_encoder" / "model.onnx").read_bytes()
    facts = shared(bundle, place, None)  # type: ignore[arg-type]  # it needs no tools
    assert facts == {"graphs": 1, "bytes apart": 4 * WIDTH * (ROWS + WIDTH)}
    large, weights = (place / "text_encoder" / name for name in ("model.onnx", "model.onnx.weights"))
    assert large.stat().st_size < 5_000
    assert weights.stat().st_mode == large.stat().st_mode, "whoever may read the graph may read its weights"
    assert parameters(large) == parameters(bundle / "text_encoder" / "model.onnx")
    assert {str(weights.relative_to(place)), "user_tower/model.onnx"} < set(payload_files(place))
    for part in ("text_encoder", "user_tower"):
        one, other = (runtimes.by_onnxruntime(folder / part / "model.onnx") for folder in (bundle, place))
        assert (one.run(None, feed())[0] == other.run(None, feed())[0]).all()
    assert (bundle / "text_encoder" / "model.onnx").read_bytes() == before
    with pytest.raises(NotApplicable, match="no graph"):
        shared(place, tmp_path / "again", None)  # type: ignore[arg-type]


def test_another_files_weights_are_another_graph(bundle: Path, tmp_path: Path) -> None:
    """What was measured or made of other weights is not taken for this graph's, though the graph itself is the same byte by byte."""
    place, other = tmp_path / "place", tmp_path / "other"
    place.mkdir()
    shared(bundle, place, None)  # type: ignore[arg-type]
    shutil.copytree(place, other)
    one, two = place / "text_encoder", other / "text_encoder"
    assert runtimes._key(one / "model.onnx", 1) == runtimes._key(two / "model.onnx", 1)
    assert text._key(one, "int8", [], None) == text._key(two, "int8", [], None)
    weights = bytearray((two / "model.onnx.weights").read_bytes())
    weights[0] ^= 1
    (two / "model.onnx.weights").write_bytes(weights)
    assert runtimes._key(one / "model.onnx", 1) != runtimes._key(two / "model.onnx", 1)
    assert text._key(one, "int8", [], None) != text._key(two, "int8", [], None)


def test_such_a_graph_becomes_int8_and_is_tried_like_any_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtimes, "SECONDS", 0.05)
    place, last = tmp_path / "place", tmp_path / "last"
    place.mkdir()
    shared(bundle, place, None)  # type: ignore[arg-type]
    source, target = place / "text_encoder" / "model.onnx", tmp_path / "model.onnx"
    quantize(source, target, [feed(seed) for seed in range(4)])
    assert onnx.load(str(target), load_external_data=False).graph.initializer[0].data_location == onnx.TensorProto.DEFAULT
    (tmp_path / "small" / "text_encoder").mkdir(parents=True)
    shutil.move(target, tmp_path / "small" / "text_encoder" / "model.onnx")
    monkeypatch.setattr("tastemaker.compression.shared.LEAST_BYTES", 1_000)
    last.mkdir()
    shared(tmp_path / "small", last, None)  # type: ignore[arg-type]
    made = last / "text_encoder" / "model.onnx"
    write_golden(made.parent, feed())
    wanted = np.load(made.with_name("golden.npz"))["vector"]
    for name, opener in runtimes.openers().items():
        assert runtimes._alike(opener(made, 1).run(None, feed())[0], wanted) > runtimes.LEAST_ALIKE[name]
    assert runtimes.open_graph(made).run(None, feed())[0].shape == wanted.shape
