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
from threadpoolctl import threadpool_limits

from tastemaker.cli.movielens import WHEEL, fetch_movielens
from tastemaker.data.dataset import Dataset
from tastemaker.journal.append import Journal
from tastemaker.pipeline.engine import Wish
from tastemaker.pipeline.explore import Explore, draw_of
from tastemaker.pipeline.rules import Rules, compile_pushes
from tastemaker.pipeline.select import pick
from tastemaker.schema.items import Item
from tastemaker.schema.rules import Cap, Shift
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


def frontier(asked: World) -> list[str]:
    """NDCG@10 beside unlikeness and categories, for both ways of variety."""
    from tastemaker.cli.strangers import variety

    live = asked.live
    kinds = [row.get("categories") or [] for row in live.state.rows]
    states = live.queries(asked.histories)
    found = variety(
        live.channels, live.road.fusion, states, [{int(target)} for target in asked.targets], kinds, live.settings.fusion.depth
    )
    plain = found["points"][0]
    lines = [f"## Relevance and variety ({found['questions']:,} questions, lists of {K})", ""]
    lines += ["| | diversity | NDCG@10 | of plain | unlikeness | of plain | genres in a list |", "|---|---|---|---|---|---|---|"]
    for point in found["points"]:
        ndcg, unlike = point["NDCG@10"], point["unlikeness"]
        lines.append(
            f"| {point['by']} | {point['strength']:g} | {ndcg:.4f} | {ndcg / plain['NDCG@10']:.2f} | {unlike:.3f} | "
            f"{unlike / plain['unlikeness']:.2f} | {point['categories']:.1f} |"
        )
    return [*lines, ""]


def arms(live: Live) -> Iterator[tuple[str, Rules, bool]]:
    """Rules to be timed: a name, the rules, whether the fresh slot is there."""
    caps, shift = (Cap(field="categories", count=3),), Shift(filter={"field": "categories", "any_of": ["Drama"]}, places=5)
    yield "by score alone", Rules(), False
    yield "fresh slot", Rules(), True
    yield "MMR", Rules(diversity=0.3), False
    yield "DPP", Rules(diversity=0.3, diversity_by="dpp"), False
    yield "cap of 3 a genre", Rules(caps=caps), False
    yield "near-duplicates and same titles", Rules(near_duplicates=0.9, same_title=True), False
    yield "a boost", Rules(pushes=compile_pushes([shift], [])), False
    whole = Rules(0.3, "dpp", {0: 3}, compile_pushes([shift], []), caps, 0.9, True)
    yield "all of it", whole, True


def latency(asked: World, rounds: int = 5) -> list[str]:
    """Milliseconds of CPU of one list of 10, candidates and scores included, and of the selection alone; arms in turn, so that a busy machine meets all."""
    live, fresh = asked.live, asked.live.state.fresh.now(time.time())
    states = live.queries(asked.histories[:100])
    found = live.channels.candidates(states, live.settings.fusion.depth)
    scores = [live.road.fusion.score(one, len(state.history)) for one, state in zip(found, states, strict=True)]
    named = list(arms(live))
    whole: dict[str, list[float]] = {name: [] for name, _, _ in named}
    alone: dict[str, list[float]] = {name: [] for name, _, _ in named}
    for _ in range(rounds):
        for name, rules, slot in named:
            for row, state in enumerate(states):
                explore = Explore(fresh, 0.1, 10.0, draw_of(f"{row}")) if slot else None
                wish = Wish(K, None, live.state.n_base, rules, explore)
                began = time.process_time()
                live.road.recommend(state, wish)
                middle = time.process_time()
                pick(found[row], scores[row], K, rules, explore, live.road.facts)
                whole[name].append(middle - began)
                alone[name].append(time.process_time() - middle)
    size = statistics.mean(len(one.items) for one in found)
    base = statistics.median(whole["by score alone"])
    lines = [f"## Time of a list of {K} ({size:.0f} candidates on average, CPU time, medians of {rounds * len(states)} calls)", ""]
    lines += ["| | selection, ms | whole road, ms | of the road by score alone |", "|---|---|---|---|"]
    for name, _, _ in named:
        mine, all_of_it = statistics.median(alone[name]), statistics.median(whole[name])
        lines.append(f"| {name} | {1000 * mine:.2f} | {1000 * all_of_it:.2f} | {all_of_it / base:.2f} |")
    return [*lines, ""]


def fresh_slot(asked: World) -> list[str]:
    """What the slot costs the list and how many new items gather evidence by it."""
    live, fresh = asked.live, asked.live.state.fresh.now(time.time())
    states, new = live.queries(asked.histories), asked.targets >= asked.live.state.n_base
    lines = [
        f"## The fresh slot ({len(states):,} lists of {K}; {len(fresh)} new items, of which {new.mean():.0%} of the targets)",
        "",
    ]
    lines += [
        "| places | temperature | NDCG@10 | known targets | new targets | new items shown | of them 5 times | smallest propensity |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for share, temperature in ((0.0, 0.0), (0.05, 10.0), (0.1, 0.0), (0.1, 1.0), (0.1, 3.0), (0.1, 10.0), (0.1, 1e9), (0.2, 10.0)):
        wishes = [
            Wish(K, None, live.state.n_base, Rules(), Explore(fresh, share, temperature, draw_of(f"{row} {share} {temperature}")))
            for row in range(len(states))
        ]
        found = live.road.recommend_many(states, wishes)
        place = np.array(
            [
                int(np.flatnonzero(one.items == target)[0]) if target in one.items else K
                for one, target in zip(found, asked.targets, strict=True)
            ]
        )
        gain = np.where(place < K, 1 / np.log2(place + 2.0), 0.0)
        shown = np.bincount(np.concatenate([one.items for one in found]), minlength=live.channels.n_items)[fresh]
        least = min(float(one.picked.propensity[one.picked.slot].min(initial=1.0)) for one in found if one.picked is not None)
        lines.append(
            f"| {share:g} | {temperature:g} | {gain.mean():.4f} | {gain[~new].mean():.4f} | {gain[new].mean():.4f} | "
            f"{(shown > 0).mean():.0%} | {(shown >= 5).mean():.0%} | {least:.3f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Fits where that was not done yet, measures, writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--movielens", type=Path, help="the wheel with MovieLens 100k; fetched if not given")
    reader.add_argument("--rows", type=int, default=1_000)
    reader.add_argument("--work", type=Path, default=ROOT / "runs" / "lists")
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "lists.md")
    reader.add_argument("--only", nargs="*", default=["frontier", "latency", "fresh"], choices=["frontier", "latency", "fresh"])
    given = reader.parse_args()
    asked = world(given.movielens or fetch_movielens().parent / WHEEL, given.work, given.rows)
    lines = ["# Lists", "", "Made by `python benchmarks/lists.py`; what is asked is described there.", ""]
    with threadpool_limits(1, "blas"):
        for name, part in (("frontier", frontier), ("latency", latency), ("fresh", fresh_slot)):
            if name in given.only:
                lines += part(asked)
    given.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
