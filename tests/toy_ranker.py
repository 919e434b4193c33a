"""A ranker written by hand for the toy workspace: it likes items with many events, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tastemaker.features.categories import Categories
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.preparation import Column, Preparation, Reduction
from tastemaker.features.ranker_input import RankerInput, channel_names
from tastemaker.index.channels import CHANNELS
from tastemaker.models.calibration import Calibration
from tastemaker.models.ranker import Plan, Ranker, Shape
from toy_bundle import WIDTH

DEPTH = 12
FEATURES = ["item_events", "user_item"]


def write_ranker(
    folder: Path,
    orders: bool = True,
    like: float = 4.0,
    epoch: float = 1.6e9,
    days: float = 0.0,
    declared: Sequence[str] = FEATURES,
) -> tuple[FeatureSet, pl.DataFrame]:
    """Adds `features/` and `ranker/` to a toy bundle's payload; gives the features and the events that they know.

    Args:
        like: what the logarithm of an item's events is worth. epoch: of the first event. days: over which people took turns; 0: one came after the other, an event a second.
        declared: features that are told, of which the ranker reads `item_events` alone.
    """
    catalogue = pl.read_parquet(folder / "catalogue" / "items.parquet")
    names, offsets, items = (
        catalogue["item_id"].to_list(),
        *(np.load(folder / "users" / f"{name}.npy") for name in ("offsets", "items")),
    )
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    times = epoch + np.arange(len(items), dtype=np.float64)
    if days:
        times[np.argsort(np.arange(len(items)) - offsets[owners], kind="stable")] = epoch + np.linspace(
            0, 86_400 * days, len(items)
        )
    np.save(folder / "users" / "times.npy", times)
    events = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in owners],
            "item_id": [names[item] for item in items],
            "timestamp": times,
            "event_id": [f"t{place}" for place in range(len(items))],
        }
    )
    features = FeatureSet.declared(declared, catalogue, np.load(folder / "channels" / "text.npy"))
    features.save(features.remember(events), folder / "features")
    columns = [*channel_names(CHANNELS), *features.names]
    preparation = Preparation(names=columns, columns=[Column(place=place, scaling="none") for place in range(len(columns))])
    nothing = np.zeros((WIDTH, 0), dtype=np.float32)
    empty = Reduction(name="text_part", mean=[0.0] * WIDTH, components=[], explained=[])
    given = RankerInput(preparation, empty, Categories(fields=("category", "device"), buckets=7), nothing, nothing)
    shape = Shape(dense=len(columns), fields=2, buckets=7, embedding=2, tasks=2, body="mlp", sharing="bottom", hidden=(2,))
    wide = np.zeros((shape.wide, 2), dtype=np.float32)
    wide[columns.index("item_events")] = like, 1.0
    arrays = {
        "tables": np.zeros((2, 8, 2)), "expert_0": np.zeros((1, shape.width, 2)), "expert_bias_0": np.zeros((1, 1, 2)),
        "gate": np.zeros((shape.width, 2)), "wide": wide, "tower": np.zeros((2, 2)), "bias": np.array([0.0, -3.0]), "fusion_scale": np.ones(1),
    }  # fmt: skip
    plan = Plan(shape=shape, heads=("view",), calibrations=(Calibration(),), orders=orders, found=0.8, boost=0.0, depth=DEPTH)
    (folder / "ranker").mkdir()
    Ranker(plan, {name: array.astype(np.float32) for name, array in arrays.items()}).save(folder / "ranker")
    given.save(folder / "ranker")
    return features, events
