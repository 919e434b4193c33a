"""Whom might a user know? Held-out friendships of Last.fm (HetRec 2011) against common neighbours and Adamic-Adar as networkx computes them.

    python benchmarks/friends.py [--data ../shared/data] [--seeds 3] [--items] [--set SECTION.KEY=VALUE …] [--out benchmarks/friends.md]

A fifth of the 12,717 friendships, drawn by the seed, is hidden; for each user with a hidden one all other users but existing friends are ranked.
recall@20 is the mean over these users of the share of their hidden friends among the first 20; ties go to the user who comes first in the data, for
all alike. Intervals are bootstraps over users, all seeds together; differences are paired. `taste alone` shows what somebody without any friend gets.

New users: for a fifth of the users, as if nothing but their friends were known, the channel `friends` alone against popularity; NDCG@10 over what they listen to.

With `--items`: do friends help to find items? The whole recommender with and without the edges, a random fifth of each user's artists hidden (the log has
no times: its order is shuffled), and for a tenth of the users all of them, as if they were new and only their friends known. NDCG@10.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msgspec
import networkx
import numpy as np
import polars as pl
from quality import ROOT
from sampling import _tell

from tastemaker.data.dataset import Dataset
from tastemaker.data.graph import build_graphs
from tastemaker.data.sequences import build
from tastemaker.evaluation.significance import interval, paired
from tastemaker.index.companions import Companions
from tastemaker.index.friends import Person
from tastemaker.schema.graph import Social
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.companions import met_of
from tastemaker.training.friends import learn_friends, pairs_of, social_of

K, HIDDEN = 20, 0.2
OURS = "Tastemaker"


def read(data: Path, seed: int) -> Dataset:
    """The log, whose order means nothing, shuffled; and the friendships."""
    folder = data / "lastfm-hetrec2011"
    events = (
        pl.read_parquet(folder / "events.parquet")
        .with_columns(pl.col("timestamp").cast(pl.Float64))
        .sample(fraction=1.0, shuffle=True, seed=seed)
    )
    return Dataset(events, pl.DataFrame(), edges=pl.read_parquet(folder / "edges.parquet"))


def recall(order: list[int], wanted: set[int]) -> float:
    """Share of the wanted among the first 20."""
    return len(wanted & set(order[:K])) / len(wanted)


def networkx_order(graph: networkx.Graph, user: int, index: object) -> list[int]:
    """Users who are no friends yet by networkx's score, best first."""
    near = {other for friend in graph[user] for other in graph[friend]} - {user, *graph[user]}
    scores = {other: score for _, other, score in index(graph, [(user, other) for other in sorted(near)])}  # type: ignore[operator]
    return sorted(scores, key=lambda other: (-scores[other], other))


def common_neighbours(graph: networkx.Graph, pairs: list[tuple[int, int]]) -> list[tuple[int, int, float]]:
    """In the form of networkx's indices."""
    return [(one, other, float(len(list(networkx.common_neighbors(graph, one, other))))) for one, other in pairs]


def split_friends(social: Social, seed: int) -> tuple[Social, dict[int, set[int]]]:
    """The friendships to learn from, and the hidden ones by user."""
    low, high, weights = pairs_of(social)
    hidden = np.random.default_rng(1_000 + seed).random(len(low)) < HIDDEN
    truth: dict[int, set[int]] = {}
    for one, other in zip(low[hidden].tolist(), high[hidden].tolist(), strict=True):
        truth.setdefault(one, set()).add(other)
        truth.setdefault(other, set()).add(one)
    return social_of(social, low[~hidden], high[~hidden], weights[~hidden]), truth


