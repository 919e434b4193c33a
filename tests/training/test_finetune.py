"""The language model learns from histories: every mode, every family, no leak, no mix-up of vectors."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tuning_to_kill
from language_models import write_model
from ring_world import ring

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.schema.errors import MissingExtraError, SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.finetune import Tuned, finetune, mixed
from tastemaker.training.holdout import Holdout, hold_out
from tastemaker.training.lower_layers import CatalogueReader, layers_of
from tastemaker.training.reading import item_texts, read_texts
from tastemaker.training.text_task import FinetuneTask
from tastemaker.training.trainable import choose_trainable

HAS_PEFT = importlib.util.find_spec("peft") is not None
LORA = pytest.param("lora", marks=pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: write_model(root / family, family) for family in ("bert", "distilbert", "qwen3")}


@pytest.fixture(scope="module")
def world() -> Dataset:
    return ring(users=120)


def _settings(folder: Path, *lines: str) -> Settings:
    base = ["train.threads=1", "train.precision=fp32", "text.dim=24", f"text.model={folder}", "finetune.steps=6"]
    base += ["finetune.batch_size=32", "finetune.chunk=16", "finetune.layers=1", "finetune.learning_rate=0.003"]
    return load_settings(None, [*base, "finetune.blends=1.0", *lines], {})


def _tuned(world: Dataset, settings: Settings, held: Holdout | None = None) -> tuple[Tuned, list[str]]:
    texts = item_texts(world.catalogue(), settings.text.template)
    encoder = load_encoder(settings.text, "fp32")
    return finetune(encoder, texts, encoder.encode(texts), held or hold_out(build(world), 0.1, 0), settings), texts


@pytest.mark.parametrize("mode", ["head", "last", "full", LORA])
@pytest.mark.parametrize("family", ["bert", "distilbert", "qwen3"])
def test_every_mode_trains_every_family_and_the_encoder_says_what_was_learned(
    folders: dict[str, Path], world: Dataset, family: str, mode: str
) -> None:
    settings = _settings(folders[family], f"finetune.mode={mode}")
    before = load_encoder(settings.text, "fp32")
    tuned, texts = _tuned(world, settings)
    assert tuned.vectors is not None
    assert tuned.encoder.fingerprint != before.fingerprint
    assert np.abs(tuned.encoder.encode(texts) - tuned.vectors).max() < 1e-5
    assert np.allclose(np.linalg.norm(tuned.vectors, axis=1), 1, atol=1e-4)
    if mode != "head":
        assert np.abs(tuned.vectors - before.encode(texts)).max() > 1e-3
    old, new = before.tower.backbone.state_dict(), tuned.encoder.tower.backbone.state_dict()
    assert set(old) == set(new)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    top = {id(part) for part in layers_of(before.tower.backbone)[-1].parameters()}
    upper = {name for name, part in before.tower.backbone.named_parameters() if id(part) in top}
    assert (changed == set()) if mode == "head" else bool(changed & upper)
    assert changed <= upper if mode == "last" else True


def test_what_is_taken_together_moves_together(folders: dict[str, Path], world: Dataset) -> None:
    settings = _settings(folders["bert"], "finetune.mode=full", "finetune.steps=120", "finetune.temperature=0.1")
    tuned, texts = _tuned(world, settings)
    assert tuned.vectors is not None
    number = {item: place for place, item in enumerate(world.item_ids())}
    walk = np.array([number[f"i{place}"] for place in range(40)])
    before, after = (_nearness(vectors, walk) for vectors in (load_encoder(settings.text, "fp32").encode(texts), tuned.vectors))
    assert after > 0.5
    assert after > before + 0.2


def _nearness(vectors: np.ndarray, walk: np.ndarray) -> float:
    """Mean cosine of items one step apart, less that of items six steps apart: of the same colour, but seldom of one history."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    one, six = ((centred[walk] * centred[np.roll(walk, -steps)]).sum(axis=1).mean() for steps in (1, 6))
    return float(one - six)


def _task(world: Dataset, settings: Settings, held: Holdout | None = None) -> FinetuneTask:
    texts = item_texts(world.catalogue(), settings.text.template)
    encoder = load_encoder(settings.text, "fp32")
    vectors = encoder.encode(texts)
    torch.manual_seed(0)
    tower, frozen = choose_trainable(encoder.tower, settings.finetune, vectors, 24)
    tokens = [found.ids for found in encoder.tokenizer.encode_batch(texts)]
    reader = CatalogueReader(tower, tokens, frozen)
    hard = np.zeros((0, 1), dtype=np.int64)
    return FinetuneTask(reader, (held or hold_out(build(world), 0.1, 0)).train, settings.finetune, 0, hard)


