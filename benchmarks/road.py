"""CPU of an answer in this machine's hands, in process: alone and several together; with other versions of the source or other workspaces asked in turns, as ratios.

    python benchmarks/road.py WORKSPACE [--beside SRC …] [--workspaces W …] [--together 1 16] [--exclude 0 30] [--rounds 30] [--answers 64]

WORKSPACE has a live bundle whose users are u0 to u399, such as `serving.py --table --folder F` leaves in F. SRC is a folder `src` of another version, W another
workspace, answered by this version. Cores that are shared with other work make single
figures worth little: versions are asked some answers each, in turns, in processes of their own, and medians are compared. Limit: .9 ms of CPU a request with HTTP and the clients.
With `--exclude` each request leaves out so many items of its own, and ratios to requests that leave out the first number are printed too.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import numpy as np
from _beside import OWN, Version

LIMIT_MS = 0.9
USERS = 400


def work(workspace: Path) -> None:
    """Answers as it is told on the standard input: how many together, how many in all and how many items each excludes; tells CPU ms an answer."""
    import msgspec
    from threadpoolctl import threadpool_limits

    from tastemaker.journal.append import Journal
    from tastemaker.schema.queries import RecommendQuery
    from tastemaker.schema.settings import ServingSettings, Settings
    from tastemaker.serving.answers import Answers
    from tastemaker.serving.wire import open_live

    threadpool_limits(1)
    serving = msgspec.structs.replace(ServingSettings(), deadline_ms=0.0)  # all of it in this thread
    journal = Journal.open(workspace / "journal")
    live = open_live(workspace / "bundles", journal, service=msgspec.structs.replace(Settings(), serving=serving))
    answers, encode = Answers(live, journal, serving), msgspec.json.Encoder().encode
    print("ready", flush=True)
    at, random, ids = 0, np.random.default_rng(0), live.state.rows
    for line in sys.stdin:
        together, count, excluded = map(int, line.split())
        turns = max(count // together, 1)
        places = random.integers(0, live.channels.n_items, (turns * together, excluded)).tolist()
        away = iter([[ids[place]["item_id"] for place in some] for some in places])
        began = time.process_time()
        for _ in range(turns):
            asked = [RecommendQuery(user_id=f"u{(at + place) % USERS}", k=10, exclude=next(away)) for place in range(together)]
            for answer in answers.recommend_many(asked):
                encode(answer)
            at += together
        print(1e3 * (time.process_time() - began) / (turns * together), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--beside", type=Path, nargs="*", default=[])
    options.add_argument("--workspaces", type=Path, nargs="*", default=[], help="others, asked in turns")
    options.add_argument("--together", type=int, nargs="*", default=[1, 16])
    options.add_argument("--exclude", type=int, nargs="*", default=[0])
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--answers", type=int, default=64)
    options.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace, such as `serving.py --table --folder F` leaves in F/100000")
        return
    if given.work:
        work(given.workspace)
        return
    pairs = [
        (OWN, given.workspace),
        *((source, given.workspace) for source in given.beside),
        *((OWN, other) for other in given.workspaces),
    ]
    with ExitStack() as stack:
        versions = [stack.enter_context(Version(__file__, *pair)) for pair in pairs]
        for together in given.together:
            for version in versions:
                version.asked(f"{together} {USERS} {given.exclude[-1]}")  # warms
            turns = np.zeros((given.rounds, len(given.exclude), len(versions)))
            kinds = list(np.ndindex(*turns.shape[1:]))
            for turn, mixed in zip(turns, cycle((kinds, kinds[::-1])), strict=False):  # who comes first finds colder caches
                for excluded, which in mixed:
                    turn[excluded, which] = versions[which].asked(f"{together} {given.answers} {given.exclude[excluded]}")
            median = np.median(turns, axis=0)
            for excluded, ms, first in zip(given.exclude, median, [median[0]] * len(median), strict=True):
                told = f"{together:3} together, {excluded} excluded: {ms[0]:.3f} ms of CPU a list, {ms[0] / LIMIT_MS:.2f} of {LIMIT_MS}"
                told += f", {ms[0] / first[0]:.3f} of {given.exclude[0]} excluded" if len(median) > 1 else ""
                for source, other, plain in zip([*given.beside, *given.workspaces], ms[1:], first[1:], strict=True):
                    told += f"; {ms[0] / other:.3f} of {source}"
                    told += f" (there {other / plain:.3f} of {given.exclude[0]} excluded)" if len(median) > 1 else ""
                print(told, flush=True)


if __name__ == "__main__":
    main()
