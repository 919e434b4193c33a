"""Do the gates let equal bundles pass and stop bad ones: trainings that differ in nothing but their seed, and eight kinds of planted bad bundles.

    python benchmarks/retraining.py [--trainings 20] [--users 400] [--retrainings-only] [--bad-only]

Every training is a real one, on a small log in which people mostly go round a ring of items; the last event of each user is held back, and the gates ask for it.
Limits: at most one of twenty equal bundles is refused, and all bad ones are. A training takes a quarter of a minute, a release two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cli"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ring import SETTINGS
from tastemaker.cli.app import call

ITEMS, STEPS, FAITHFUL = 60, 10, 0.7


def write_log(folder: Path, users: int) -> Path:
    """A workspace whose users go to the next item of a ring, or, with the chance 1 - FAITHFUL, anywhere; trained until nothing is gained, as equal bundles are
    not equal while they still learn.
    """
    random = np.random.default_rng(0)
    rows = []
    for user in range(users):
        item = int(random.integers(ITEMS))
        for step in range(STEPS):
            rows.append((f"u{user}", f"i{item}", 1.6e9 + 1_000 * step + user))
            item = (item + 1) % ITEMS if random.random() < FAITHFUL else int(random.integers(ITEMS))
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "events.csv")
    space = folder / "space"
    verb("init", str(space))
    (space / "tastemaker.toml").write_text(
        SETTINGS.replace("epochs = 3", "epochs = 12").replace("min_steps = 40", "min_steps = 200")
    )
    code, _, wrong = verb("import", str(space), "--events", str(folder / "events.csv"))
    if code:
        sys.exit(wrong)
    return space


def verb(*words: str) -> tuple[int, str, str]:
    """Exit code and what was printed, by each road."""
    told, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(wrong):
        code = call(list(words))
    return code, told.getvalue(), wrong.getvalue()


def retrainings(count: int, users: int) -> int:
    """Prints each release; gives how many equal bundles were refused."""
    refused, began = 0, time.process_time()
    print(f"| seed | NDCG@10 against the live bundle | let in |\n|{'---|' * 3}")
    with tempfile.TemporaryDirectory() as folder:
        space = write_log(Path(folder), users)
        for seed in range(count + 1):  # the first one becomes live
            code, told, wrong = verb("train", str(space), "--hold", str(users), "--set", f"train.seed={seed}", "--json")
            if code:
                sys.exit(wrong)
            if not seed:
                continue
            version = json.loads(told.splitlines()[-1])["version"]
            code, told, wrong = verb("release", str(space), version, "--check")
            refused += bool(code)
            quality = next((line for line in told.splitlines() if "quality" in line), wrong).split("changes by ")[-1]
            print(f"| {seed} | {quality} | {'no: ' + wrong.strip() if code else 'yes'} |", flush=True)
    print(
        f"{refused} of {count} equal bundles refused: ratio to the limit of one in twenty {refused / (count / 20):.2f}; "
        f"{time.process_time() - began:.0f} s of the processor"
    )
    return refused


def bad() -> int:
    """Prints what each kind of bad bundle was told; gives how many went through."""
    from test_release_gates import BAD, USERS

    from toy_bundle import candidate, write_later_workspace

    through = 0
    print(f"| bad bundle | stopped by |\n|{'---|' * 2}")
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "space"
        write_later_workspace(space, USERS)
        code = verb("release", str(space), candidate(space), "--check")[0]
        print(f"| (an equal one) | {'refused!' if code else 'let in'} |", flush=True)
        through += bool(code)
        for kind, (spoil, behind, _) in BAD.items():
            code, _, wrong = verb("release", str(space), candidate(space, spoil, behind), "--check")
            through += not code
            why = " ".join(wrong.split("was not released: ")[-1].split())
            print(f"| {kind} | {why[:140] if code else 'NOTHING'} |", flush=True)
    print(f"{len(BAD) - through} of {len(BAD)} kinds of bad bundles stopped (limit: all)")
    return through


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--retrainings-only", action="store_true")
    parser.add_argument("--bad-only", action="store_true")
    chosen = parser.parse_args()
    through = 0 if chosen.retrainings_only else bad()
    refused = 0 if chosen.bad_only else retrainings(chosen.trainings, chosen.users)
    sys.exit(1 if through or refused > max(chosen.trainings / 20, 1) else 0)


if __name__ == "__main__":
    main()
