"""A bundle's models, run without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tastemaker.inference.brain import Brain
from tastemaker.inference.engine import TextEncoder
from tastemaker.inference.runtimes import by_onnxruntime
from tastemaker.schema.errors import BundleError
from toy_bundle import WIDTH, histories, items, write_payload


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Brain:
    folder = tmp_path_factory.mktemp("payload")
    catalogue = items()
    write_payload(folder, catalogue, histories(catalogue))
    return Brain(folder)


def test_texts_become_unit_rows_and_nothing_becomes_zero(brain: Brain) -> None:
    texts = ["hiking boots", "", "  ", "espresso machine grinder roast beans coffee", "hiking boots", "\ud800 boots"]
    found = brain.text.encode(texts)
    assert found.shape == (6, WIDTH)
    norms = np.linalg.norm(found, axis=1)
    assert np.allclose(norms[[0, 3, 4, 5]], 1, atol=1e-5)
    assert not norms[[1, 2]].any()
    assert np.allclose(found[0], found[4], atol=1e-6)
    assert found[0] @ found[3] < 0.6
    assert np.allclose(found[3], brain.text.encode([texts[3]])[0], atol=1e-5), "padding changes nothing"
    assert brain.text.encode([]).shape == (0, WIDTH)


def test_user_vectors_do_not_depend_on_the_batch(brain: Brain) -> None:
    rows = np.load(brain.folder / "channels" / "items.npy")
    lists = [np.arange(5, dtype=np.int32), np.zeros(0, np.int32), np.arange(130, dtype=np.int32) % 60, np.array([7], np.int32)]
    together = brain.user.vectors(lists, lambda indices: rows[indices])
    for history, vector in zip(lists, together, strict=True):
        assert np.allclose(brain.user.vectors([history], lambda indices: rows[indices])[0], vector, atol=1e-5)
    assert not together[1].any()
    assert np.allclose(np.linalg.norm(together[[0, 2, 3]], axis=1), 1, atol=1e-5)


def test_histories_and_ids(brain: Brain) -> None:
    assert len(brain.history("u3")) == 8
    assert len(brain.history("nobody")) == 0
    assert brain.index_of[brain.items[7]["item_id"]] == 7


def test_without_an_encoder_every_text_is_zero(tmp_path: Path) -> None:
    assert not TextEncoder(tmp_path, 8).encode(["boots"]).any()


def test_a_graph_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="another bundle"):
        by_onnxruntime(tmp_path / "model.onnx")


def test_answering_loads_no_torch_and_the_road_no_http() -> None:
    code = (
        "import sys, tastemaker.serving.http, tastemaker.serving.wire, tastemaker.console.app; assert 'torch' not in sys.modules;"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    code = "import sys, tastemaker.pipeline.engine; assert 'starlette' not in sys.modules and 'uvicorn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
