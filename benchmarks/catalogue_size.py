"""Cost and memory of a training step as the catalogue grows to ten million items.

    python benchmarks/catalogue_size.py [--items 1e4 1e5 1e6 1e7] [--steps 12] [--threads 2]

Synthetic histories (20,000 users, 30 events each, items by Zipf's law over the whole catalogue), a text vector of 32 numbers for each item, in a
file that is mapped. Up to 100,000 items the full softmax; beyond, samples of 8,192 items with log-Q correction; beyond 262,144 items the id parts share rows by hashes. Each size is a process of its
own; peak memory is the process's, and the difference to its state before the model is shown as well. Times are medians of the steps after the first two.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

USERS, EVENTS, WIDTH = 20_000, 30, 32


def one(items: int, steps: int, threads: int) -> dict[str, float]:
    """Seconds of a step and memory at this size."""
    import torch

    from tastemaker.data.sequences import Sequences
    from tastemaker.schema.settings_file import load_settings
    from tastemaker.schema.signals import Signals
    from tastemaker.training.loop import LoopOptions, Task, run
    from tastemaker.training.sequence import SequenceModel, SequenceTask

    settings = load_settings(None, [f"train.threads={threads}"], {})
    torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    rank = np.exp(random.random(USERS * EVENTS) * np.log(items)).astype(np.int64) - 1  # density 1 / rank
    met = ((rank * 2_654_435_761) % items).astype(np.int32)
    offsets = np.arange(0, USERS * EVENTS + 1, EVENTS, dtype=np.int64)
    types = np.zeros(USERS * EVENTS, dtype=np.int16)
    sequences = Sequences([""] * USERS, [""] * items, offsets, met, np.arange(USERS * EVENTS, dtype=np.float64), types, ["view"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.npy"
        text = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, WIDTH))
        for begin in range(0, items, 1_000_000):
            part = text[begin : begin + 1_000_000]
            part[:] = random.standard_normal(part.shape, dtype=np.float32)
        text.flush()
        del text, part
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mapped = np.load(path, mmap_mode="c")
        model = SequenceModel(Signals.of(mapped), torch.from_numpy(sequences.counts()), settings.sequence)
        task = SequenceTask(sequences, model, settings, None)
        short = Short(task, steps)
        assert isinstance(short, Task)
        run(short, LoopOptions(epochs=1))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = np.diff(short.at)[2:]
    rows = len(model.items.identity)
    return {
        "seconds": float(np.median(seconds)),
        "peak_gib": peak / 2**20,
        "before_gib": before / 2**20,
        "rows": rows,
        "table_gib": 4 * items * settings.sequence.dim * 4 / 2**30,
    }


def short_task() -> type:
    """A task of a few steps that notes when each began."""
    from tastemaker.training.loop import Task

    class Short(Task):
        def __init__(self, task: Task, steps: int) -> None:
            self.model, self._task, self._steps, self.at = task.model, task, steps, list[float]()

        def batches(self, epoch: int):
            for place, batch in enumerate(self._task.batches(epoch)):
                if place == self._steps:
                    return
                self.at.append(time.perf_counter())
                yield batch

        def steps(self) -> int:
            return self._steps

        def loss(self, batch):
            return self._task.loss(batch)

        def weight(self, batch) -> float:
            return self._task.weight(batch)

    return Short


def main() -> None:
    """Prints the curve."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--items", nargs="*", type=float, default=[1e4, 1e5, 1e6, 1e7])
    reader.add_argument("--steps", type=int, default=12)
    reader.add_argument("--threads", type=int, default=2)
    reader.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one, asked.steps, asked.threads)))
        return
    print(
        "| items | softmax | rows of id parts | seconds a step | × the smallest | peak GiB | before the model | a table of its own with Adam would take |"
    )
    print("|---|---|---|---|---|---|---|---|")
    first = 0.0
    for items in (int(size) for size in asked.items):
        again = [sys.executable, __file__, "--one", str(items), "--steps", str(asked.steps), "--threads", str(asked.threads)]
        found = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        first = first or found["seconds"]
        kind = "full" if items <= 100_000 else "sample"
        print(
            f"| {items:,} | {kind} | {found['rows']:,} | {found['seconds']:.2f} | {found['seconds'] / first:.1f} | {found['peak_gib']:.2f} "
            f"| {found['before_gib']:.2f} | {found['table_gib']:.1f} GiB |",
            flush=True,
        )


if __name__ == "__main__":
    Short = short_task()
    main()
