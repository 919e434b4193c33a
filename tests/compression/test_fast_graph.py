"""A BERT's graph in the form that runtimes compute fastest, and the rounding that costs its answers least."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from language_models import write_model

from tastemaker.compression import quantize as quantization
from tastemaker.compression.bert_graph import write_bert
from tastemaker.compression.calibration import Seen, eight_bits
from tastemaker.compression.distill import Lesson
from tastemaker.compression.quantize import channel_codes
from tastemaker.compression.rounding import compensated
from tastemaker.compression.step import NotApplicable, Tools
from tastemaker.compression.text import answers_of, cosine, in_fast_form, most_alike, text_feeds
from tastemaker.models.bert import Bert, Shape
from tastemaker.models.text import Whitening
from tastemaker.schema.settings import CompressSettings, TextSettings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.export import export_text


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_graph_says_what_the_model_says_though_each_layer_is_of_another_width(tmp_path: Path, pooling: str) -> None:
    torch.manual_seed(0)
    model = Bert(Shape(50, 64, 32, (2, 1, 3), (48, 16, 64), 16, pooling)).eval()
    with torch.no_grad():
        for part in model.parameters():
            part += 0.2 * torch.randn_like(part)
    write_bert(model, 12, tmp_path / "model.onnx")
    ids = torch.randint(0, 50, (5, 12))
    mask = (torch.arange(12) < torch.tensor([12, 1, 5, 7, 2])[:, None]).long()
    with torch.inference_mode():
        wanted = model(ids, mask).numpy()
    for length in (12, 7):  # a batch may be shorter than the longest text
        rows = mask.sum(1) <= length
        feed = {"input_ids": ids[rows, :length].numpy(), "attention_mask": mask[rows, :length].numpy()}
        assert np.abs(answers_of(tmp_path / "model.onnx", [feed]) - wanted[rows.numpy()]).max() < 1e-5
    constants = {one.name: tuple(one.dims) for one in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert constants["positions"] == (12, 32), "positions that no text reaches are left out"


@pytest.fixture
def small_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices as small as those of the models of the tests become int8, too."""
    monkeypatch.setattr(quantization, "LEAST_NUMBERS", 256)


@pytest.mark.usefixtures("small_too")
def test_eight_bits_of_it_run_as_products_of_integers_with_their_bias(encoder: Path, texts: list[str], tmp_path: Path) -> None:
    assert in_fast_form(encoder, tmp_path) == tmp_path / "model.onnx"
    feeds = text_feeds(encoder, texts, 64, 0)
    facts = most_alike(tmp_path / "model.onnx", tmp_path / "model.onnx", feeds)
    assert float(facts["cosine"]) > 0.995
    assert cosine(answers_of(encoder / "model.onnx", feeds), answers_of(tmp_path / "model.onnx", feeds)) > 0.995
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node)
    assert kinds["QGemm"] == facts["int8 products"] == 4 * 6
    assert kinds["Gelu"] == 4
    assert not kinds["Erf"]


@pytest.mark.usefixtures("small_too")
def test_a_decoder_becomes_int8_as_it_is_and_is_not_cut(tmp_path: Path) -> None:
    write_model(tmp_path / "decoder", "qwen3", layers=1)
    found = load_encoder(TextSettings(model=str(tmp_path / "decoder"), max_length=16), "fp32")
    export_text(found, Whitening(np.zeros(32, np.float32), np.eye(32, dtype=np.float32)), "{title}", tmp_path / "encoder")
    texts = [f"red thing w{number}" for number in range(24)]
    assert in_fast_form(tmp_path / "encoder", tmp_path) == tmp_path / "encoder" / "model.onnx"
    feeds = text_feeds(tmp_path / "encoder", texts, 24, 0)
    facts = most_alike(tmp_path / "encoder" / "model.onnx", tmp_path / "int8.onnx", feeds)
    assert int(facts["int8 products"]) == 7
    assert float(facts["cosine"]) > 0.98
    tools = Tools(None, None, None, CompressSettings(), tmp_path, 0)  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match="BERT family"):
        Lesson(tmp_path / "encoder", texts, tools).teacher()


def test_rounding_errors_make_up_for_each_other() -> None:
    random = np.random.default_rng(0)
    inputs = (random.normal(size=(500, 12)) @ random.normal(size=(12, 64)) + 0.1 * random.normal(size=(500, 64))).astype(np.float32)
    table = random.normal(size=(64, 40)).astype(np.float32)
    plain, scale = channel_codes(table)
    better, same_scale = channel_codes(table, inputs.T @ inputs)
    assert np.array_equal(scale, same_scale)

    def lost(codes: np.ndarray) -> float:
        return float(((inputs @ (codes * scale) - inputs @ table) ** 2).mean())

    assert lost(better) < 0.5 * lost(plain)
    assert np.array_equal(compensated(table, scale, np.eye(64, dtype=np.float32)), plain), "inputs that share nothing can't make up"


def test_rare_large_numbers_are_cut_off_and_channels_of_another_size_are_smoothed() -> None:
    random = np.random.default_rng(0)
    rows, weights = random.uniform(-1, 1, size=(800, 64)).astype(np.float32), random.normal(size=(64, 32)).astype(np.float32)
    even = eight_bits(Seen.of(rows), [weights], alpha=0)
    assert (even.low, even.high) == (rows.min(), rows.max())
    rows[5, 7], weights[7] = 1.6, 0.01 * weights[7]  # a large number that hardly counts
    assert eight_bits(Seen.of(rows), [weights], alpha=0).high < 1.6
    rows[:, 3] *= 50
    chosen = eight_bits(Seen.of(rows), [weights])
    assert chosen.factor is not None
    assert chosen.factor[3] > 10 * np.median(chosen.factor)
    assert chosen.high < 20


def test_healing_rounds_as_it_will_be_served(encoder: Path, texts: list[str], tmp_path: Path) -> None:
    lesson = Lesson(encoder, texts, Tools(None, None, None, CompressSettings(), tmp_path, 0))  # type: ignore[arg-type]
    model = lesson.teacher()
    lesson.heal(model, 4, 1e-4, 16)
    parts = model.products()
    assert len(parts) == 16
    assert all(part.span is not None and part.span[0] < part.span[1] for part in parts)
    assert any(part.factor is not None for part in parts)
    assert not any(part.rounding for part in parts), "what is written is float, which int8 is made of"
