"""CPU of a list's candidates for askers with friends, and for newcomers of whose kind it is known what is popular with it, beside plain ones.

    python benchmarks/askers.py WORKSPACE [--beside SRC …] [--rounds 12] [--answers 48]

WORKSPACE is as of road.py: its item vectors and their index are taken, friends (30 each, who met 200 items each) and kinds of people (7 ages of 2
genders) are made up. SRC is a folder `src` of another version; versions are asked in turns, in processes of their own, and medians are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from _beside import OWN, Version

KINDS = ("plain", "with friends", "newcomer", "newcomer of a kind")
USERS, FRIENDS, MET, DEPTH = 2_000, 30, 200, 100


def work(workspace: Path) -> None:
    """Finds candidates as it is told on the standard input: of which kind of asker, and how many; tells CPU ms a list."""
    import msgspec
    import scipy.sparse as sp
    from threadpoolctl import threadpool_limits

    from tastemaker.bundle.registry import Registry
    from tastemaker.index.channels import Channels
    from tastemaker.index.companions import Companions
    from tastemaker.models.segments import Column, Segments, with_profile
    from tastemaker.schema.graph import Social
    from tastemaker.schema.protocols import QueryState

    threadpool_limits(1)
    folder, random = Registry(workspace / "bundles").live() / "channels", np.random.default_rng(0)
    plain, befriended = Channels.load(folder), Channels.load(folder)
    n = plain.n_items
    table = np.full(USERS * MET, 1 / np.sqrt(MET), np.float32), random.integers(0, n, USERS * MET), np.arange(USERS + 1) * MET
    friends = random.integers(0, USERS, USERS * FRIENDS).astype(np.int32)
    social = Social(
        [f"u{row}" for row in range(USERS)], USERS, np.arange(USERS + 1) * FRIENDS, friends, np.ones(len(friends), np.float32)
    )
    befriended.companions = Companions(social, sp.csr_matrix(table, (USERS, n)), np.zeros((USERS, 1), np.float32), 0.0)
    lifts = [sp.random(size, n, 0.05, format="csr", rng=random, dtype=np.float32) for size in (7, 2)]
    columns = [Column("age", 0.5, edges=[18.0, 25, 35, 45, 50, 56]), Column("gender", 0.5, values=["f", "m"])]
    segments = Segments(np.log(plain.popular + 0.01), columns, [np.zeros(7, np.float32), np.zeros(2, np.float32)], lifts)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = msgspec.json.decode(line)
        new, spent = kind.startswith("newcomer"), 0.0
        channels = befriended if kind == "with friends" else plain
        for _ in range(count):
            met = random.integers(0, n, 0 if new else MET).astype(np.int32)
            vector = None if new else 12 * plain.items.rows(met[:1])[0]
            told = {"age": int(random.integers(15, 60)), "gender": "fm"[random.integers(0, 2)]}
            state = QueryState(met, vector, user=int(random.integers(0, USERS)))
            began = time.process_time()
            if kind == "newcomer of a kind":
                state = with_profile(state, segments, told)
            channels.candidates([state], DEPTH)
            spent += time.process_time() - began
        print(1e3 * spent / count, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--beside", type=Path, nargs="*", default=[])
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--answers", type=int, default=48)
    options.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace, such as `serving.py --table --folder F` leaves in F/100000")
        return
    if given.work:
        work(given.workspace)
        return
    with ExitStack() as stack:
        sources = [OWN, *given.beside]
        versions = [stack.enter_context(Version(__file__, source, given.workspace)) for source in sources]
        turns = np.zeros((given.rounds, len(KINDS), len(versions)))
        for turn in range(-1, given.rounds):  # the first one warms
            for which in range(len(versions))[:: 1 - 2 * (turn % 2)]:
                for at, kind in enumerate(KINDS):
                    turns[turn, at, which] = versions[which].asked(f'["{kind}", {given.answers}]')
    ms = np.median(turns, axis=0)
    for at, kind in enumerate(KINDS):
        told = f"{kind}: {ms[at, 0]:.3f} ms of CPU, {ms[at, 0] / ms[at // 2 * 2, 0]:.2f} of {KINDS[at // 2 * 2]}"
        for which, source in enumerate(given.beside, 1):
            told += f"; {ms[at, 0] / ms[at, which]:.3f} of {source} (there {ms[at, which] / ms[at // 2 * 2, which]:.2f})"
        print(told, flush=True)


if __name__ == "__main__":
    main()
