"""Lists on MovieLens 100k: relevance beside variety for MMR and DPP, what rules cost in time, and what the fresh slot costs and gathers.

    python benchmarks/lists.py [--movielens recbole-1.2.1-py3-none-any.whl] [--rows 1000] [--work runs/lists]

One fit on the first 90 % of the events, in time, without a random tenth of the items: these come as new ones, by their titles alone, after the fit.
The questions are later events of users with at least five events before; whole catalogue, seen items left out. Writes benchmarks/lists.md.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from quality import movielens
from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.journal.append import Journal
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.serving.wire import Live

ROOT = Path(__file__).resolve().parents[1]
NEW_SHARE, EACH, K = 0.1, 20, 10


@dataclass(frozen=True)
class World:
    """A live bundle that was told of new items, and questions of later times."""

    live: Live
    histories: list[np.ndarray]
    targets: np.ndarray
    users: list[str]


def world(wheel: Path, work: Path, rows: int) -> World:
    """Fits once (kept in `work`), adds the new items, reads the questions."""
    events, items = movielens(wheel)
    cut = int(len(events) * 0.9)
    random = np.random.default_rng(0)
    names = sorted(items["item_id"].to_list())
    new = set(random.permutation(np.array(names, dtype=object))[: round(len(names) * NEW_SHARE)].tolist())
    folder = work / "space"
    if not (folder / "bundle").is_file():
        known = ~pl.col("item_id").is_in(list(new))
        fit_once(events[:cut].filter(known), items.filter(known), people(wheel), folder)
    journal = Journal.open(folder / "journal")
    told = items.filter(pl.col("item_id").is_in(list(new)))
    journal.put_items([Item(**row) for row in told.iter_rows(named=True)])
    live = Live(folder / "bundles" / (folder / "bundle").read_text(), journal)
    met: dict[str, list[int]] = {}
    asked: list[tuple[str, np.ndarray, int]] = []
    for place, (user, item) in enumerate(events.select("user_id", "item_id").iter_rows()):
        number = live.state.index_of.get(item)
        if number is None:
            continue
        history = met.setdefault(user, [])
        if place >= cut and len(history) >= 5 and number not in history:
            asked.append((user, np.array(history, dtype=np.int32), number))
        history.append(number)
    place = pl.DataFrame({"user": [user for user, _, _ in asked]}).select(last=pl.int_range(pl.len()).reverse().over("user") < EACH)
    kept = np.flatnonzero(place["last"])
    kept = np.sort(random.permutation(kept)[:rows])
    chosen = [asked[row] for row in kept.tolist()]
    return World(live, [h for _, h, _ in chosen], np.array([t for _, _, t in chosen]), [u for u, _, _ in chosen])


def people(wheel: Path) -> pl.DataFrame:
    """The users' table."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read("recbole/dataset_example/ml-100k/ml-100k.user")
    found = pl.read_csv(io.BytesIO(raw), separator="\t", quote_char=None, infer_schema=False)
    return found.rename({name: name.split(":")[0] for name in found.columns})


def fit_once(events: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame, folder: Path) -> None:
    """Learns with the default settings and writes a bundle."""
    from tastemaker.bundle.write import write_bundle
    from tastemaker.training.fit import fit

    folder.mkdir(parents=True, exist_ok=True)
    data = Dataset.read(events=events, items=items, users=users)
    brain = fit(data, Settings(), run_dir=folder / "run", cache_dir=folder / "cache", rows=False)
    version = write_bundle(folder / "bundles", brain.export, data=brain.fingerprint(), metrics=dict(brain.metrics))
    (folder / "bundle").write_text(version)
