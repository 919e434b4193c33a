"""Catalogues and logs that there is nothing to learn from, and texts that nobody expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
from language_models import write_model
from ring_world import ring
from tokenizers import Tokenizer

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.export import export_text
from tastemaker.training.holdout import hold_out
from tastemaker.training.pairs import count_pairs
from tastemaker.training.reading import ReadTexts, read_texts


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert"), "bert", layers=2)


def _read(data: Dataset, settings: Settings) -> ReadTexts:
    return read_texts(data.catalogue(), settings, held=hold_out(build(data), 0.1, 0))


def _settings(folder: Path, mode: str = "last", *lines: str) -> Settings:
    base = ["train.threads=1", "train.precision=fp32", "text.dim=16", f"text.model={folder}", f"finetune.mode={mode}"]
    return load_settings(
        None, [*base, "finetune.steps=3", "finetune.layers=1", "finetune.batch_size=16", "finetune.chunk=8", *lines], {}
    )


def _data(events: list[tuple[str, str]], titles: dict[str, str | None]) -> Dataset:
    rows = [(user, item, float(place)) for place, (user, item) in enumerate(events)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}, schema_overrides={"title": pl.String})
    return Dataset.read(events=log, items=items)


def test_no_text_at_all_is_told_and_no_error(bert: Path) -> None:
    found = _read(_data([("u", "a"), ("u", "b"), ("v", "a")], {"a": None, "b": ""}), _settings(bert))
    assert not found.vectors.any()
    assert found.encoder is None
    assert found.notes == ["finetune.mode last was skipped: no item has a text."]


@pytest.mark.parametrize(
    "events",
    [[("u", f"i{number % 2}") for number in range(9)], [(f"u{number}", "i0") for number in range(9)]],
    ids=["user", "item"],
)
def test_one_user_or_one_item_is_skipped_with_a_sentence(bert: Path, events: list[tuple[str, str]]) -> None:
    found = _read(_data(events, {"i0": "red thing", "i1": "blue thing"}), _settings(bert))
    assert len(found.notes) == 1
    assert found.notes[0].startswith("finetune.mode last was skipped:")
    assert "100 are needed" in found.notes[0]
    assert np.isfinite(found.vectors).all()


def test_items_without_text_take_no_part(bert: Path) -> None:
    whole = ring(users=120)
    items = whole.items.with_columns(title=pl.when(pl.int_range(pl.len()) < 8).then(None).otherwise(pl.col("title")))
    data = Dataset.read(events=whole.events, items=items)
    found, train = _read(data, _settings(bert)), hold_out(build(data), 0.1, 0).train
    full = np.array([bool(title) for title in data.catalogue()["title"]])
    assert found.metrics["finetune_pairs"] == count_pairs(train.keep(full[train.items])) < count_pairs(train)
    assert (np.abs(found.vectors).sum(axis=1) == 0).sum() == 8


def test_texts_of_a_hundred_thousand_characters_are_cut(bert: Path) -> None:
    whole = ring(users=120)
    items = whole.items.with_columns(
        title=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit("red " * 25_000)).otherwise(pl.col("title"))
    )
    found = _read(Dataset.read(events=whole.events, items=items), _settings(bert, "full"))
    assert np.isfinite(found.vectors).all()
    assert "finetune_loss_last" in found.metrics


def test_a_tokenizer_that_lacks_the_language_is_told_with_the_share(bert: Path) -> None:
    whole = ring(users=120)
    items = whole.items.with_columns(title=pl.lit("красная вещь для дома w1"))
    with pytest.warns(UserWarning, match="80% of the tokens"):
        found = _read(Dataset.read(events=whole.events, items=items), _settings(bert, "frozen"))
    assert found.metrics["text_unknown_share"] == pytest.approx(0.8)
    assert len(found.notes) == 1


@pytest.mark.parametrize(("family", "mode"), [("bert", "head"), ("qwen3", "last")])
def test_new_items_are_read_by_the_exported_tuned_model(tmp_path: Path, family: str, mode: str) -> None:
    data = ring(users=120)
    found = _read(
        data,
        _settings(
            write_model(tmp_path / "model", family, layers=1),
            mode,
            "finetune.blends=1.0",
            "finetune.learning_rate=0.01",
        ),
    )
    assert found.encoder is not None
    assert found.whitening is not None
    export_text(found.encoder, found.whitening, "{title}", tmp_path / "out")
    session = ort.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    texts = ["red thing w3", "blue", "a new thing w5 w6 w7 w8"]
    for text, wanted in zip(texts, found.encoder.encode(texts), strict=True):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        made = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        assert np.abs(made - wanted).max() <= 1e-3
    ids = np.array([[2, 5, 3, 0, 0], [2, 5, 4, 9, 3]], dtype=np.int64)
    both = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})[0]
    alone = session.run(None, {"input_ids": ids[:1, :3], "attention_mask": np.ones((1, 3), np.int64)})[0]
    assert np.abs(both[0] - alone[0]).max() <= 1e-3


def test_of_several_whitenings_the_best_on_new_items_is_kept(bert: Path) -> None:
    data = ring(users=120)
    found = _read(data, _settings(bert, "frozen", "text.whitenings=0.0,1.0,0.5"))
    scores = {power: found.metrics[f"text_new_items_ndcg_{power:g}"] for power in (0.0, 1.0, 0.5)}
    power = found.metrics["text_whitening"]
    assert scores[power] == max(scores.values())
    alone = _read(data, _settings(bert, "frozen", f"text.whitenings={power}"))
    assert np.array_equal(alone.vectors, found.vectors)
    assert "text_whitening" not in alone.metrics
    other = _read(data, _settings(bert, "frozen", f"text.whitenings={0.0 if power else 1.0}"))
    assert not np.allclose(found.vectors, other.vectors)


def test_a_fit_tunes_once_and_all_parts_read_the_same_vectors(bert: Path, tmp_path: Path) -> None:
    from tastemaker.training.fit import fit

    asked: list[str] = []
    lines = ("sequence.dim=8", "sequence.min_steps=4", "sequence.epochs=1", "text.whitenings=0.5", "finetune.learning_rate=2e-3")
    data = ring(users=120)
    brain = fit(data, _settings(bert, "last", *lines), lambda what, done, total: asked.append(what), tmp_path, tmp_path, rows=False)
    assert asked.count("finetune") in (3, 4)  # the loop may tell the last step twice
    assert {"finetune_loss_first", "finetune_blend", "seconds_text", "seconds_refit"} <= set(brain.metrics)
    assert brain.encoder is not None
    assert brain.whitening is not None
    texts = [f"{title}" for title in brain.catalogue["title"]]
    made = brain.whitening.apply(brain.encoder.encode(texts))
    assert np.abs(made - brain.model.items.signals()[0].numpy()).max() < 1e-3
    assert np.abs(made - brain.channels.text.rows(np.arange(len(texts)))).max() < 1e-3
    frozen = fit(data, _settings(bert, "frozen", *lines), cache_dir=tmp_path, rows=False)
    assert np.abs(frozen.model.items.signals()[0].numpy() - made).max() > 1e-2
    assert not any(name.startswith("finetune") for name in frozen.metrics)
