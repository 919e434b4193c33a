"""Profiling many events in bounded memory.

    python benchmarks/profile_events.py [--rows 20000000]

Makes a journal of synthetic events, profiles it in a child process as `tastemaker profile` does, and prints events a second and the child's
peak memory as a share of the limit of 3 GiB, then the same for a quarter of the events: how memory grows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.journal.append import Journal
from tastemaker.journal.read import EVENT_SCHEMA
from tastemaker.schema.columns import Columns
from tastemaker.schema.items import Item

LIMIT_GIB = 3.0
ITEMS = 200_000


def fill(space: Path, rows: int, chunk: int = 1_000_000) -> None:
    """Events of rows/20 users with 200,000 items, popular ones more often, in the order of time, over about eight months."""
    rng = np.random.default_rng(0)
    journal = Journal.open(space / "journal")
    with journal.importing() as staging:
        parts, counts = [], []
        for begin in range(0, rows, chunk):
            size = min(chunk, rows - begin)
            number = np.arange(begin, begin + size)
            table = pl.DataFrame(
                {
                    "event_id": pl.Series(number).hash(0).cast(pl.String).str.slice(0, 16).str.pad_start(16, "0"),
                    "user_id": pl.Series(rng.integers(0, max(rows // 20, 1), size)).cast(pl.String),
                    "item_id": pl.Series((rng.pareto(1.2, size) * 50).astype(np.int64) % ITEMS).cast(pl.String),
                    "timestamp": 1_600_000_000.0 + number * (2e7 / rows),
                    "event_type": rng.choice(np.array(["view", "cart", "purchase"]), size, p=[0.9, 0.07, 0.03]),
                    "value": rng.gamma(2.0, 10.0, size),
                }
            )
            missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in EVENT_SCHEMA.items() if name not in table.columns]
            path = staging / f"{begin:012d}.parquet"
            table.with_columns(missing).drop(Columns.SEQ).write_parquet(path)
            parts.append(path)
            counts.append(size)
        journal.commit_import("events", [], parts, counts)
    journal.put_items(
        [Item(item_id=str(n), title=f"Thing {n}", categories=[f"c{n % 40}"], price=1.0 + n % 97) for n in range(ITEMS)]
    )
    journal.close()


def measure(rows: int) -> tuple[float, float]:
    """Seconds and peak memory, in GiB, of a profile of so many events."""
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space"
        command = [sys.executable, "-m", "tastemaker"]
        subprocess.run([*command, "init", str(space)], check=True, stdout=subprocess.DEVNULL)
        fill(space, rows)
        begun = time.perf_counter()
        child = subprocess.Popen([*command, "profile", str(space), "--json"], stdout=subprocess.PIPE)
        assert child.stdout is not None
        found = json.loads(child.stdout.read())
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        if status or found["events"] != rows:
            raise SystemExit(f"{rows:,} events were written, but the profile says {found.get('events')} (status {status})")
        return seconds, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows = parser.parse_args().rows
    part_seconds, part_peak = measure(rows // 4)
    print(f"{rows // 4:,} events in {part_seconds:.0f} s: {rows / 4 / part_seconds:,.0f} events/s; peak memory {part_peak:.2f} GiB")
    seconds, peak = measure(rows)
    print(f"{rows:,} events in {seconds:.0f} s: {rows / seconds:,.0f} events/s; peak memory {peak:.2f} GiB")
    print(f"4 times the events: {seconds / part_seconds:.1f} times the time, {peak / part_peak:.1f} times the memory")
    print(f"peak memory is {peak / LIMIT_GIB:.2f} of the limit of {LIMIT_GIB:.0f} GiB")
    if peak > LIMIT_GIB:
        raise SystemExit("the limit was exceeded")


if __name__ == "__main__":
    main()
