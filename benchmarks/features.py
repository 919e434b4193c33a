"""How fast features are, of the past and of this moment.

    python benchmarks/features.py [--events 1000000]

Prints rows a second of a training table with twelve columns of counts, rates and recency, beside a single group-by over the same events with polars (how much
a look back costs), and then the time of one live event and of one request with 200 items for the default features.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl

from tastemaker.features.base import FeatureQuery
from tastemaker.features.feature_set import FeatureSet
from tastemaker.schema.events import Event
from tastemaker.schema.settings import Settings

DAY = 86_400.0
TWELVE = [
    "item_events", "item_events(window=1d)", "item_events(window=7d)", "item_faded(half_life=7d)", "item_faded(of=buy, half_life=7d)",
    "item_rate(of=buy, per=view)", "item_trend", "item_recency", "user_events", "user_faded(half_life=7d)", "user_recency",
]  # fmt: skip


def log(rows: int) -> pl.DataFrame:
    """Events of rows/20 users with 20,000 items, popular ones more often, over 90 days."""
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "event_id": rng.integers(0, 2**62, rows).astype(str),
            "user_id": rng.integers(0, max(rows // 20, 1), rows).astype(str),
            "item_id": ((rng.pareto(1.2, rows) * 50).astype(np.int64) % 20_000).astype(str),
            "timestamp": 1.7e9 + np.floor(rng.uniform(0, 90 * DAY, rows)),
            "event_type": rng.choice(np.array(["view", "cart", "buy"]), rows, p=[0.9, 0.07, 0.03]),
            "value": rng.uniform(1, 100, rows),
        }
    )


def catalogue() -> tuple[pl.DataFrame, np.ndarray]:
    """20,000 items with two of 200 categories each, a price and a text vector of 256 numbers."""
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 200, (20_000, 2)).astype(str)
    items = pl.DataFrame(
        {
            "item_id": np.arange(20_000).astype(str),
            "title": [f"Thing {place} of its sort" for place in range(20_000)],
            "categories": groups.tolist(),
            "price": rng.lognormal(3, 1, 20_000),
            "extra": [f'{{"brand": "b{brand}"}}' for brand in rng.integers(0, 500, 20_000)],
        }
    )
    return items, rng.standard_normal((20_000, 256)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    rows = parser.parse_args().events
    events = log(rows)
    queries = events.select("user_id", "item_id", "timestamp")
    begun = time.process_time()
    events.group_by("item_id").agg(pl.len(), pl.col("timestamp").max())
    plain = time.process_time() - begun
    begun, wall = time.process_time(), time.perf_counter()
    twelve = FeatureSet.declared(TWELVE)
    found = twelve.rows(events, queries)
    spent, waited = time.process_time() - begun, time.perf_counter() - wall
    print(f"{rows:,} rows x {found.shape[1]} columns: {spent:.2f} s of CPU ({waited:.2f} s): {rows / spent:,.0f} rows/s")
    print(f"  {spent / max(plain, 1e-9):.0f} times a group-by of the same events")

    items, vectors = catalogue()
    begun = time.process_time()
    usual = FeatureSet.declared(Settings().features.use, items, vectors)
    print(
        f"default features ({len(usual.names)} columns): catalogue of {items.height:,} read in {time.process_time() - begun:.2f} s of CPU"
    )
    some = queries.head(min(rows, 100_000))
    begun = time.process_time()
    usual.rows(events, some)
    print(f"  {some.height:,} rows over the whole log: {time.process_time() - begun:.2f} s of CPU")
    begun = time.process_time()
    state = usual.remember(events)
    print(f"  state of the whole log: {time.process_time() - begun:.2f} s of CPU")
    live(usual, state, events)


def live(usual: FeatureSet, state: object, events: pl.DataFrame) -> None:
    """Times single events and requests."""
    rng, now = np.random.default_rng(2), float(events["timestamp"].max())  # type: ignore[arg-type]
    users, items = events["user_id"].sample(300, seed=0).to_list(), events["item_id"].unique().sort().to_list()
    folds, gives = [], []
    for place, user in enumerate(users):
        item = items[int(rng.integers(len(items)))]
        event = Event(user_id=user, item_id=item, event_type="view", timestamp=now + place, event_id=f"live{place}", value=3.0)
        begun = time.process_time_ns()
        usual.update(state, event)  # type: ignore[arg-type]
        folds.append(time.process_time_ns() - begun)
        asked = [items[number] for number in rng.integers(0, len(items), 200).tolist()]
        query = FeatureQuery(user, asked, now + place + 0.5, {"device": "mobile"})
        begun = time.process_time_ns()
        usual.gives(state, query)  # type: ignore[arg-type]
        gives.append(time.process_time_ns() - begun)
    one, request = np.median(folds) / 1e6, np.median(gives) / 1e6
    print(
        f"  one live event {one:.3f} ms; 200 items {request:.3f} ms of CPU (medians of {len(users)}): {request / one:.1f} times an event"
    )


if __name__ == "__main__":
    main()
