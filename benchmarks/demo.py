"""Seconds of `tastemaker demo` beside the same verbs one after the other, and the share of the eight minutes that it may take.

    python benchmarks/demo.py [--limit 480] [--work DIR]

Both runs are whole: MovieLens 100k, import, train, evaluate with the floors; the demo then also serves and answers. Nothing of one run is used by
the other. The time of the installation comes on top. Prints one JSON object.
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

from tastemaker.cli.movielens import fetch_movielens


def timed(*verbs: list[str]) -> float:
    """Seconds of verbs of the command line, one after the other."""
    began = time.perf_counter()
    for verb in verbs:
        subprocess.run([sys.executable, "-m", "tastemaker", *verb], check=True, stdout=sys.stderr)
    return time.perf_counter() - began


def main() -> None:
    """Runs both and prints the ratios."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--limit", type=float, default=480.0)
    reader.add_argument("--port", type=int, default=8079)
    reader.add_argument("--work", type=Path, default=None, help="folder for temporary workspaces")
    asked = reader.parse_args()
    raw = fetch_movielens()
    files = ["--events", str(raw / "ml-100k.inter"), "--items", str(raw / "ml-100k.item"), "--users", str(raw / "ml-100k.user")]
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        plain, demo = f"{folder}/plain", f"{folder}/demo"
        verbs = timed(["init", plain], ["import", plain, *files], ["train", plain], ["evaluate", plain])
        whole = timed(["demo", demo, "--port", str(asked.port), "--no-serve"])
    facts = {"date": time.strftime("%Y-%m-%d %H:%M"), "cores": len(os.sched_getaffinity(0)), "verbs_s": verbs, "demo_s": whole}
    print(json.dumps({**facts, "times_faster": verbs / whole, "of_limit": whole / asked.limit}))


if __name__ == "__main__":
    main()
