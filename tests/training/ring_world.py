"""A toy world with an obvious answer."""

from __future__ import annotations

import numpy as np
import polars as pl

from tastemaker.data.dataset import Dataset

ITEMS = 40
COLORS = ("red", "green", "blue", "black")


def ring(users: int = 240, seed: int = 0, skip: tuple[int, ...] = ()) -> Dataset:
    """People walk round a ring of items: after item i comes item i + 1. Ten neighbours share a colour in their titles."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        start, length = int(random.integers(ITEMS)), int(random.integers(4, 10))
        rows += [(f"u{user}", f"i{(start + step) % ITEMS}", 1_600_000_000.0 + 1_000 * user + step) for step in range(length)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events = events.filter(~pl.col("item_id").is_in([f"i{number}" for number in skip]))
    titles = [f"{COLORS[number * len(COLORS) // ITEMS]} thing w{number}" for number in range(ITEMS)]
    items = pl.DataFrame({"item_id": [f"i{number}" for number in range(ITEMS)], "title": titles})
    return Dataset.read(events=events, items=items)
