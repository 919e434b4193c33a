"""Importing many events in bounded memory.

    python benchmarks/import_events.py [--rows 20000000]

Writes a CSV of synthetic events, imports it in a child process as `tastemaker import` does, and prints rows a second and the child's peak memory
as a share of the limit of 2 GiB.
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
import polars as pl

LIMIT_GIB = 2.0


def write_events(path: Path, rows: int, chunk: int = 1_000_000) -> None:
    """Events of rows/20 users with 200,000 items, popular ones more often, in the order of time."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b"user_id,item_id,timestamp,event_type,value\n")
        for begin in range(0, rows, chunk):
            size = min(chunk, rows - begin)
            items = (rng.pareto(1.2, size) * 50).astype(np.int64) % 200_000
            table = pl.DataFrame(
                {
                    "user_id": rng.integers(0, max(rows // 20, 1), size),
                    "item_id": items,
                    "timestamp": 1_600_000_000 + begin + np.arange(size),
                    "event_type": rng.choice(np.array(["view", "cart", "purchase"]), size, p=[0.9, 0.07, 0.03]),
                    "value": rng.integers(1, 100, size),
                }
            )
            table.write_csv(file, include_header=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path, space = Path(folder) / "events.csv", Path(folder) / "space"
        write_events(path, rows)
        size = path.stat().st_size / 2**30
        command = [sys.executable, "-m", "tastemaker"]
        subprocess.run([*command, "init", str(space)], check=True, stdout=subprocess.DEVNULL)
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, "import", str(space), "--events", str(path), "--json"], check=True, capture_output=True, text=True
        )
        seconds = time.perf_counter() - begun
        report = json.loads(done.stdout)["imports"][0]
        if report["accepted"] + report["duplicates"] != rows:
            raise SystemExit(f"{rows:,} rows were written, but the import says {report}")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        journal = sum(file.stat().st_size for file in (space / "journal").rglob("*") if file.is_file()) / 2**30
    print(f"{rows:,} events ({size:.2f} GiB of CSV) in {seconds:.0f} s: {rows / seconds:,.0f} rows/s; journal {journal:.2f} GiB")
    print(f"peak memory {peak:.2f} GiB: {peak / LIMIT_GIB:.2f} of the limit of {LIMIT_GIB:.0f} GiB")
    if peak > LIMIT_GIB:
        raise SystemExit("the limit was exceeded")


if __name__ == "__main__":
    main()
