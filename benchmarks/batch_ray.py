"""Batch work on Ray by two workers and by one, one thread each, in turns: texts read by the language model, and lists for many users.

    python benchmarks/batch_ray.py [--texts 3000] [--users 20000] [--items 1e4] [--rounds 2] [--folder F]

Printed for each: rows/s of one worker and of two, counted from the first tenth of the results to the last, when all models are loaded, and their ratio (limit: at least 1.7, on two cores
that nobody else uses); whole jobs, their start included; and what shows the ratio where others compute beside: rows a CPU second, and the share of the time in which the workers had a
task. The results of both are compared: they must be the same bytes. Needs the extras `ray` and `demo`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _served_world
import numpy as np

LIMIT = 1.7


HEAD = "ddd"  # begin and end of a task, epoch seconds, and its CPU seconds


class Run(NamedTuple):
    """One job, from the first tenth of its results to the last: tasks/s, in all and by CPU second; the share of that time in which its workers had a task; a hash over the results."""

    steady: float
    whole: float
    per_cpu: float
    busy: float
    digest: str


def timed(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[int], bytes]:
    """A worker whose results tell how long they took."""
    act = make(*arguments)

    def one(number: int) -> bytes:
        began, cpu = time.time(), time.process_time()
        found = act(number)
        return struct.pack(HEAD, began, time.time(), time.process_time() - cpu) + found

    return one


def measured(make: Callable[..., Any], arguments: tuple[Any, ...], count: int, workers: int) -> Run:
    from tastemaker.data._ray import stream

    began, heads, digest = time.time(), [], hashlib.sha256()
    for found in stream(timed, (make, arguments), count, workers=workers):
        heads.append(struct.unpack_from(HEAD, found))
        digest.update(found[struct.calcsize(HEAD) :])
    kept = sorted(heads)[count // 10 :]
    span = max(end for _, end, _ in kept) - kept[0][0]
    cpu = sum(seconds for _, _, seconds in kept)
    busy = sum(end - begin for begin, end, _ in kept) / (workers * span)
    return Run(len(kept) / span, count / (time.time() - began), len(kept) / cpu, busy, digest.hexdigest())


def compare(
    name: str, unit: str, rows: float, make: Callable[..., Any], arguments: tuple[Any, ...], count: int, rounds: int
) -> None:
    runs: dict[int, list[Run]] = {1: [], 2: []}
    for turn in range(rounds):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            runs[workers].append(measured(make, arguments, count, workers))
    steady, whole, per_cpu, busy = (
        [float(np.median([run[place] for run in runs[workers]])) for workers in (1, 2)] for place in range(4)
    )
    print(
        f"{name}: {unit}/s: one worker {rows * steady[0]:,.0f}, two {rows * steady[1]:,.0f}, ratio {steady[1] / steady[0]:.2f}   limit {LIMIT}"
    )
    print(f"  start included: {rows * whole[0]:,.0f} and {rows * whole[1]:,.0f}, ratio {whole[1] / whole[0]:.2f}")
    free = 2 * busy[1] / busy[0] * per_cpu[1] / per_cpu[0]
    print(
        f"  {unit} a CPU second: {rows * per_cpu[0]:,.0f} and {rows * per_cpu[1]:,.0f}; workers had work {busy[0]:.0%} and {busy[1]:.0%} of the time: "
        f"on cores that nobody else uses the ratio would be {free:.2f}",
        flush=True,
    )
    if len({run.digest for both in runs.values() for run in both}) > 1:
        raise SystemExit(f"{name}: the results differ")


def texts(given: argparse.Namespace, room: Path) -> None:
    from tastemaker.models.text import length_batches
    from tastemaker.schema.settings_file import load_settings, to_table
    from tastemaker.training._ray import reader, write_batches
    from tastemaker.training.encoder import load_encoder

    settings = load_settings(None, ["train.precision=fp32"], {})
    random = np.random.default_rng(0)
    words = ["waterproof", "boots", "espresso", "machine", "guitar", "strings", "mountain", "leather", "grinder", "amplifier"]
    told = [" ".join(random.choice(words, random.integers(4, 40))) for _ in range(given.texts)]
    tokens = [found.ids for found in load_encoder(settings.text, "fp32").tokenizer.encode_batch(told)]
    batches = length_batches(tokens, 32)
    random.shuffle(batches)  # type: ignore[arg-type]  # long and short ones mixed, so that every part of the job is like every other
    folder = room / "texts"
    folder.mkdir()
    write_batches([[tokens[row] for row in rows] for rows in batches], folder)
    each = given.texts / len(batches)
    compare("texts read", "texts", each, reader, (to_table(settings), str(folder)), len(batches), given.rounds)


def lists(given: argparse.Namespace, room: Path) -> None:
    import polars as pl

    from tastemaker.bundle.registry import Registry
    from tastemaker.cli._ray import lists as make
    from tastemaker.schema.settings_file import load_settings, to_table

    workspace = _served_world.write((given.folder or room) / f"{given.items:.0f}", int(given.items))
    size = 512
    users = [
        f"u{place % _served_world.USERS}" for place in range(given.users)
    ]  # a slice holds some of them twice, and makes their lists once
    told = room / "names.parquet"
    pl.DataFrame({"user_id": users}).write_parquet(told)
    folder, journal = Registry(workspace / "bundles").live(), workspace / "journal"
    settings = to_table(load_settings(workspace / "tastemaker.toml", [], {}))
    arguments = (str(folder), str(journal), settings, str(told), size, 20, "items", 1.7e9)
    compare("lists", "users", size, make, arguments, -(-given.users // size), given.rounds)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--texts", type=int, default=3_000)
    reader.add_argument("--users", type=int, default=20_000)
    reader.add_argument("--items", type=float, default=1e4)
    reader.add_argument("--rounds", type=int, default=2)
    reader.add_argument("--folder", type=Path)
    reader.add_argument("--only", choices=["texts", "lists"])
    given = reader.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from tastemaker.schema.cluster import prepare

    prepare("local")
    from tastemaker.data._ray import connect

    connect("local", 2)
    with tempfile.TemporaryDirectory() as room:
        for name, run in (("texts", texts), ("lists", lists)):
            if given.only in (None, name):
                run(given, Path(room))


if __name__ == "__main__":
    main()