def judge(data: Path, seed: int, settings: Settings) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """recall@20 of each user by each way, which users, and the seconds that learning took."""
    dataset = read(data, seed)
    sequences = build(dataset)
    social = build_graphs(dataset.edges, sequences.item_ids, sequences.user_ids, settings.graph.most_edges).social
    assert social is not None
    train, truth = split_friends(social, seed)
    settings = msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, seed=seed))
    began = time.perf_counter()
    learned = learn_friends(train, sequences, settings)
    seconds = time.perf_counter() - began
    friends, depth = learned.friends, settings.fusion.depth
    graph = networkx.Graph(list(zip(*(part.tolist() for part in pairs_of(train)[:2]), strict=True)))
    graph.add_nodes_from(range(train.n_users))
    found: dict[str, list[float]] = {name: [] for name in (OURS, "taste alone", "Adamic-Adar", "common neighbours")}
    for user, wanted in truth.items():
        own = friends.friends(user)
        person = Person(user, friends.tastes[user])
        stranger = Person(-1, friends.tastes[user], np.array([user, *own], dtype=np.int32))
        for name, asker, known in ((OURS, person, len(own)), ("taste alone", stranger, 0)):
            candidates = friends.candidates(asker, depth)
            order = candidates.items[np.argsort(-learned.fusion.score(candidates, known), kind="stable")]
            found[name].append(recall(order.tolist(), wanted))
        found["Adamic-Adar"].append(recall(networkx_order(graph, user, networkx.adamic_adar_index), wanted))
        found["common neighbours"].append(recall(networkx_order(graph, user, common_neighbours), wanted))
    return {name: np.array(values) for name, values in found.items()}, np.array(list(truth)), seconds


def people(asked: argparse.Namespace, settings: Settings) -> list[str]:
    """The table of friend recommendation."""
    runs = [judge(asked.data, seed, settings) for seed in range(asked.seeds)]
    users = np.concatenate([users for _, users, _ in runs])
    lines = [f"## Friends: recall@{K}, {asked.seeds} splits, {len(users):,} lists, Last.fm", ""]
    lines += ["| | recall@20 (95 %) | Tastemaker is | difference (95 %) |", "|---|---|---|---|"]
    ours = np.concatenate([found[OURS] for found, _, _ in runs])
    for name in runs[0][0]:
        mine = np.concatenate([found[name] for found, _, _ in runs])
        mean = interval(mine, groups=users)
        gap, chance = paired(ours, mine, groups=users)
        against = (
            f"{ours.mean() / mine.mean():.2f} times | {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {chance:.3f}"
            if name != OURS
            else "– | –"
        )
        lines.append(f"| {name} | {mean.mean:.4f} ({mean.low:.4f} to {mean.high:.4f}) | {against} |")
    return [*lines, "", f"Learning took {', '.join(f'{seconds:.1f}' for _, _, seconds in runs)} s."]


def newcomers(asked: argparse.Namespace, settings: Settings) -> list[str]:
    """The table of users of whom only the friends are known."""
    found: dict[str, list[float]] = {"popularity": [], "what friends met": []}
    users = []
    for seed in range(asked.seeds):
        dataset = read(asked.data, seed)
        sequences = build(dataset)
        social = build_graphs(dataset.edges, sequences.item_ids, sequences.user_ids, settings.graph.most_edges).social
        assert social is not None
        fresh = np.random.default_rng(seed).random(sequences.n_users) < HIDDEN
        kept = sequences.keep(~np.repeat(fresh, sequences.lengths()))
        asked_for = np.flatnonzero(fresh & (np.diff(social.offsets)[: sequences.n_users] > 0)).astype(np.int32)
        companions = Companions(social, met_of(kept), np.zeros((sequences.n_users, 1), np.float32), 0.0)
        popular = np.argsort(-kept.counts(), kind="stable")[:10].tolist()
        for user, scores in zip(asked_for.tolist(), companions.scores(asked_for, sequences.n_items), strict=True):
            wanted = {str(item) for item in sequences.history(user)}
            found["popularity"].append(_ndcg(list(map(str, popular)), wanted))
            found["what friends met"].append(_ndcg(list(map(str, np.argsort(-scores, kind="stable")[:10].tolist())), wanted))
            users.append(user)
    one, two = np.array(found["popularity"]), np.array(found["what friends met"])
    gap, chance = paired(two, one, groups=np.array(users))
    return [
        "",
        f"## New users with friends: NDCG@10, {asked.seeds} draws, {len(users):,} users, Last.fm",
        "",
        f"Popularity {one.mean():.4f}, what friends met {two.mean():.4f}: {two.mean() / one.mean():.2f} times, {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {chance:.3f}.",
    ]


