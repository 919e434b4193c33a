"""Seconds of a training epoch beside RecTools' SASRec: same histories, width, length, layers and heads, full softmax, same machine, one after the other.

    RECTOOLS_PYTHON=path/to/python python benchmarks/training_speed.py [--data ../shared/data] [--users 0] [--threads 2]

RECTOOLS_PYTHON names an interpreter with `rectools[torch]`; without it a virtual environment is made in `runs/rectools`. Prints one JSON object.
RecTools pads every history to the whole length and computes in fp32; we compute real positions only, in bf16 where the CPU does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parents[1]
WIDTH, LENGTH, LAYERS, HEADS, BATCH = 128, 50, 1, 2, 128

RECTOOLS = """
import json, sys, time
import pandas as pd, torch
from pytorch_lightning import Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel
path, threads, width, length, layers, heads, batch = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
events = pd.read_csv(path, parse_dates=["datetime"], dtype={"user_id": str, "item_id": str})
data = Dataset.construct(events)
trainer = lambda: Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False, logger=False)
model = SASRecModel(n_factors=width, session_max_len=length, n_blocks=layers, n_heads=heads, batch_size=batch, epochs=1, loss="softmax",
                    dropout_rate=0.4, get_trainer_func=trainer)
began = time.perf_counter()
model.fit(data)
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def ours(events: pl.DataFrame, threads: int) -> float:
    """Seconds of one epoch of our towers; text vectors are random, for their cost is the same."""
    import numpy as np

    from tastemaker.data.dataset import Dataset
    from tastemaker.data.sequences import build
    from tastemaker.schema.settings_file import load_settings
    from tastemaker.schema.signals import Signals
    from tastemaker.training.sequence import train_sequence

    shape = [f"sequence.dim={WIDTH}", f"sequence.max_length={LENGTH}", f"sequence.layers={LAYERS}", f"sequence.heads={HEADS}"]
    other = [f"sequence.batch_size={BATCH}", "sequence.epochs=1", "sequence.min_steps=1", f"train.threads={threads}"]
    sequences = build(Dataset.read(events=events))
    text = np.random.default_rng(0).normal(size=(sequences.n_items, 256)).astype(np.float32) / 16
    return train_sequence(sequences, Signals.of(text), load_settings(None, [*shape, *other], {}))[1].seconds[0]


def rectools(events: pl.DataFrame, threads: int, work: Path) -> float:
    """Seconds of RecTools' fit with one epoch."""
    work.mkdir(parents=True, exist_ok=True)
    python = os.environ.get("RECTOOLS_PYTHON", "")
    if not python:
        python = str(work / "venv" / "bin" / "python")
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
            for package in (
                f"torch=={metadata.version('torch').split('+')[0]}",
                "rectools[torch]",
            ):  # the same torch as ours, first
                subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    table = events.select("user_id", "item_id", pl.lit(1.0).alias("weight"), pl.from_epoch("timestamp").alias("datetime"))
    table.write_csv(work / "events.csv")
    numbers = [str(number) for number in (threads, WIDTH, LENGTH, LAYERS, HEADS, BATCH)]
    done = subprocess.run([python, "-c", RECTOOLS, str(work / "events.csv"), *numbers], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"RecTools failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"])


def main() -> None:
    """Times both and prints the ratio."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--users", type=int, default=0, help="only the first so many users; 0: all")
    reader.add_argument("--threads", type=int, default=2)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "rectools")
    asked = reader.parse_args()
    events = pl.read_parquet(asked.data / "amazon-beauty" / "split-loo" / "train.parquet")
    if asked.users:
        chosen = events["user_id"].unique(maintain_order=True).head(asked.users)
        events = events.filter(pl.col("user_id").is_in(chosen.implode()))
    began = time.strftime("%Y-%m-%d %H:%M")
    mine, theirs = ours(events, asked.threads), rectools(events, asked.threads, asked.work)
    rows = {"date": began, "users": events["user_id"].n_unique(), "items": events["item_id"].n_unique(), "events": len(events)}
    print(json.dumps({**rows, "threads": asked.threads, "tastemaker_s": mine, "rectools_s": theirs, "ratio": theirs / mine}))


if __name__ == "__main__":
    main()
