"""The exported graphs answer as torch does."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
import torch
from tokenizers import Tokenizer

from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.protocols import QueryState
from tastemaker.training.fit import TrainedBrain, states_of
from tastemaker.training.sequence import pad


@pytest.fixture(scope="module")
def folder(brain: TrainedBrain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload")
    brain.export(folder)
    return folder


def _session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_everything_that_the_other_wing_reads_is_there(folder: Path) -> None:
    wanted = "catalogue/items.parquet channels/items.npy fusion.json item_tower/model.onnx user_tower/model.onnx settings.json"
    wanted += " text_encoder/model.onnx text_encoder/tokenizer.json text_encoder/config.json text_encoder/whitening_mean.npy"
    wanted += " lexicon/words.bin catalogue/records.bin lexicon/places.npy text_encoder/whitening_components.npy users/user_ids.parquet users/offsets.npy users/items.npy users/times.npy"
    assert [name for name in wanted.split() if not (folder / name).is_file()] == []
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob("*.pt"))


def test_the_baseline_counts_what_was_learned_from(brain: TrainedBrain, folder: Path) -> None:
    found = msgspec.json.decode((folder / "baseline.json").read_bytes(), type=Baseline)
    assert found == brain.baseline
    assert brain.features is not None
    rows = brain.features.rows
    assert list(found.features) == rows.names
    for place, name in enumerate(rows.names):
        assert found.features[name].count + found.features[name].missing == len(rows.values)
        assert found.features[name].mean == pytest.approx(float(rows.values[:, place].mean()), rel=1e-4, abs=1e-5)
    sequences = brain.sequences
    assert (found.events, found.users, found.catalogue) == (len(sequences.items), sequences.n_users, brain.catalogue.height)
    counts = sequences.counts()
    assert found.popularity.items.counts == {
        sequences.item_ids[item]: count
        for item, count in enumerate(counts.tolist())
        if sequences.item_ids[item] in found.popularity.items.counts
    }
    assert sum(found.events_per_user.counts) == sequences.n_users


def test_top_ten_of_all_users_are_those_of_torch(brain: TrainedBrain, folder: Path) -> None:
    histories = [history[-brain.settings.sequence.max_length :] for history in brain.sequences.histories()]
    channels = Channels.load(folder / "channels")
    fusion = Fusion.from_dict(json.loads((folder / "fusion.json").read_text()))
    ids, lengths = pad(histories)
    vectors = channels.items.rows(ids.numpy().ravel()).reshape(*ids.shape, -1)
    users = _session(folder / "user_tower" / "model.onnx").run(None, {"vectors": vectors, "lengths": lengths.numpy()})[0]
    wanted = states_of(brain.model, histories)
    assert np.abs(users - np.stack([state.user_vector for state in wanted])).max() <= 1e-4
    states = [QueryState(history, vector) for history, vector in zip(histories, users, strict=True)]
    same = []
    for state, found, plain in zip(
        states, channels.candidates(states, brain.settings.fusion.depth), brain.recommend(histories, 10), strict=True
    ):
        order = np.argsort(-fusion.score(found, len(state.history)), kind="stable")[:10]
        same.append(np.array_equal(found.items[order], plain[0]))
    assert np.mean(same) >= 0.99


def test_item_tower_and_single_events_agree(brain: TrainedBrain, folder: Path) -> None:
    text = brain.channels.text.rows(np.arange(brain.channels.n_items))
    made = _session(folder / "item_tower" / "model.onnx").run(None, {"content": text})[0]
    cold = np.flatnonzero(brain.channels.counts == 0)
    assert len(cold) == 2
    assert np.abs(made[cold] - brain.model.item_vectors()[cold]).max() <= 1e-3
    user = _session(folder / "user_tower" / "model.onnx")
    for length in (1, 2, 50):
        vectors = np.random.default_rng(0).normal(size=(1, length, brain.settings.sequence.dim)).astype(np.float32)
        with torch.inference_mode():
            wanted = brain.model.users.eval()(torch.from_numpy(vectors), torch.tensor([length])).numpy()
        assert np.abs(user.run(None, {"vectors": vectors, "lengths": np.array([length])})[0] - wanted).max() <= 1e-4


def test_new_texts_are_read_alike(brain: TrainedBrain, folder: Path) -> None:
    assert brain.encoder is not None
    assert brain.whitening is not None
    encoder = folder / "text_encoder"
    tokenizer, session = Tokenizer.from_file(str(encoder / "tokenizer.json")), _session(encoder / "model.onnx")
    texts = ["red thing w3", "blue", "unknown words here, " * 200]
    wanted = brain.encoder.encode(texts)
    for text, vector in zip(texts, wanted, strict=True):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        assert ids.shape[1] <= json.loads((encoder / "config.json").read_text())["max_length"]
        found = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]
        assert np.abs(found - vector).max() <= 1e-3
    ids = np.array([[2, 5, 3, 0, 0], [2, 5, 4, 9, 3]], dtype=np.int64)
    both = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)})[0]
    alone = session.run(None, {"input_ids": ids[:1, :3], "attention_mask": np.ones((1, 3), np.int64)})[0]
    assert np.abs(both[0] - alone[0]).max() <= 1e-3
