"""Batch recommendation: 25,000 users x 17,000 items x top 20 through the command line, against the limit of 60 seconds on 2 cores.

    python benchmarks/batch_recommend.py [--users 25000] [--items 17000]

Makes a workspace with synthetic titles and histories, trains it for a moment (speed only), then times `tastemaker recommend --all`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

LIMIT_SECONDS = 60.0
WORDS = [
    "red",
    "blue",
    "green",
    "warm",
    "light",
    "heavy",
    "silk",
    "wool",
    "steel",
    "glass",
    "oak",
    "stone",
    "river",
    "moon",
    "sun",
    "wind",
    "fire",
    "snow",
    "rain",
    "leaf",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--items", type=int, default=17_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = [(f"i{number}", " ".join(rng.choice(WORDS, 4)) + f" {number % 97}") for number in range(given.items)]
        pl.DataFrame(items, schema=["item_id", "title"], orient="row").write_csv(folder / "items.csv")
        lengths = rng.integers(4, 16, given.users)
        users = np.repeat(np.arange(given.users), lengths)
        met = (rng.pareto(1.1, len(users)) * 300).astype(np.int64) % given.items
        events = pl.DataFrame(
            {"user_id": users, "item_id": [f"i{item}" for item in met], "timestamp": 1_600_000_000 + np.arange(len(users))}
        )
        events.write_csv(folder / "events.csv")
        space = folder / "space"
        run("init", str(space))
        run("import", str(space), "--events", str(folder / "events.csv"), "--items", str(folder / "items.csv"))
        run("train", str(space), "--set", "sequence.epochs=1", "--set", "sequence.min_steps=1", "--set", "text.max_length=16")
        seconds = []
        for _ in range(given.runs):
            begun = time.perf_counter()
            said = json.loads(run("recommend", str(space), "--all", "--k", "20", "--out", str(folder / "recs.parquet"), "--json"))
            seconds.append(time.perf_counter() - begun)
        lists = pl.read_parquet(folder / "recs.parquet").group_by("user_id").len()["len"]
        if said["users"] != given.users or set(lists.to_list()) != {20}:
            raise SystemExit(f"lists are missing: {said}")
    middle = float(np.median(seconds))
    print(
        f"{given.users:,} users x {given.items:,} items x top 20: {middle:.1f} s (runs: {', '.join(f'{one:.1f}' for one in seconds)})"
    )
    print(f"{middle / LIMIT_SECONDS:.2f} of the limit of {LIMIT_SECONDS:.0f} s")


def run(*arguments: str) -> str:
    """One verb in a process of its own; its output."""
    return subprocess.run([sys.executable, "-m", "tastemaker", *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
