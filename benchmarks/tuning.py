"""What a search gains over the defaults, on events that the search never saw.

    python benchmarks/tuning.py [--data news|visits|movielens-small|movielens-100k] [--users 5000] [--trials 12] [--seconds 1500] [--set a.b=c …]

The last tenth of the events in time is put aside; of news, which have no times, a third of each reader's clicks, drawn by the seed. On the events before it `tastemaker.tuning` searches; then the defaults and the chosen settings are both
fitted as `tastemaker train` fits them, and both are asked once for the events put aside, with all that a user did before each. Prints the table
of trials and one JSON object: NDCG@10 of both, the paired gain with its 95 % bootstrap interval over users, and whether the cheaper objectives
of a fold rank the trials as the one in use does. A search that was cut off goes on.

    news              titles of news and who clicked them (bing); nine of ten were clicked once. Searched is how the language model learns, on two folds
    visits            yoochoose, a week of anonymous visits with real times (a random sample of the visits); no texts
    movielens-small   MovieLens latest small
    movielens-100k    MovieLens 100k, from the wheel that the demo fetches
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from encoder import world as parted

from tastemaker.data.dataset import Dataset
from tastemaker.data.questions import questions
from tastemaker.data.split import global_time
from tastemaker.evaluation.significance import interval, paired
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings, to_table
from tastemaker.training.fit import fit
from tastemaker.tuning.answer import gains_of
from tastemaker.tuning.choice import choose
from tastemaker.tuning.objective import make_objective
from tastemaker.tuning.space import space_of, with_changes
from tastemaker.tuning.trials import COMPLETE

ROOT = Path(__file__).resolve().parents[1]
NEWS = (
    "tune.folds=2",
    'tune.space={"finetune.mode": "frozen|head|last", "finetune.steps": "40..160 log", "finetune.learning_rate": "5e-5..1e-3 log"}',
    "finetune.chunk=1024",
)


def read(name: str, users: int, data: Path) -> Dataset:
    """The data set, its catalogue holding every item of the log."""
    if name == "visits":
        events = pl.read_parquet(data / "yoochoose-sample" / "events.parquet")
        ids = events["user_id"].unique().sort()
        if users < ids.len():
            events = events.filter(pl.col("user_id").is_in(ids.sample(users, seed=0).implode()))
        found = Dataset.read(events=events)
    elif name == "movielens-100k":
        from tastemaker.cli.movielens import fetch_movielens

        folder = fetch_movielens()
        found = Dataset.read(events=folder / "ml-100k.inter", items=folder / "ml-100k.item")
    else:
        with zipfile.ZipFile(data / "movielens-latest-small" / "ml-latest-small.zip") as archive:
            tables = {
                kind: pl.read_csv(archive.read(f"ml-latest-small/{kind}.csv"), infer_schema=False) for kind in ("ratings", "movies")
            }
        found = Dataset.read(events=tables["ratings"], items=tables["movies"])
    return replace(found, items=found.catalogue(), log=None)


@dataclass(frozen=True)
class World:
    """What the search and both fits learn from, and what is asked of them at the end: users, histories and targets by their ids."""

    train: Dataset
    users: list[str]
    histories: list[list[str]]
    targets: list[str]


def world(asked: argparse.Namespace, settings: Settings) -> World:
    """The data set, parted."""
    if asked.data == "news":
        return World(*parted("bing", settings.train.seed, asked.folder, Path()))
    whole = read(asked.data, asked.users, asked.folder)
    part = global_time(whole, 0.1)
    late = questions(part, whole, whole.item_ids(), settings.evaluation.max_users, settings.train.seed)
    names = np.array(whole.item_ids(), dtype=object)
    return World(part.train, late.users, [names[history].tolist() for history in late.histories], late.targets["item_id"].to_list())


def answered(given: World, settings: Settings, cache: Path) -> FloatArray:
    """NDCG@10 at each event put aside, of a whole fit on the others."""
    brain = fit(given.train, settings, None, None, cache, rows=False)
    place = {item: number for number, item in enumerate(brain.sequences.item_ids)}
    histories = [np.array([place[item] for item in history], dtype=np.int32) for history in given.histories]
    targets = np.array([place[item] for item in given.targets], dtype=np.int32)
    return gains_of([items for items, _ in brain.recommend(histories, 10)], targets)


def searched(train: Dataset, settings: Settings, work: Path, cache: Path) -> tuple[Settings, dict[str, Any]]:
    """The chosen settings and what the search says of itself."""
    from tastemaker.tuning._optuna import Search
    from tastemaker.tuning.workers import Here

    began = time.perf_counter()
    objective = make_objective(train, settings, cache)
    search = Search(work, settings, space_of(settings), objective.folds, train.fingerprint())
    search.run(
        Here(objective), settings.tune.trials, settings.tune.time_budget, lambda *told: print(*told, file=sys.stderr, flush=True)
    )
    trials = search.trials()
    choice = choose(trials, objective.folds, settings.tune)
    for trial in trials:
        means = " ".join(f"{one.mean():.4f}" for one in trial.gains)
        told = " ".join(
            f"{name} {trial.facts[0][name]:.4f}" for name in ("sequence", "fused") if trial.facts and name in trial.facts[0]
        )
        print(
            f"{trial.number:3d} {trial.state:8s} {trial.quality:.4f} [{means}] ({told}) {trial.size:,.0f} {trial.seconds:.0f} s {trial.changes}"
        )
    done = [trial for trial in trials if trial.state == COMPLETE]
    first = [(trial.facts[0], float(trial.gains[0].mean())) for trial in trials if trial.gains]
    cheaper = {
        name: _spearman([facts[name] for facts, _ in first], [quality for _, quality in first])
        for name in ("sequence", "fused")
        if all(name in facts for facts, _ in first)
    }
    facts = {
        "trials": len(trials),
        "complete": len(done),
        "search_s": time.perf_counter() - began,
        "why": choice.words,
        "gain_on_folds": [choice.gain.mean, choice.gain.low, choice.gain.high],
        "importances": search.importances(),
        "rank correlation of cheaper objectives, first fold": cheaper,
    }
    return with_changes(settings, choice.chosen.changes), facts


def _spearman(one: list[float], other: list[float]) -> float | None:
    if len(one) < 3:
        return None
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def main() -> None:
    """Searches, fits both, prints."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", choices=("news", "visits", "movielens-small", "movielens-100k"), default="news")
    reader.add_argument("--folder", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--users", type=int, default=5_000)
    reader.add_argument("--trials", type=int, default=12)
    reader.add_argument("--seconds", type=float, default=1_500.0)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "tuning")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE for all fits")
    asked = reader.parse_args()
    limits = [f"tune.trials={asked.trials}", f"tune.time_budget={asked.seconds}"]
    settings = load_settings(None, [*limits, *(NEWS if asked.data == "news" else ()), *asked.set], {})
    given = world(asked, settings)
    work, cache = asked.work / f"{asked.data}-{asked.users}", asked.work / "cache"
    began = time.perf_counter()
    chosen, facts = searched(given.train, settings, work, cache)
    before, after = (answered(given, one, cache) for one in (settings, chosen))
    facts["whole_s"] = time.perf_counter() - began
    groups = np.unique(np.array(given.users), return_inverse=True)[1].astype(np.int64)
    gap, p = paired(after.astype(np.float64), before.astype(np.float64), 2_000, 0, groups)
    changed = {
        f"{section}.{key}": value
        for section, keys in to_table(chosen).items()
        for key, value in keys.items()
        if value != to_table(settings)[section][key]
    }
    result = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "data": asked.data,
        "events": given.train.events.height,
        "questions": len(given.users),
        "cores": len(os.sched_getaffinity(0)),
        **facts,
        "chosen": changed,
        "defaults_ndcg": interval(before.astype(np.float64), 1_000, 0, groups).mean,
        "chosen_ndcg": interval(after.astype(np.float64), 1_000, 0, groups).mean,
        "gain": [gap.mean, gap.low, gap.high],
        "p": p,
        "times": float(after.mean() / before.mean()),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
