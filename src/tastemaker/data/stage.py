"""From the journal to packed histories, a split and features, for logs that no memory holds.

Five steps, each a pure function of files, so that they run on the threads of one machine or, as they are, on a cluster:

1. `survey` a segment: rows, items, event types, a sample of the times. `plan` puts the surveys together.
2. `spread` a segment: ids become numbers, rows go to slices of time.
3. `sort_slice`: the order of a slice by time, and what it leaves in the memories that features keep of items, groups and everything. `hand_on` adds up
   what slices leave to what they find.
4. `tell_slice`: the numbers that these memories tell; rows go to buckets of users.
5. `pack_bucket`: whole histories, one behind the other; the numbers that users' memories tell; which events are held back.

`stage` runs them and leaves a folder: `offsets.npy`, `items.npy`, `times.npy`, `event_types.npy`, `seq.npy` (memory-mapped by `histories`),
`features-*.arrow` (read by `feature_table`), `users.parquet`, `items.parquet`, `stage.json`. Features are declared and computed as everywhere
(`features.parts`): a row has the number that `FeatureSet.rows` gives it. A log that holds only an order has none, as in training. In histories, ties in
time keep the order of the log.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl

from tastemaker.data.pieces import piece_sizes
from tastemaker.data.sequences import Sequences
from tastemaker.data.stage_buckets import LATE, TARGET, TRAIN, Packed, pack_bucket
from tastemaker.data.stage_plan import PIECE_ROWS, Plan, plan, survey
from tastemaker.data.stage_slices import hand_on, moment, sort_slice, spread, tell_slice
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.parts import Parts
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError, SettingsError

__all__ = ["FEATURES", "LATE", "TARGET", "TRAIN", "Each", "Plan", "feature_table", "histories", "stage"]
FEATURES = ("item_events", "item_faded", "user_events", "user_recency", "user_item")
"""What is told of each event if nothing else is asked for."""
In = TypeVar("In")
Out = TypeVar("Out")
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def stage(
    segments: Sequence[tuple[Path, int]],
    folder: Path,
    split: str = "global_time",
    share: float = 0.1,
    workers: int = 2,
    rows: int = PIECE_ROWS,
    each: Each | None = None,
    features: FeatureSet | None = None,
) -> Plan:
    """Runs the five steps on threads, or on what `each` knows.

    Args:
        segments: Parquet segments of a journal with the sequence number of their first rows (`Journal.sealed`).
        folder: where the result goes; made here, what was there before goes.
        split: `global_time` or `leave_last_out`; logs that hold only an order use the last. share: of the events, held back by `global_time`.
        workers: threads. rows: about how many a worker holds in memory.
        each: runs a step on every task and gives the results in order, such as `data._ray.each`; None: threads.
        features: what is told of each event; None: `FEATURES`.

    Raises:
        InputError: there is no event. SettingsError: an unknown split.
    """
    if split not in ("global_time", "leave_last_out"):
        raise SettingsError(f"The stage knows no split {split!r}; expected global_time or leave_last_out.")
    if not segments:
        raise InputError("There are no imported events to stage. Import some first.")
    declared = features or FeatureSet.declared(FEATURES)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = each or (lambda step, tasks: _each(step, tasks, workers))
    surveys = run(partial(survey, devices=declared.devices, ids=declared.ordered), [path for path, _ in segments])
    made, names = plan(surveys, split, share, rows, declared)
    parts = declared.parts(names, made.types, made.devices) if made.timed else None
    begins = np.cumsum([0, *(found.rows for found in surveys)])
    spread_out = [folder / "spread" / f"{place:06d}" for place in range(len(segments))]
    tasks = [
        (path, first, int(begin), names, made, out) for (path, first), begin, out in zip(segments, begins, spread_out, strict=False)
    ]
    run(lambda task: spread(*task), tasks)
    slices = _by_user(run, made, parts, spread_out, folder, workers)
    _reserve(folder, made.rows)
    sizes = piece_sizes(slices).sum(axis=0)
    at = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    cut = moment(made, slices)
    packed = run(lambda bucket: pack_bucket(made, parts, names.len(), bucket, slices, cut, at[bucket], folder), range(made.buckets))
    shutil.rmtree(folder / "slices")
    _finish(folder, segments, names, made, packed, workers)
    return made


def _by_user(run: Each, made: Plan, parts: Parts | None, spread_out: Sequence[Path], folder: Path, workers: int) -> list[Path]:
    """From slices in any order to slices by bucket of users, with what is told of items; gives their folders."""
    numbers = range(made.slices)
    ordered = [folder / "ordered" / f"{number:06d}" for number in numbers]
    run(lambda number: sort_slice(made, parts, number, spread_out, ordered[number]), numbers)
    if parts is not None:
        _each(lambda place: hand_on(parts, place, ordered), range(len(parts.carried)), workers)
    slices = [folder / "slices" / f"{number:06d}" for number in numbers]
    run(lambda number: tell_slice(made, parts, number, spread_out, ordered[number], slices[number]), numbers)
    shutil.rmtree(folder / "spread")
    shutil.rmtree(folder / "ordered")
    return slices


def _reserve(folder: Path, rows: int) -> None:
    """Makes the arrays that the buckets fill; no worker keeps more of them mapped than it writes."""
    for name, kind in (("items", np.int32), ("times", np.float64), ("event_types", np.int16), ("seq", np.int64)):
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=(rows,))


def _finish(
    folder: Path, segments: Sequence[tuple[Path, int]], items: pl.Series, made: Plan, packed: Sequence[Packed], workers: int
) -> None:
    """Offsets over all buckets, and the names of users and items."""
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate([found.lengths for found in packed]))]))
    first = np.concatenate([found.first for found in packed])
    order = np.argsort(first)
    wanted = first[order]

    def named(segment: tuple[Path, int]) -> pl.Series:
        path, begin = segment
        ids = pl.read_parquet(path, columns=[Columns.USER_ID]).to_series()
        low, high = np.searchsorted(wanted, [begin, begin + len(ids)])
        return ids.gather(wanted[low:high] - begin)

    names = _each(named, segments, workers)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    pl.concat(names).gather(back).to_frame(Columns.USER_ID).write_parquet(folder / "users.parquet")
    train = np.sum([found.train for found in packed], axis=0)
    pl.DataFrame({Columns.ITEM_ID: items, "train_events": train}).write_parquet(folder / "items.parquet")
    (folder / "stage.json").write_bytes(msgspec.json.encode(made))


def _each(step: Callable[[In], Out], tasks: Iterable[In], workers: int) -> list[Out]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(step, tasks))


def histories(folder: Path) -> Sequences:
    """The packed histories of a staged folder, memory-mapped."""
    made = msgspec.json.decode((folder / "stage.json").read_bytes(), type=Plan)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "items", "times", "event_types")}
    users, items = (pl.read_parquet(folder / f"{name}s.parquet")[f"{name}_id"].to_list() for name in ("user", "item"))
    return Sequences(users, items, arrays["offsets"], arrays["items"], arrays["times"], arrays["event_types"], made.types)


def feature_table(folder: Path) -> pl.LazyFrame:
    """For each event of a staged folder, in the order of `histories`: `seq`, `part` (`TRAIN`, `TARGET` or `LATE`), and the features, float32."""
    return pl.scan_ipc(folder / "features-*.arrow")
