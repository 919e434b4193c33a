"""Eight bits: close to the float graph, better with smoothing where channels differ, and a sentence where it can't be done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tastemaker.compression.calibration import activation_scale
from tastemaker.compression.quantize import channel_codes, quantize
from tastemaker.compression.sensitive import keep_sensitive
from tastemaker.compression.step import NotApplicable
from tastemaker.compression.text import answers_of, cosine, most_alike
from toy_bundle import graph

SIZE = 96
Feeds = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four products in a row; one has a channel of outliers, as language models have."""
    random = np.random.default_rng(0)
    constants = {f"w{place}": (random.normal(size=(SIZE, SIZE)) / SIZE**0.5).astype(np.float32) for place in range(4)}
    constants["large"] = np.where(np.arange(SIZE) == 3, 60, 1).astype(np.float32)
    constants["small"] = (1 / constants["large"]).astype(np.float32)
    constants["w1"] *= constants["small"][:, None]
    text = f"""agraph (float[n,{SIZE}] x) => (float[n,{SIZE}] y) {{
        a = MatMul (x, w0)
        outlier = Mul (a, large)
        b = MatMul (outlier, w1)
        c = Tanh (b)
        d = MatMul (c, w2)
        e = Tanh (d)
        y = MatMul (e, w3)
    }}"""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(graph(text, constants), path)
    return path


def feeds(count: int, seed: int = 0) -> Feeds:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(size=(16, SIZE)).astype(np.float32)} for _ in range(count)]


def test_int8_is_close_and_smaller_and_smoothing_helps(products: Path, tmp_path: Path) -> None:
    new = feeds(4, 9)
    wanted, alike = answers_of(products, new), {}
    for alpha in (0.0, 0.8):
        target = tmp_path / f"{alpha}.onnx"
        assert quantize(products, target, feeds(8), alpha=alpha)["int8 products"] == 4
        assert target.stat().st_size < products.stat().st_size / 3
        alike[alpha] = cosine(wanted, answers_of(target, new))
        assert cosine(answers_of(target, new), answers_of(target, new, exact=True)) > 0.999, "undone in float: the same numbers"
    assert alike[0.8] > 0.995
    assert 1 - alike[0.8] < (1 - alike[0.0]) / 2
    assert float(most_alike(products, tmp_path / "best.onnx", feeds(8))["cosine"]) > alike[0.0]


def test_sensitive_products_stay_in_float(products: Path, tmp_path: Path) -> None:
    facts = keep_sensitive(products, tmp_path / "kept.onnx", feeds(8))
    assert facts["int8 products"] == 3
    assert float(facts["cosine"]) > 0.99


def test_a_corrupted_or_foreign_calibration_is_told(products: Path, tmp_path: Path) -> None:
    spoiled = feeds(2)
    spoiled[1]["x"][3, 3] = np.nan
    for given, words in (
        (spoiled, "damaged"),
        ([{"x": np.zeros((2, 5), np.float32)}], "don't fit"),
        ([{"ids": np.zeros((2, SIZE), np.float32)}], "don't fit"),
        ([], "no inputs"),
    ):
        with pytest.raises(NotApplicable, match=words):
            quantize(products, tmp_path / "never.onnx", given)
    assert not (tmp_path / "never.onnx").exists()


def test_what_is_int8_already_or_holds_nothing_is_told(products: Path, tmp_path: Path) -> None:
    quantize(products, tmp_path / "once.onnx", feeds(2))
    with pytest.raises(NotApplicable, match="already"):
        quantize(tmp_path / "once.onnx", tmp_path / "twice.onnx", feeds(2))
    onnx.save(graph("agraph (float[n,4] x) => (float[n,4] y) { y = Tanh (x) }", {}), tmp_path / "none.onnx")
    with pytest.raises(NotApplicable, match="nothing can become int8"):
        quantize(tmp_path / "none.onnx", tmp_path / "never.onnx", [{"x": np.zeros((2, 4), np.float32)}])


def test_zero_is_met_exactly() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)):
        scale, zero = activation_scale(low, high)
        assert 0 <= zero <= 255
        assert scale > 0
        assert (0 - zero) * scale <= min(low, 0) + scale
        assert (255 - zero) * scale >= max(high, 0) - scale


@pytest.mark.parametrize("compensated", [False, True])
def test_each_column_has_a_scale_of_its_own(compensated: bool) -> None:
    """A small column beside a large one is not rounded away."""
    random = np.random.default_rng(0)
    table = (random.normal(size=(64, 8)) * 10.0 ** np.arange(-4, 4)).astype(np.float32)
    rows = random.normal(size=(400, 64)).astype(np.float32)
    codes, scales = channel_codes(table, rows.T @ rows if compensated else None)
    assert codes.dtype == np.int8
    lost = np.abs(codes * scales - table).max(axis=0) / np.abs(table).max(axis=0)
    assert (lost < 3 / 127).all()
    assert np.allclose(scales, np.abs(table).max(axis=0) / 127)
