"""Quality of the default settings on four protocols, beside the floors that must be beaten.

    python benchmarks/quality.py [--data ../shared/data] [--movielens recbole-1.2.1-py3-none-any.whl] [--seeds 3] [--only NAME …]

Full ranking over the whole catalogue, seen items left out. Each run is a process of its own, so that its time and peak memory are its own;
finished runs are kept in `--work` and not repeated. Writes benchmarks/quality.md.

    beauty        Amazon Beauty, the last event of each user (split-loo)
    beauty-cold   the same with a random tenth of the items taken out of training (split-cold)
    ml-100k       MovieLens 100k, the last event of each user
    ml-100k-time  MovieLens 100k, frozen at the time of 90 % of the events; all earlier events of a user are the history, those after the freeze
                  too. The targets are the last 20 later events of every user, where at least 5 events came before; also shown: the first 20,
                  and all of them
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.schema.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("beauty", "beauty-cold", "ml-100k", "ml-100k-time")
K, DEPTH, EACH = 10, 20, 20


@dataclass(frozen=True)
class Protocol:
    """What to learn from, and rows of (user, history, target); `others` are other choices of rows, with their names; when each row is asked (NaN where
    the log has no times), and all events."""

    data: Dataset
    users: list[str]
    histories: list[list[str]]
    targets: list[str]
    test: pl.DataFrame | None
    rows: np.ndarray
    others: dict[str, np.ndarray]
    times: np.ndarray
    log: pl.DataFrame


def movielens(wheel: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events in order of time, ties in the order of the file, and the catalogue."""
    with zipfile.ZipFile(wheel) as archive:

        def table(kind: str) -> pl.DataFrame:
            raw = archive.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}")
            found = pl.read_csv(io.BytesIO(raw), separator="\t", quote_char=None, infer_schema=False)
            return found.rename({name: name.split(":")[0] for name in found.columns})

        events = table("inter").with_columns(pl.col("rating", "timestamp").cast(pl.Float64)).sort("timestamp", maintain_order=True)
        items = table("item")
    title = pl.concat_str([pl.col("movie_title"), pl.lit(" ("), pl.col("release_year"), pl.lit(")")])
    items = items.select("item_id", title.alias("title"), pl.col("class").str.split(" ").alias("categories"))
    return events, items


def protocol(name: str, data: Path, wheel: Path) -> Protocol:
    """Reads one of the protocols."""
    if name.startswith("beauty"):
        folder = data / "amazon-beauty" / ("split-loo" if name == "beauty" else "split-cold")
        train, test = pl.read_parquet(folder / "train.parquet"), pl.read_parquet(folder / "test.parquet")
        items = pl.read_parquet(data / "amazon-beauty" / "items.parquet")
    else:
        events, items = movielens(wheel)
        events = events.with_row_index("row")
        if name == "ml-100k":
            last = events.group_by("user_id").agg(pl.col("row").max())["row"]
            train, test = events.filter(~pl.col("row").is_in(last.implode())), events.filter(pl.col("row").is_in(last.implode()))
        else:
            cut = int(len(events) * 0.9)
            train, test = events[:cut], events[cut:]
        train, test = train.drop("row"), test.drop("row")
    met: dict[str, list[str]] = {}
    for user, item in train.select("user_id", "item_id").iter_rows():
        met.setdefault(user, []).append(item)
    rolling = name == "ml-100k-time"
    users, histories, targets, times = [], [], [], []
    timed = test if "timestamp" in test.columns else test.with_columns(pl.lit(None, pl.Float64).alias("timestamp"))
    for user, item, time_ in timed.select("user_id", "item_id", "timestamp").iter_rows():
        history = met.setdefault(user, [])
        if not rolling or len(history) >= 5:
            users.append(user)
            histories.append(list(history))
            targets.append(item)
            times.append(time_ if time_ is not None else float("nan"))
        if rolling:
            history.append(item)
    whole, others = np.arange(len(users)), {}
    rows = whole
    if rolling:
        place = pl.DataFrame({"user": users}).select(
            first=pl.int_range(pl.len()).over("user") < EACH, last=pl.int_range(pl.len()).reverse().over("user") < EACH
        )
        rows, others = np.flatnonzero(place["last"]), {f"first {EACH}": np.flatnonzero(place["first"]), "all": whole}
    log = pl.concat([train, test.select([name for name in train.columns if name in test.columns])], how="diagonal_relaxed")
    data = Dataset.read(events=train, items=items)
    return Protocol(
        data, users, histories, targets, None if rolling else test, rows, others, np.array(times, dtype=np.float64), log
    )