def items(asked: argparse.Namespace, settings: Settings) -> list[str]:
    """The table of what friends are worth for items."""
    from tastemaker.training.fit import fit

    gains: dict[str, dict[str, np.ndarray]] = {}
    for arm in ("without friends", "with friends"):
        dataset = read(asked.data, 0)
        random = np.random.default_rng(0)
        names = dataset.events["user_id"].unique().sort()
        new = set(names.to_numpy()[random.permutation(len(names))[: len(names) // 10]].tolist())
        fresh = dataset.events["user_id"].is_in(pl.Series(list(new)).implode()).to_numpy()
        hidden = fresh | (random.random(dataset.events.height) < 0.2)
        test = dataset.events.filter(pl.Series(hidden))
        train = dataset.with_events(dataset.events.filter(pl.Series(~hidden)))
        if arm == "without friends":
            train = Dataset(train.events, train.items)
        brain = fit(train, settings, _tell, rows=False)
        number = {item: place for place, item in enumerate(brain.sequences.item_ids)}
        row = {user: place for place, user in enumerate(brain.sequences.user_ids)}
        wanted = {str(user): set(group["item_id"]) for (user,), group in test.group_by("user_id", maintain_order=True)}
        none = np.zeros(0, dtype=np.int32)
        histories = [brain.sequences.history(row[user]) if user in row else none for user in wanted]
        lists = brain.recommend(histories, 10, users=list(wanted))
        back = list(number)
        found = [_ndcg([back[item] for item in items], wanted[user]) for user, (items, _) in zip(wanted, lists, strict=True)]
        told = np.array([user in new for user in wanted])
        gains[arm] = {"users with a history": np.array(found)[~told], "new users": np.array(found)[told]}
        print(arm, {key: value for key, value in brain.metrics.items() if key in ("smoothing", "seconds")}, flush=True)
    lines = ["", f"## Items: NDCG@10 with and without friends, Last.fm, one split, {' '.join(asked.set) or 'default settings'}", ""]
    lines += ["| | users | without friends | with friends | times | difference (95 %) |", "|---|---|---|---|---|---|"]
    for part in gains["with friends"]:
        one, two = gains["without friends"][part], gains["with friends"][part]
        gap, chance = paired(two, one)
        lines.append(
            f"| {part} | {len(one):,} | {one.mean():.4f} | {two.mean():.4f} | {two.mean() / max(one.mean(), 1e-9):.2f} | "
            f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}), p {chance:.3f} |"
        )
    return lines


def _ndcg(order: list[str], wanted: set[str]) -> float:
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order) if item in wanted)
    return float(gain / sum(1 / np.log2(place + 2) for place in range(min(len(wanted), 10))))


def main() -> None:
    """Runs and writes the page."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    reader.add_argument("--seeds", type=int, default=3)
    reader.add_argument("--items", action="store_true", help="items with and without friends, too")
    reader.add_argument("--set", nargs="*", default=[], help="SECTION.KEY=VALUE")
    reader.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "friends.md")
    asked = reader.parse_args()
    settings = load_settings(None, asked.set, {})
    lines = [
        "# What friendships are worth",
        "",
        "Made by `python benchmarks/friends.py`; protocols and intervals are described there.",
        "",
    ]
    lines += people(asked, settings) if asked.seeds else []
    lines += newcomers(asked, settings) if asked.seeds else []
    lines += items(asked, settings) if asked.items else []
    asked.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