def _gradients(task: FinetuneTask) -> torch.Tensor:
    task.model.train()
    task.loss(next(iter(task.batches(0)))).backward()
    return torch.cat([part.grad.flatten() for part in task.model.parameters() if part.grad is not None])


def test_chunks_give_the_gradient_of_the_whole_batch(folders: dict[str, Path], world: Dataset) -> None:
    found = {}
    for chunk in (7, 1_000):
        task = _task(world, _settings(folders["bert"], "finetune.mode=full", f"finetune.chunk={chunk}"))
        for module in task.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found[chunk] = _gradients(task)
    assert float(found[1_000].norm()) > 1e-3
    assert torch.allclose(found[7], found[1_000], atol=1e-5)


def test_remembered_lower_layers_give_the_same_gradient_as_read_ones(folders: dict[str, Path], world: Dataset) -> None:
    for family in ("bert", "qwen3"):
        task = _task(world, _settings(folders[family], "finetune.mode=last"))
        plain = _task(world, _settings(folders[family], "finetune.mode=last"))
        plain.reader.lower = None
        for each in (task, plain):
            for module in each.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        assert torch.allclose(_gradients(task), _gradients(plain), atol=1e-5)


def test_no_batch_shows_what_is_held_back(folders: dict[str, Path], world: Dataset) -> None:
    held = hold_out(build(world), 0.2, 0)
    settings = _settings(folders["bert"], "finetune.mode=last", "finetune.steps=12")
    met = held.train.counts() > 0
    for batch in _task(world, settings, held).batches(0):
        assert met[batch.texts].all()
    other = replace(held, histories=held.histories[::-1], targets=held.targets[::-1], cold=~held.cold)
    one, two = (_tuned(world, settings, each)[0] for each in (held, other))
    assert one.encoder.fingerprint == two.encoder.fingerprint


def test_a_training_that_was_cut_short_goes_on_with_the_same_losses(folders: dict[str, Path], world: Dataset) -> None:
    settings = _settings(folders["bert"], "finetune.mode=last", "finetune.steps=8")

    def go(task: FinetuneTask, optimiser: torch.optim.Optimizer, begin: int, end: int) -> list[float]:
        losses = []
        for batch in list(task.batches(0))[begin:end]:
            torch.rand(3)  # whatever else draws numbers in between
            optimiser.zero_grad()
            loss = task.loss(batch)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    def fresh() -> tuple[FinetuneTask, torch.optim.Optimizer]:
        task = _task(world, settings)
        task.model.train()
        return task, torch.optim.AdamW([part for part in task.model.parameters() if part.requires_grad], lr=1e-3)

    whole = go(*fresh(), 0, 8)
    task, optimiser = fresh()
    first = go(task, optimiser, 0, 3)
    again, later = fresh()
    again.model.load_state_dict(task.model.state_dict())
    later.load_state_dict(optimiser.state_dict())
    torch.manual_seed(99)
    assert first + go(again, later, 3, 8) == whole


def test_a_killed_tuning_goes_on_to_the_same_weights_and_losses(tmp_path: Path) -> None:
    program = [sys.executable, tuning_to_kill.__file__, str(tmp_path / "killed"), "37"]
    assert subprocess.run(program, capture_output=True, check=False).returncode == -signal.SIGKILL
    whole, again = tuning_to_kill.tune(tmp_path / "whole"), tuning_to_kill.tune(tmp_path / "killed")
    assert whole["first"] == 1
    assert again["first"] > 30
    assert again["weights"] == whole["weights"]
    assert again["metrics"] == whole["metrics"]


def test_parts_of_a_batch_add_up_to_it(folders: dict[str, Path], world: Dataset) -> None:
    task = _task(world, _settings(folders["bert"], "finetune.mode=last"))
    task.model.eval()
    batch = next(iter(task.batches(0)))
    parts = [task.share(batch, part, 3) for part in range(3)]
    mean = sum(task.loss(part).item() * task.weight(part) for part in parts) / task.weight(batch)
    assert mean == pytest.approx(task.loss(batch).item(), rel=1e-5)


