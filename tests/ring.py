"""A ring of items without texts: who met one meets the next. It is learned in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.cli.app import call

SETTINGS = """[train]
threads = 1
checkpoint_seconds = 0.0
[sequence]
dim = 16
epochs = 3
min_steps = 40
[features]
use = ["item_events"]
"""
ITEMS = 30


def visits(users: int, steps: int, seed: int = 0, name: str = "u", begin: float = 1_600_000_000.0) -> list[tuple[str, str, float]]:
    """user_id, item_id, timestamp: each user begins somewhere and goes round."""
    random = np.random.default_rng(seed)
    return [
        (f"{name}{user}", f"i{(start + step) % ITEMS}", begin + 1_000 * user + step)
        for user, start in enumerate(random.integers(ITEMS, size=users))
        for step in range(steps)
    ]


def write_ring(folder: Path, users: int = 100) -> Path:
    """A workspace with the ring imported and nothing trained."""
    pl.DataFrame(visits(users, 6), schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder.parent / "events.csv")
    assert call(["init", str(folder)]) == 0
    (folder / "tastemaker.toml").write_text(SETTINGS)
    assert call(["import", str(folder), "--events", str(folder.parent / "events.csv")]) == 0
    return folder
