"""Processes that tune the language model together learn what one learns alone, with whole weights or with shards of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import text_group
from hypothesis import given
from hypothesis import strategies as st
from language_models import write_model
from ring_world import ring
from safetensors.numpy import load_file

from tastemaker.data.sequences import build
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.finetune import Tuned, finetune
from tastemaker.training.holdout import hold_out
from tastemaker.training.reading import item_texts
from tastemaker.training.text_task import dealt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tunings by two processes, and by one, over one tiny BERT."""
    folder = write_model(tmp_path_factory.mktemp("group") / "model", "bert", layers=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    program = [sys.executable, text_group.__file__, str(folder)]
    group = [subprocess.Popen(program, env={**os.environ, **here, "RANK": str(rank)}) for rank in range(2)]
    for kind in text_group.KINDS:
        text_group.learn(folder, kind, f"{kind}-one")
    assert [process.wait(timeout=300) for process in group] == [0, 0]
    return folder


def facts(folder: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / f"{name}.json").read_text())
    return found


def differs(folder: Path, one: str, other: str) -> float:
    first, second = (load_file(folder / f"{name}.safetensors") for name in (one, other))
    assert first.keys() == second.keys()
    return max(float(np.abs(value - second[name]).max()) for name, value in first.items())


@pytest.mark.parametrize("kind", list(text_group.KINDS))
def test_two_processes_have_the_losses_and_the_weights_of_one(folder: Path, kind: str) -> None:
    one, two = (facts(folder, f"{kind}-{name}")["losses"] for name in ("one", "two"))
    assert one == pytest.approx(two, abs=1e-4)
    assert differs(folder, f"{kind}-one", f"{kind}-two") < 1e-3


@pytest.mark.parametrize("kind", ["full", "shard"])
def test_a_tuning_that_was_cut_short_goes_on_to_the_same_weights(folder: Path, kind: str) -> None:
    assert facts(folder, f"{kind}-again")["losses"] == facts(folder, f"{kind}-two")["losses"]
    assert differs(folder, f"{kind}-again", f"{kind}-two") == 0.0


def test_each_process_holds_half_of_the_shards(folder: Path) -> None:
    whole, half = (facts(folder, f"{kind}-two") for kind in ("full", "shard"))
    assert whole["local"] == whole["all"]
    assert half["local"] <= 0.52 * half["all"]  # type: ignore[operator]


@given(st.lists(st.integers(1, 100), max_size=12), st.integers(1, 5))
def test_every_piece_is_dealt_once_and_no_hand_is_much_heavier(costs: list[int], processes: int) -> None:
    hands = dealt(costs, processes)
    assert len(hands) == processes
    assert sorted(number for hand in hands for number in hand) == list(range(len(costs)))
    loads = [sum(costs[number] for number in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(costs, default=0)


def test_workers_tune_what_one_process_tunes(folder: Path, tmp_path: Path) -> None:
    """The road of `train.workers`: a folder with the job, two processes, and the vectors that one finds."""
    found = {}
    for workers in (1, 2):
        lines = ["train.threads=1", "train.precision=fp32", f"train.workers={workers}", f"text.model={folder}", "text.dim=16"]
        lines += ["finetune.mode=last", "finetune.layers=1", "finetune.steps=20", "finetune.batch_size=24", "finetune.chunk=7"]
        settings, data = load_settings(None, [*lines, "finetune.blends=1.0"], {}), ring(users=60)
        encoder = load_encoder(settings.text, "fp32")
        texts = item_texts(data.catalogue(), settings.text.template)
        held = hold_out(build(data), 0.1, 0)
        found[workers] = finetune(encoder, texts, encoder.encode(texts), held, settings, None, tmp_path / str(workers))
    one, two = found[1], found[2]
    assert isinstance(two, Tuned)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-4)
    assert np.abs(one.vectors - two.vectors).max() < 1e-4  # type: ignore[operator]
    assert not list((tmp_path / "2").glob("*.job")), "what was handed to the processes is gone"
