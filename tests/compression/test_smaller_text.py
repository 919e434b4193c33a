"""The text encoder: fewer word pieces that read the same, and smaller models that say the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from tastemaker.compression.distill import Lesson, export_encoder, pieces
from tastemaker.compression.figures import held_back
from tastemaker.compression.graph_weights import bert_of
from tastemaker.compression.prune import best_layers, cut, taylor
from tastemaker.compression.step import NotApplicable, Tools
from tastemaker.compression.text import answers_of, pruned_rows, quantize, text_feeds, vocabulary, with_rows
from tastemaker.inference.engine import TextEncoder
from tastemaker.models.bert import WordTable
from tastemaker.schema.settings import CompressSettings


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    def never(*_: object) -> None:
        raise AssertionError("not needed here")

    torch.set_num_threads(1)
    settings = CompressSettings(heal_steps=40, heal_batch=32, vocabulary=6)
    return Tools(never, never, never, settings, tmp_path_factory.mktemp("cache"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lesson(encoder: Path, texts: list[str], tools: Tools) -> Lesson:
    return Lesson(encoder, texts, tools)


def test_fewer_word_pieces_read_the_catalogue_the_same_and_spell_what_is_new(
    encoder: Path, texts: list[str], tmp_path: Path
) -> None:
    table = json.loads((encoder / "tokenizer.json").read_text())
    rows = pruned_rows(table, encoder / "tokenizer.json", texts, 6)
    (tmp_path / "tokenizer.json").write_text(json.dumps(with_rows(table, rows)))
    before, after = Tokenizer.from_file(str(encoder / "tokenizer.json")), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert len(rows) < before.get_vocab_size()
    for text in texts:
        assert rows[after.encode(text).ids].tolist() == before.encode(text).ids
    new = after.encode("unused hats")
    assert "unused" not in after.get_vocab()
    assert new.tokens == ["[CLS]", "u", "##n", "##u", "##s", "##e", "##d", "hat", "##s", "[SEP]"]


def test_texts_that_judge_are_read_as_new_ones_while_the_bundle_that_serves_knows_them_all(
    encoder: Path, texts: list[str], tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tastemaker.compression.quantize.LEAST_NUMBERS", 64)
    strange = [one for one in (f"red never {number}" for number in range(60)) if held_back([one])[0]]
    titles, bundle = [*texts, *strange], tmp_path / "bundle"
    for part in ("catalogue", "channels"):
        (bundle / part).mkdir(parents=True)
    shutil.copytree(encoder, bundle / "text_encoder")
    table = pl.DataFrame({"title": titles}).with_columns(
        pl.lit("").alias("text"), pl.lit([], pl.List(pl.String)).alias("categories")
    )
    table.write_parquet(bundle / "catalogue" / "items.parquet")
    np.save(bundle / "channels" / "text.npy", TextEncoder(encoder, 32).encode(titles))
    found = {}
    for judging, name in ((True, "judged"), (False, "served")):
        reads = replace(tools, judging=judging, reader=lambda path, width: TextEncoder(path, width), cache=tmp_path / "cache")
        (tmp_path / name / "channels").mkdir(parents=True)
        vocabulary(1)(bundle, tmp_path / name, reads)
        words = Tokenizer.from_file(str(tmp_path / name / "text_encoder" / "tokenizer.json")).get_vocab()
        vectors = np.load(tmp_path / name / "channels" / "text.npy")
        found[name] = "never" in words, float((vectors * np.load(bundle / "channels" / "text.npy")).sum(1)[len(texts) :].mean())
        assert "unused" not in words
    assert found["served"][0]
    assert found["served"][1] == pytest.approx(1.0, abs=1e-4)
    assert not found["judged"][0]
    assert found["judged"][1] < 0.999


def test_a_tokenizer_of_another_kind_is_told(encoder: Path) -> None:
    table = json.loads((encoder / "tokenizer.json").read_text())
    table["model"]["type"] = "BPE"
    with pytest.raises(NotApplicable, match="word pieces"):
        pruned_rows(table, encoder / "tokenizer.json", ["red"], 6)


def test_the_model_behind_a_graph_says_what_the_graph_says(encoder: Path, lesson: Lesson, texts: list[str]) -> None:
    model = lesson.teacher()
    assert len(model.layers) == 4
    assert model.shape.head_dim == 16
    feed = text_feeds(encoder, texts, 40, 1)[0]
    ids, mask = (torch.from_numpy(np.asarray(feed[name])) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        assert np.abs(model(ids, mask).numpy() - answers_of(encoder / "model.onnx", [feed])).max() < 1e-4
    with pytest.raises(NotApplicable, match="answers otherwise"):
        bert_of(encoder / "model.onnx", "cls", feed, answers_of(encoder / "model.onnx", [feed]))


def test_an_int8_graph_can_not_be_cut(encoder: Path, texts: list[str], tmp_path: Path) -> None:
    feeds = text_feeds(encoder, texts, 40, 0)
    quantize(encoder / "model.onnx", tmp_path / "model.onnx", feeds)
    with pytest.raises(NotApplicable, match="BERT family in float"):
        bert_of(tmp_path / "model.onnx", "mean", feeds[0], answers_of(tmp_path / "model.onnx", feeds[:1]))


def test_a_layer_that_does_nothing_goes_first(lesson: Lesson) -> None:
    model = lesson.teacher()
    for name in ("out", "down"):
        part = getattr(model.layers[2], name)
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    assert best_layers(model, 3, lesson.batches(32)) == [0, 1, 3]


def test_taylor_tells_how_far_the_answer_moves_without_a_part(lesson: Lesson) -> None:
    whole, batches = lesson.teacher(), lesson.batches(32)
    layer = whole.each_layer()[1]
    with torch.no_grad():
        layer.down.weight[:, 3] = 0.0
        layer.out.weight[:, : whole.shape.head_dim] = 0.0
    heads, neurons = taylor(whole, batches)
    assert heads[1][0] == 0
    assert neurons[1][3] == 0
    assert (neurons[1] > 0).sum() == len(neurons[1]) - 1
    moved = []
    with torch.no_grad():
        wanted = [whole(*batch) for batch in batches]
        for place in range(len(neurons[1])):
            column = layer.down.weight[:, place].clone()
            layer.down.weight[:, place] = 0.0
            moved.append(sum(float((whole(*batch) - answer).square().sum()) for batch, answer in zip(batches, wanted, strict=True)))
            layer.down.weight[:, place] = column
    assert spearmanr(moved, neurons[1]).statistic > 0.8
    assert all(part.grad is None for part in whole.parameters())


def test_cut_healed_and_written(encoder: Path, lesson: Lesson, tmp_path: Path, texts: list[str]) -> None:
    whole = lesson.teacher()
    small = cut(whole, 2, 0.5, 0.5, lesson.batches(32))
    assert small.shape.heads == (1, 1)
    assert max(small.shape.forward) <= 48
    assert sum(part.numel() for part in small.layers.parameters()) < sum(part.numel() for part in whole.layers.parameters()) / 2
    before = lesson.alike(small)
    lesson.heal(small, 25, 3e-3, 32)
    assert lesson.alike(small) > before + (1 - before) / 4
    export_encoder(small, 24, tmp_path / "model.onnx")
    feed = text_feeds(encoder, texts, 16, 2)[0]
    ids, mask = (torch.from_numpy(np.asarray(feed[name])) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        assert np.abs(small(ids, mask).numpy() - answers_of(tmp_path / "model.onnx", [feed])).max() < 1e-4
    assert not any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "model.onnx").graph.node)


def test_rounding_while_healing_makes_eight_bits_cheaper(encoder: Path, lesson: Lesson) -> None:
    small = cut(lesson.teacher(), 4, 1.0, 1.0, [])
    float_answers = small(*lesson.batches(8)[0]).detach()
    small.rounded(True)
    loss = 1 - (small(*lesson.batches(8)[0]) * float_answers).sum(1)
    assert small.layers[0].up.rounding
    assert loss.abs().max() > 0, "rounding changes the answers, so that it can be learned against"
    loss.sum().backward()
    assert float(small.layers[0].up.weight.grad.abs().sum()) > 0, "and lets gradients through"


def test_healing_changes_the_words_of_the_texts_alone(lesson: Lesson) -> None:
    small = cut(lesson.teacher(), 2, 1.0, 1.0, lesson.batches(32))
    tokens, before = lesson._tokens, small.words.weight.detach().clone()
    lesson.heal(small, 4, 3e-3, 64)
    met = np.unique(np.concatenate(tokens))
    changed = (small.words.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == met.tolist()
    assert len(met) < len(before) // 2
    assert lesson._tokens is tokens


def test_a_table_of_words_is_an_encoder_too(lesson: Lesson) -> None:
    small = WordTable(torch.from_numpy(lesson.word_vectors()))
    before = lesson.alike(small)
    lesson.heal(small, 15, 1e-2, 64)
    assert lesson.alike(small) > before


def test_pieces_are_runs_of_words_and_never_more_than_asked() -> None:
    found = pieces(["one two three", "four", "  "], 50, np.random.default_rng(0))
    assert found[:2] == ["one two three", "four"]
    assert all(any(part in whole for whole in ("one two three", "four", "  ")) for part in found)
    assert len(pieces(["a b"] * 9, 5, np.random.default_rng(0))) == 5
