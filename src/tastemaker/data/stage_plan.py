"""How a log is cut into pieces that a memory holds: what its segments hold, and the plan that all workers know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.times import ORDER_BELOW
from tastemaker.features.facts import devices_of
from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.read import segment_frame
from tastemaker.schema.columns import Columns

PIECE_ROWS = 1_500_000
"""Rows that a worker holds at once, if nothing else is asked for."""
_FINER = 4
"""Slices hold so much less, and users' features are computed for so much fewer rows at once: arrays that fit into a processor's caches."""
_WORTH = 100_000
"""Rows for which a piece of its own is worth while."""
_SAMPLE = 2_000


@dataclass(frozen=True)
class Survey:
    """What a segment holds: rows, its items, event types and devices, evenly drawn times (float64), the latest; whether each event has a time, and any
    a value; bytes of the longest event id.
    """

    rows: int
    items: pl.Series
    types: pl.Series
    devices: pl.Series
    sample: NDArray[np.float64]
    latest: float
    timed: bool
    valued: bool
    id_bytes: int


class Plan(msgspec.Struct, frozen=True):
    """What all workers know.

    Attributes:
        rows: events of the log. types: names of the event types, sorted.
        timed: whether times are times; else events keep the order of the log and slices are stretches of it.
        cuts: times at which slices begin, without the first. buckets: how many users are spread over. split: its name. share: held back.
        features: as declared, without those of the catalogue's own. extra: columns besides the usual ones that the pieces hold.
        devices: names of the log's devices. id_bytes: of the longest event id. block: rows of which users' features are computed at once.
    """

    rows: int
    types: list[str]
    timed: bool
    cuts: list[float]
    slices: int
    buckets: int
    split: str
    share: float
    features: list[str]
    extra: list[str]
    devices: list[str]
    id_bytes: int
    block: int


def survey(path: Path, devices: bool = False, ids: bool = False) -> Survey:
    """Looks at one segment; at its devices and event ids only if asked to."""
    names = [Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, *([Columns.CONTEXT] * devices), *([Columns.EVENT_ID] * ids)]
    frame = segment_frame(path, 0)
    table = frame.select(names).collect()
    column = table[Columns.TIMESTAMP]
    times = column.fill_null(np.nan).to_numpy()
    latest = float(np.nan_to_num(times, nan=-np.inf).max(initial=-np.inf))
    step = max(len(times) // _SAMPLE, 1)
    return Survey(
        table.height,
        table[Columns.ITEM_ID].unique(),
        table[Columns.EVENT_TYPE].unique(),
        devices_of(table).drop_nulls().unique() if devices else pl.Series([], dtype=pl.String),
        times[::step].copy(),
        latest,
        bool(np.isfinite(times).all()),
        Columns.VALUE in pl.read_parquet_schema(path),
        int(table[Columns.EVENT_ID].str.len_bytes().max() or 0) if ids else 0,  # type: ignore[arg-type]
    )


def plan(surveys: Sequence[Survey], split: str, share: float, rows: int, declared: FeatureSet) -> tuple[Plan, pl.Series]:
    """The plan, and the ids of all items: those of the catalogue in its order, then those that only events name, sorted."""
    met = pl.concat([found.items for found in surveys]).unique().sort()
    catalogue = pl.Series(Columns.ITEM_ID, declared.item_ids, dtype=pl.String)
    items = pl.concat([catalogue, met.filter(~met.is_in(catalogue.implode()))])
    types = pl.concat([found.types for found in surveys]).unique().sort().to_list()
    devices = pl.concat([found.devices for found in surveys]).unique().sort().to_list()
    total = sum(found.rows for found in surveys)
    sample = np.concatenate([found.sample for found in surveys])
    timed = max(found.latest for found in surveys) >= ORDER_BELOW and all(found.timed for found in surveys)
    count, slices = _pieces(total, rows), _pieces(total, rows / _FINER)
    cuts = np.unique(np.quantile(sample, np.arange(1, slices) / slices)).tolist() if timed else []
    longest = max(found.id_bytes for found in surveys)
    extra = ["value"] * any(found.valued for found in surveys) + ["device"] * declared.devices
    extra += [f"id{word}" for word in range(-(-longest // 8))]
    return Plan(
        total, types, timed, cuts, len(cuts) + 1 if timed else slices, count, split if timed else "leave_last_out", share,
        declared.names if timed else [], extra if timed else [], devices, longest, max(rows // _FINER, 1),
    ), items  # fmt: skip


def _pieces(total: int, rows: float) -> int:
    """In how many pieces of about `rows` a log is cut: an even number, and of a log that fits into few pieces still enough for several workers."""
    count = max(round(total / rows), min(total // _WORTH, 4), 1)
    return count + count % 2 if count > 1 else 1