def figures(lists: list[list[str]], targets: list[str], cold: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """HR@10 and NDCG@10 over the rows asked for and over those of them with cold targets."""
    place = np.array([found.index(target) if target in found else DEPTH for found, target in zip(lists, targets, strict=True)])[
        rows
    ]
    cold = cold[rows]
    hit = place < K
    gain = np.where(hit, 1 / np.log2(place + 2.0), 0.0)
    found = {"hr": float(hit.mean()), "ndcg": float(gain.mean()), "rows": len(rows)}
    if cold.any():
        found |= {"hr_cold": float(hit[cold].mean()), "ndcg_cold": float(gain[cold].mean()), "rows_cold": int(cold.sum())}
    return found


def one(name: str, seed: int, data: Path, wheel: Path, work: Path, settings: Settings) -> dict[str, Any]:
    """One fit and its figures; for seed 0 also the floors."""
    from tastemaker.training.fit import fit
    from tastemaker.training.ranked import Asked

    given = protocol(name, data, wheel)
    settings = msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, seed=seed))
    began = time.perf_counter()
    brain = fit(given.data, settings, progress=_progress(), run_dir=work / "runs" / f"{name}-{seed}", cache_dir=work / "cache")
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    number = {item: place for place, item in enumerate(brain.sequences.item_ids)}
    warm = {brain.sequences.item_ids[place] for place in np.flatnonzero(brain.sequences.counts())}
    cold = np.array([target not in warm for target in given.targets])
    histories = [np.array([number[item] for item in history], dtype=np.int32) for history in given.histories]
    began = time.perf_counter()
    names = brain.sequences.item_ids
    asked = Asked(given.users, given.times, given.log)
    lists = [[names[item] for item in items] for items, _ in brain.recommend(histories, DEPTH, asked=asked)]
    answer = time.perf_counter() - began
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout.strip()
    result = {
        "name": name,
        "seed": seed,
        "commit": commit or "unknown",
        "seconds": seconds,
        "peak_gib": peak,
        "answer_seconds": answer,
        "metrics": brain.metrics,
    }
    result["tastemaker"] = figures(lists, given.targets, cold, given.rows)
    result["others"] = {label: {"tastemaker": figures(lists, given.targets, cold, rows)} for label, rows in given.others.items()}
    if given.test is not None:
        result["score.py"] = independent(lists, given, brain.catalogue, data, work)
    if seed == 0:
        for floor, scores in floors(brain, histories):
            result[floor] = figures(scores(names), given.targets, cold, given.rows)
            for label, rows in given.others.items():
                result["others"][label][floor] = figures(scores(names), given.targets, cold, rows)
    return result


def floors(brain: Any, histories: list[np.ndarray]) -> list[tuple[str, Any]]:
    """The parts alone and ALS; each gives lists of item names."""
    from tastemaker.index.channels import CHANNELS
    from tastemaker.index.exact import top
    from tastemaker.training.fit import states_of

    states = states_of(brain.model, histories)
    labels = {"sequence": "transformer alone", "neighbours": "item-kNN, close in time", "together": "item-kNN, cosine"}
    labels |= {"text": "text-kNN", "popular": "recent popularity"}
    places = {label: [] for label in [*labels.values(), "popularity", "ALS"]}
    factors = als(brain.sequences)
    for begin in range(0, len(states), 256):
        part = states[begin : begin + 256]
        scores = {labels[name]: found for name, found in zip(CHANNELS, brain.channels.scores(part), strict=True) if name in labels}
        scores["popularity"] = np.repeat(brain.channels.counts[None], len(part), axis=0)
        scores["ALS"] = factors(part)
        for label, found in scores.items():
            for row, state in enumerate(part):
                found[row, state.history] = -np.inf
            places[label] += top(found, DEPTH).tolist()
    return [(label, lambda names, rows=rows: [[names[item] for item in row] for row in rows]) for label, rows in places.items()]


def als(sequences: Any) -> Any:
    """ALS of the `implicit` library (64 factors); users are folded in by their history."""
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, sequences.items)), shape=(sequences.n_users, sequences.n_items))
    model = AlternatingLeastSquares(factors=64, regularization=0.05, alpha=2.0, iterations=15, random_state=0, num_threads=1)
    model.fit(met, show_progress=False)

    def scores(states: list[Any]) -> np.ndarray:
        lengths = [len(state.history) for state in states]
        rows = np.repeat(np.arange(len(states)), lengths)
        items = np.concatenate([state.history for state in states])
        given = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, items)), shape=(len(states), sequences.n_items))
        return np.asarray(model.recalculate_user(np.arange(len(states)), given) @ model.item_factors.T, dtype=np.float32)

    return scores