def test_tuned_and_untuned_vectors_are_never_mixed_up(folders: dict[str, Path], world: Dataset, tmp_path: Path) -> None:
    settings, held = _settings(folders["bert"]), hold_out(build(world), 0.1, 0)
    tuning = _settings(folders["bert"], "finetune.mode=full", "text.whitenings=1.0")
    first = read_texts(world.catalogue(), settings, tmp_path, held=held)
    tuned = read_texts(world.catalogue(), tuning, tmp_path, held=held)
    again = read_texts(world.catalogue(), settings, tmp_path, held=held)
    assert np.array_equal(first.vectors, again.vectors)
    assert np.abs(first.vectors - tuned.vectors).max() > 1e-2
    assert tuned.encoder is not None
    assert tuned.whitening is not None
    texts = item_texts(world.catalogue(), settings.text.template)
    assert np.abs(tuned.whitening.apply(tuned.encoder.encode(texts)) - tuned.vectors).max() < 1e-3


def test_the_best_mixture_is_kept_and_nothing_at_all_is_one_of_them(folders: dict[str, Path], world: Dataset) -> None:
    wild = _settings(folders["bert"], "finetune.mode=full", "finetune.blends=0.0,1.0", "text.whitenings=1.0,0.0")
    tuned, texts = _tuned(world, wild)
    scores = {name: value for name, value in tuned.metrics.items() if name.startswith("finetune_new_items")}
    kept = f"finetune_new_items_ndcg_{tuned.metrics['finetune_blend']:g}_{tuned.metrics['finetune_whitening']:g}"
    assert len(scores) == 4
    assert scores[kept] == max(scores.values())
    assert tuned.vectors is not None
    assert np.abs(tuned.encoder.encode(texts) - tuned.vectors).max() < 1e-5
    half = mixed({"w": torch.zeros(2), "n": torch.tensor(1)}, {"w": torch.ones(2), "n": torch.tensor(2)}, 0.5)
    assert half["w"].tolist() == [0.5, 0.5]


def test_texts_are_pretrained_and_a_decoder_says_that_it_cannot(folders: dict[str, Path], world: Dataset) -> None:
    lines = ("finetune.mode=last", "finetune.pretrain_steps=120", "finetune.pretrain_rate=0.01")
    tuned, _ = _tuned(world, _settings(folders["bert"], *lines))
    assert tuned.metrics["pretrain_loss"] < 0.75 * np.log(70)
    before = load_encoder(_settings(folders["bert"]).text, "fp32").tower.backbone.state_dict()
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(before[name], tuned.encoder.tower.backbone.state_dict()[name])
    head, texts = _tuned(world, _settings(folders["bert"], *lines, "finetune.mode=head", "finetune.pretrain_steps=5"))
    assert head.vectors is not None
    assert np.abs(head.encoder.encode(texts) - head.vectors).max() < 1e-5
    with pytest.raises(SettingsError, match="pretrain_steps"):
        _tuned(world, _settings(folders["qwen3"], *lines))


def test_hard_negatives_look_alike_and_were_never_taken_together(folders: dict[str, Path], world: Dataset) -> None:
    from tastemaker.training.text_judge import hard_pool

    sequences = hold_out(build(world), 0.1, 0).train
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    pool = hard_pool(vectors, sequences)
    together = {(int(a), int(b)) for history in sequences.histories() for a in history for b in history}
    for item in np.flatnonzero(sequences.counts()):
        fit = [other for other in np.flatnonzero(sequences.counts()) if (int(item), int(other)) not in together]
        best = sorted(fit, key=lambda other: -float(vectors[item] @ vectors[other]))[: pool.shape[1]]
        assert pool[item, : len(best)].tolist() == best
    tuned, _ = _tuned(world, _settings(folders["bert"], "finetune.mode=last", "finetune.hard_negatives=8"))
    assert tuned.vectors is not None


def test_unknown_modes_and_missing_libraries_are_explained(
    folders: dict[str, Path], world: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="expected one of frozen, head, last, lora, full"):
        _tuned(world, _settings(folders["bert"], "finetune.mode=most"))
    with pytest.raises(SettingsError, match=r"text\.pooling is 'max'"):
        load_encoder(_settings(folders["bert"], "text.pooling=max").text)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else real(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'tastemaker\[lora\]'"):
        _tuned(world, _settings(folders["bert"], "finetune.mode=lora"))


def test_a_decoder_reads_its_last_token_and_padding_changes_nothing(folders: dict[str, Path]) -> None:
    encoder = load_encoder(_settings(folders["qwen3"]).text, "fp32")
    assert encoder.tower.pooling == "last"
    assert load_encoder(_settings(folders["bert"]).text, "fp32").tower.pooling == "mean"
    both = encoder.encode(["red thing w3", "blue thing w4 w5 w6 w7"])
    assert np.abs(both[0] - encoder.encode(["red thing w3"])[0]).max() < 1e-6
    assert np.abs(both[0] - encoder.encode(["red thing w4"])[0]).max() > 1e-3
