"""Tunings of a tiny model, by one process or by a group that the environment announces: FOLDER holds the model, `<name>.json` and `.safetensors` are left there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ring_world import ring
from torch import Tensor

from tastemaker.data.sequences import build
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.checkpoints import weights_of, write_weights
from tastemaker.training.encoder import load_encoder
from tastemaker.training.group import enter, meet, rank
from tastemaker.training.holdout import hold_out
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.reading import item_texts
from tastemaker.training.text_job import run_texts
from tastemaker.training.text_task import FinetuneTask, TextBatch
from tastemaker.training.trainable import choose_trainable

KINDS: dict[str, tuple[str, ...]] = {
    "last": ("finetune.mode=last", "finetune.layers=1"),
    "full": ("finetune.mode=full",),
    "shard": ("finetune.mode=full", "finetune.shard=true"),
    "shard-last": ("finetune.mode=last", "finetune.layers=1", "finetune.shard=true"),
}
STEPS, BREAKS = 16, 10
ROUND = 4  # steps of an epoch: epochs enough to see a curve


class Cut(FinetuneTask):
    """Ends in the middle, in every process at the same step."""

    left = BREAKS

    def loss(self, batch: TextBatch) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().loss(batch)


def task(folder: Path, kind: str, whole: type[FinetuneTask] = FinetuneTask) -> tuple[FinetuneTask, Any]:
    """A tuning with dropout; of shards without, as a share of a batch is no chunk of it there."""
    lines = ["train.threads=1", "train.precision=fp32", "train.checkpoint_seconds=0", f"text.model={folder}", "text.dim=16"]
    lines += [f"finetune.steps={STEPS}", "finetune.batch_size=24", "finetune.chunk=7", "finetune.learning_rate=0.001"]
    settings, data = load_settings(None, [*lines, *KINDS[kind]], {}), ring(users=60)
    encoder = load_encoder(settings.text, "fp32")
    texts = item_texts(data.catalogue(), settings.text.template)
    vectors = encoder.encode(texts)
    torch.manual_seed(0)
    tower, frozen = choose_trainable(encoder.tower, settings.finetune, vectors, settings.text.dim)
    for module in tower.modules():
        if settings.finetune.shard and isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tokens = [found.ids for found in encoder.tokenizer.encode_batch(texts)]
    reader = CatalogueReader(tower, tokens, frozen, vectors if kind == "head" else None)
    train = hold_out(build(data), 0.1, 0).train
    return whole(reader, train, settings.finetune, 0, np.zeros((0, 1), dtype=np.int64)), settings


def learn(folder: Path, kind: str, name: str, run_dir: Path | None = None) -> None:
    """Tunes, leaves losses and weights; where a run folder is given it breaks off once and goes on."""
    if run_dir is not None:
        given, settings = task(folder, kind, Cut)
        given.epochs = STEPS // ROUND
        try:
            run_texts(given, settings, None, run_dir)
        except KeyboardInterrupt:
            meet()
    given, settings = task(folder, kind)
    given.epochs = STEPS // ROUND
    result, weights = run_texts(given, settings, None, run_dir), weights_of(given.model)
    if rank() == 0:
        write_weights(weights, folder / f"{name}.safetensors")
        local = sum(part.to_local().numel() if hasattr(part, "to_local") else part.numel() for part in given.model.parameters())
        facts = {"losses": result.losses, "local": local, "all": sum(part.numel() for part in given.model.parameters())}
        (folder / f"{name}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    enter()
    for each in KINDS:
        learn(place, each, f"{each}-two")
    for each in ("full", "shard"):
        learn(place, each, f"{each}-again", place / f"run-{each}")
    torch.distributed.destroy_process_group()
