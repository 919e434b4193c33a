"""Filtered against unfiltered retrieval on a synthetic catalogue, searched as a bundle of its size is: recall@100 of exact filtered search and the ratio of latencies.

    python benchmarks/filters.py [--items 10000 100000] [--queries 60]

Filters: 1 % of the items by chance, and 10 % that are the cluster of each asker's own taste, or one far from it (correlated: where graph and
inverted-file indexes collapse). Limits: recall .98, latency 2 times the unfiltered one. The filter itself is JSON, as in a request, and its answer is forgotten
before each question of `cold`. The last column is the filter asked row by row, as ratio to all of an unfiltered answer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tastemaker.index.channels import Channels, Decays
from tastemaker.index.neighbours import Neighbours
from tastemaker.pipeline.fields import Fields
from tastemaker.pipeline.filters import compile_filter
from tastemaker.schema.protocols import QueryState
from tastemaker.schema.settings import IndexSettings

DEPTH, RECALL_LIMIT, RATIO_LIMIT, CLUSTERS, DIM = 100, 0.98, 2.0, 10, 128


def world(n: int, random: np.random.Generator) -> tuple[Channels, list[dict[str, object]], list[QueryState]]:
    """Items in ten clusters, one a category, and askers who live in one of them."""
    centres = random.normal(size=(CLUSTERS, DIM))
    cluster = random.integers(CLUSTERS, size=n)
    vectors = centres[cluster] + 0.8 * random.normal(size=(n, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    near = np.stack([random.permutation(n)[:20] for _ in range(min(n, 2_000))])
    rows = np.repeat(np.arange(len(near)), near.shape[1])
    weights = sp.csr_matrix((random.random(rows.size).astype(np.float32), (rows, near.ravel())), shape=(n, n))
    counts = random.zipf(1.5, size=n).clip(max=1_000).astype(np.float32)
    pair = Neighbours(weights)
    channels = Channels(
        vectors, np.zeros(n, np.float32), vectors[:, :64].copy(), counts / counts.max(), counts, pair, pair, Decays()
    )
    fields: list[dict[str, object]] = [
        {"item_id": str(place), "categories": [f"c{one}"], "shelf": int(draw)}
        for place, (one, draw) in enumerate(zip(cluster.tolist(), random.integers(100, size=n).tolist(), strict=True))
    ]
    states = []
    for _ in range(64):
        own = int(random.integers(CLUSTERS))
        history = random.choice(np.flatnonzero(cluster == own), 50).astype(np.int32)
        user = vectors[history].mean(axis=0)
        states.append(QueryState(history, (4 * user / np.linalg.norm(user)).astype(np.float32), segment=str(own)))
    return channels, fields, states


def served(channels: Channels, states: list[QueryState]) -> Channels:
    """The same channels as a bundle has them: large ones with an approximate index."""
    with tempfile.TemporaryDirectory() as name:
        channels.save(Path(name), IndexSettings(), np.array([state.user_vector for state in states]))
        return Channels.load(Path(name))  # its files stay mapped


def measure(n: int, queries: int) -> None:
    exact, rows, states = world(n, np.random.default_rng(0))
    channels = served(exact, states)
    fields = Fields(rows)
    kinds = {
        "1 %": lambda own: {"field": "shelf", "eq": 7},
        "10 %, own cluster": lambda own: {"field": "categories", "any_of": [f"c{own}"]},
        "10 %, far cluster": lambda own: {"field": "categories", "any_of": [f"c{(own + 5) % CLUSTERS}"]},
    }
    for kind in kinds.values():
        fields.matching(kind(0))  # columns are made once
    plain: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in kinds}
    cold: dict[str, list[float]] = {name: [] for name in kinds}
    recall: dict[str, list[float]] = {name: [] for name in kinds}
    short = 0
    for number in range(queries):
        state = states[number % len(states)]
        began = time.perf_counter()
        channels.candidates([state], DEPTH, None)
        plain.append(time.perf_counter() - began)
        for name, kind in kinds.items():
            spec = kind(int(state.segment))
            for which, forget in ((times, False), (cold, True)):
                if forget:
                    fields.changed([number])
                began = time.perf_counter()
                found = channels.candidates([state], DEPTH, fields.matching(spec))[0]
                which[name].append(time.perf_counter() - began)
            test = compile_filter(spec)
            allowed = np.array([test(row) for row in rows]) if number < 3 else fields.matching(spec)
            assert (allowed == fields.matching(spec)).all()
            allowed = allowed.copy()
            allowed[state.history] = False
            scores = exact.items.rows(np.flatnonzero(allowed)) @ state.user_vector
            best = np.flatnonzero(allowed)[np.argsort(-scores, kind="stable")[:DEPTH]]
            recall[name].append(len(np.intersect1d(best, found.items)) / max(len(best), 1))
            short += len(found.items) < min(DEPTH, int(allowed.sum()))
    began = time.perf_counter()
    test = compile_filter({"field": "shelf", "eq": 7})
    by_row = sum(test(row) for row in rows) and time.perf_counter() - began
    base = float(np.median(plain))
    way = "an approximate index" if channels.items.approximate else "exact search"
    print(f"{n:,} items, {way}: unfiltered {1e3 * base:.2f} ms; row by row the filter alone takes {by_row / base:.1f} times that")
    for name in kinds:
        ratios = [float(np.median(which[name])) / base for which in (times, cold)]
        worst = min(recall[name])
        print(
            f"  {name:18} recall@{DEPTH} {np.mean(recall[name]):.3f} (worst {worst:.3f}), {worst / RECALL_LIMIT:.2f} of {RECALL_LIMIT};"
            f" latency {ratios[0]:.2f} (cold {ratios[1]:.2f}) times unfiltered, {max(ratios) / RATIO_LIMIT:.2f} of {RATIO_LIMIT:g}"
        )
    print(f"  lists with fewer candidates than there are: {short}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--queries", type=int, default=60)
    given = options.parse_args()
    for n in given.items:
        measure(n, given.queries)


if __name__ == "__main__":
    main()