def independent(lists: list[list[str]], given: Protocol, catalogue: pl.DataFrame, data: Path, work: Path) -> dict[str, Any] | None:
    """The same lists judged by ../shared/tools/score.py, which shares no line with this project."""
    scorer = data.parent / "tools" / "score.py"
    if not scorer.is_file() or given.test is None:
        return None
    folder = work / "lists"
    folder.mkdir(parents=True, exist_ok=True)
    flat = [(user, item, rank + 1) for user, found in zip(given.users, lists, strict=True) for rank, item in enumerate(found)]
    pl.DataFrame(flat, schema=["user_id", "item_id", "rank"], orient="row").write_parquet(folder / "recs.parquet")
    given.test.write_parquet(folder / "test.parquet")
    catalogue.select("item_id").write_parquet(folder / "items.parquet")
    given.data.events.select("user_id", "item_id").write_parquet(folder / "train.parquet")
    files = [str(folder / f"{name}.parquet") for name in ("recs", "test", "items")]
    done = subprocess.run(
        [sys.executable, str(scorer), *files, "--train", str(folder / "train.parquet")], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _progress() -> Any:
    last = {"what": "", "at": 0.0}

    def tell(what: str, done: int, total: int) -> None:
        if what != last["what"] or time.perf_counter() - last["at"] > 15:
            last.update(what=what, at=time.perf_counter())
            print(f"    {what} {done}/{total}", file=sys.stderr, flush=True)

    return tell


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [
        "# Quality of the default settings",
        "",
        "Made by `python benchmarks/quality.py`; the protocols are described there.",
        "",
    ]
    lines += ["One configuration for all rows. Mean ± standard deviation over seeds; floors have one seed. HR@10 / NDCG@10.", ""]
    for name in NAMES:
        runs = sorted((run for run in results if run["name"] == name), key=lambda run: run["seed"])
        if not runs:
            continue
        skip = {"name", "seed", "commit", "seconds", "peak_gib", "answer_seconds", "metrics", "score.py", "others"}
        lines += _rows(name, [{label: run[label] for label in run if label not in skip} for run in runs])
        for other in runs[0]["others"]:
            lines += ["", *_rows(f"{name}, {other}", [run["others"][other] for run in runs])]
        whole = ", ".join(f"{run['seconds']:.0f}" for run in runs)
        lines += [
            "",
            f"Training, seconds: {whole}; parts of seed 0: {_parts(runs[0]['metrics'])}. Peak memory {max(run['peak_gib'] for run in runs):.2f} GiB.",
        ]
        lines.append(f"Code of each seed: {', '.join(run['commit'] for run in runs)}.")
        lines.append(f"Answering all rows: {runs[0]['answer_seconds']:.0f} s.")
        if runs[0].get("score.py"):
            lines.append(f"Independent scorer, seed 0: `{json.dumps(runs[0]['score.py'])}`")
        lines.append("")
    return "\n".join(lines)


def _rows(name: str, runs: list[dict[str, dict[str, float]]]) -> list[str]:
    """One table: ours over all seeds, the floors of the first."""
    keys = ("hr", "ndcg", "ndcg_cold")
    lines = [f"## {name} ({runs[0]['tastemaker']['rows']:,} rows, {len(runs)} seeds)", ""]
    lines += ["| | HR@10 | NDCG@10 | cold NDCG@10 |", "|---|---|---|---|"]
    for label in runs[0]:
        cells = [_spread([run[label][key] for run in runs if key in run.get(label, {})]) for key in keys]
        lines.append(f"| {'**tastemaker**' if label == 'tastemaker' else label} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def _parts(metrics: dict[str, Any]) -> str:
    named = [f"{name.removeprefix('seconds_')} {value:.0f}" for name, value in metrics.items() if name.startswith("seconds_")]
    return ", ".join([*named, f"{metrics['epochs']} epochs"])


def main() -> None:
    """Runs what is missing and writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--seeds", type=int, default=3)
    reader.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "quality")
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "quality.md")
    reader.add_argument("--one", help=argparse.SUPPRESS)
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE, to try other settings")
    asked = reader.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.movielens = asked.movielens or fetch_movielens().parent / WHEEL
    if asked.one:
        from tastemaker.schema.settings_file import load_settings

        name, seed = asked.one.rsplit(":", 1)
        result = one(name, int(seed), asked.data, asked.movielens, asked.work, load_settings(None, asked.set, {}))
        (asked.work / f"{name}-{seed}.json").write_text(json.dumps(result, indent=1))
        return
    for seed in range(asked.seeds):
        for name in asked.only:
            if not (asked.work / f"{name}-{seed}.json").is_file():
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                again = [sys.executable, __file__, *sys.argv[1:], "--one", f"{name}:{seed}"]
                subprocess.run(again, check=True)
    results = [json.loads(path.read_text()) for path in sorted(asked.work.glob("*.json"))]
    asked.out.write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
