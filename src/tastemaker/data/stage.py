"""From the journal to packed histories, a split and simple features, for logs that no memory holds.

Four steps, each a pure function of files, so that they run on the threads of one machine or, as they are, on a cluster:

1. `survey` a segment: rows, items, event types, a sample of the times. `plan` puts the surveys together.
2. `spread` a segment: ids become numbers, rows go to slices of time.
3. `sort_slice`: a slice in the order of time; what its items had met since its begin; rows go to buckets of users.
4. `pack_bucket`: whole histories, one behind the other; features; which events are held back.

`stage` runs them and leaves a folder: `offsets.npy`, `items.npy`, `times.npy`, `event_types.npy`, `seq.npy` (memory-mapped by `histories`),
`features-*.parquet`, `users.parquet`, `items.parquet`, `stage.json`. A feature of an event tells only what was known before it. Ties in time
keep the order of the log.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.item_memory import carry_over, item_memory, since_ever
from tastemaker.data.pieces import (
    Column,
    grouped,
    in_time,
    piece_sizes,
    places,
    read_column,
    read_piece,
    write_column,
    write_pieces,
)
from tastemaker.data.sequences import Sequences
from tastemaker.data.times import ORDER_BELOW
from tastemaker.journal.identity import Words, mixed, text_numbers
from tastemaker.journal.read import segment_frame
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError, SettingsError

PIECE_ROWS = 2_000_000
TRAIN, TARGET, LATE = 0, 1, 2
"""What the split made of an event: learnt from; asked for; held back without being asked for (met before, or a user without history)."""
_SAMPLE = 2_000
In = TypeVar("In")
Out = TypeVar("Out")
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


@dataclass(frozen=True)
class Survey:
    """What a segment holds: rows, its items and event types, evenly drawn times (float64, NaN where null)."""

    rows: int
    items: pl.Series
    types: pl.Series
    sample: NDArray[np.float64]
    latest: float


class Plan(msgspec.Struct, frozen=True):
    """What all workers know.

    Attributes:
        rows: events of the log. types: names of the event types, sorted.
        timed: whether times are times; else events keep the order of the log and slices are stretches of it.
        cuts: times at which slices begin, without the first. buckets: how many users are spread over. split: its name. share: held back.
    """

    rows: int
    types: list[str]
    timed: bool
    cuts: list[float]
    slices: int
    buckets: int
    split: str
    share: float


def stage(
    segments: Sequence[tuple[Path, int]],
    folder: Path,
    split: str = "global_time",
    share: float = 0.1,
    workers: int = 2,
    rows: int = PIECE_ROWS,
    each: Each | None = None,
) -> Plan:
    """Runs the four steps on threads, or on what `each` knows.

    Args:
        segments: Parquet segments of a journal with the sequence number of their first rows (`Journal.sealed`).
        folder: where the result goes; made here, what was there before goes.
        split: `global_time` or `leave_last_out`; logs that hold only an order use the last. share: of the events, held back by `global_time`.
        workers: threads. rows: about how many a worker holds in memory.
        each: runs a step on every task and gives the results in order, such as `data._ray.each`; None: threads.

    Raises:
        InputError: there is no event. SettingsError: an unknown split.
    """
    if split not in ("global_time", "leave_last_out"):
        raise SettingsError(f"The stage knows no split {split!r}; expected global_time or leave_last_out.")
    if not segments:
        raise InputError("There are no imported events to stage. Import some first.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = each or (lambda step, tasks: _each(step, tasks, workers))
    surveys = run(survey, [path for path, _ in segments])
    made, items = plan(surveys, split, share, rows)
    begins = np.cumsum([0, *(found.rows for found in surveys)])
    spread_out = [folder / "spread" / f"{place:06d}" for place in range(len(segments))]
    tasks = [
        (path, first, int(begin), items, made, out) for (path, first), begin, out in zip(segments, begins, spread_out, strict=False)
    ]
    run(lambda task: spread(*task), tasks)
    slices = [folder / "slices" / f"{number:06d}" for number in range(made.slices)]
    run(lambda number: sort_slice(made, len(items), number, spread_out, slices[number]), range(made.slices))
    shutil.rmtree(folder / "spread")
    carry_over(slices)
    _reserve(folder, made.rows)
    sizes = piece_sizes(slices).sum(axis=0)
    at = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    cut = moment(made, slices)
    packed = run(lambda bucket: pack_bucket(made, bucket, slices, cut, at[bucket], folder), range(made.buckets))
    shutil.rmtree(folder / "slices")
    _finish(folder, segments, items, made, packed)
    return made


def histories(folder: Path) -> Sequences:
    """The packed histories of a staged folder, memory-mapped."""
    made = msgspec.json.decode((folder / "stage.json").read_bytes(), type=Plan)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "items", "times", "event_types")}
    users, items = (pl.read_parquet(folder / f"{name}s.parquet")[f"{name}_id"].to_list() for name in ("user", "item"))
    return Sequences(users, items, arrays["offsets"], arrays["items"], arrays["times"], arrays["event_types"], made.types)


def survey(path: Path) -> Survey:
    """Looks at one segment."""
    table = segment_frame(path, 0).select(Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE).collect()
    times = table[Columns.TIMESTAMP].to_numpy()
    latest = float(np.nan_to_num(times, nan=-np.inf).max(initial=-np.inf))
    step = max(len(times) // _SAMPLE, 1)
    return Survey(table.height, table[Columns.ITEM_ID].unique(), table[Columns.EVENT_TYPE].unique(), times[::step].copy(), latest)


def plan(surveys: Sequence[Survey], split: str, share: float, rows: int) -> tuple[Plan, pl.Series]:
    """The plan, and the ids of all items, sorted."""
    items = pl.concat([found.items for found in surveys]).unique().sort()
    types = pl.concat([found.types for found in surveys]).unique().sort().to_list()
    total = sum(found.rows for found in surveys)
    sample = np.concatenate([found.sample for found in surveys])
    timed = bool(max(found.latest for found in surveys) >= ORDER_BELOW) and not bool(np.isnan(sample).any())
    count = max(round(total / rows), 1)
    cuts = np.unique(np.quantile(sample, np.arange(1, count) / count)).tolist() if timed else []
    slices = len(cuts) + 1 if timed else count
    return Plan(total, types, timed, cuts, slices, count, split if timed else "leave_last_out", share), items


def spread(path: Path, first: int, begin: int, items: pl.Series, made: Plan, out: Path) -> None:
    """A segment as numbers, by slice of time.

    Args:
        path: the segment. first: sequence number of its first row. begin: events of the log before it. items: ids of all items, sorted.
        out: folder of the pieces.
    """
    table = segment_frame(path, first)
    events = table.select(Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE).collect()
    times = events[Columns.TIMESTAMP].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    seq = np.arange(first, first + events.height, dtype=np.int64)
    if made.timed:
        piece = np.searchsorted(np.array(made.cuts), times, side="right")
    else:
        piece = (begin + np.arange(events.height)) * made.slices // made.rows
    columns: dict[str, Column] = {
        "user": text_numbers(events[Columns.USER_ID]),
        "item": events[Columns.ITEM_ID].cast(pl.Enum(items)).to_physical().to_numpy().astype(np.int32),
        "time": times,
        "type": events[Columns.EVENT_TYPE].cast(pl.Enum(made.types)).to_physical().to_numpy().astype(np.int16),
        "seq": seq,
    }
    write_pieces(out, columns, piece.astype(np.int64), made.slices)


def sort_slice(made: Plan, n_items: int, number: int, spread_out: Sequence[Path], out: Path) -> None:
    """One slice in the order of time, with what its items met since its begin, by bucket of users; and what it adds to every item."""
    columns = {name: read_piece(spread_out, name, number) for name in ("user", "item", "time", "type", "seq")}
    if made.timed:
        order = in_time(columns["time"])
        if order is not None:
            columns = {name: values[order] for name, values in columns.items()}
    met, faded, total, weight = item_memory(columns["item"], columns["time"] if made.timed else None, n_items)
    bucket = (columns["user"].astype(np.uint64) >> np.uint64(48)).astype(np.int64) * made.buckets >> 16
    write_pieces(out, {**columns, "met": met, "faded": faded}, bucket, made.buckets)
    ends = columns["time"][[0, -1]] if len(columns["time"]) and made.timed else np.array([np.nan, np.nan])
    for name, values in (("total", total), ("weight", weight), ("ends", ends)):
        write_column(out, f"_{name}", np.asarray(values))


def moment(made: Plan, slices: Sequence[Path]) -> float:
    """The time after which events are held back: exactly the quantile that `data.split.global_time` takes; NaN for `leave_last_out`."""
    if made.split != "global_time":
        return float("nan")
    rank = int(np.floor((made.rows - 1) * (1.0 - made.share)))
    for folder in slices:
        times = read_column(folder, "time")
        if rank < len(times):
            return float(np.partition(times, rank)[rank])
        rank -= len(times)
    return float("inf")


@dataclass(frozen=True)
class Packed:
    """A bucket's users: events of each, the sequence number of the first of each; and the train events of every item."""

    lengths: NDArray[np.int64]
    first: NDArray[np.int64]
    train: NDArray[np.int64]


def pack_bucket(made: Plan, bucket: int, slices: Sequence[Path], cut: float, at: int, folder: Path) -> Packed:
    """The histories of a bucket's users, written into the arrays from row `at` on, and their features as `features-BUCKET.parquet`."""
    columns = {name: read_piece(slices, name, bucket) for name in ("user", "item", "time", "type", "seq")}
    met, faded = since_ever(slices, bucket, columns, made.timed)
    user: Words = mixed(columns["user"])
    order, begins = grouped(user)
    if not made.timed:
        late = np.argsort(np.nan_to_num(columns["time"], nan=-np.inf), kind="stable")
        order, begins = grouped(user[late])
        order = late[order]
    columns = {name: values[order] for name, values in columns.items()}
    item, time = columns["item"], columns["time"]
    place = places(begins)
    recency = np.diff(time, prepend=np.nan)
    recency[begins] = np.nan
    pair_order, pair_begins = grouped(_pairs(begins, columns["user"], item))
    again = np.empty(len(item), dtype=np.int32)
    again[pair_order] = places(pair_begins)
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(item)))
    part = _parts(made, cut, time, lengths, place, again)
    for name, values in (("items", item), ("times", time), ("event_types", columns["type"]), ("seq", columns["seq"])):
        _write_at(folder / f"{name}.npy", made.rows, at, values)
    pl.DataFrame(
        {
            Columns.SEQ: columns["seq"], "part": part, "item_events": met[order], "item_events_faded": faded[order],
            "user_events": place.astype(np.int32), "user_recency": recency.astype(np.float32), "item_met": again,
        }
    ).write_parquet(folder / f"features-{bucket:06d}.parquet", compression="lz4", statistics=False)  # fmt: skip
    n_items = len(read_column(slices[0], "_total"))
    return Packed(lengths, columns["seq"][starts], np.bincount(item[part == TRAIN], minlength=n_items))


def _pairs(begins: NDArray[np.bool_], user: Words, item: NDArray[np.int32]) -> Words:
    """A number for each pair of user and item: exact in its upper bits where they fit into one word beside the row, else mixed."""
    bits = [max(int(most).bit_length(), 1) for most in (begins.sum(), item.max(initial=0), len(item))]
    if sum(bits) > 64:
        return mixed(mixed(user) + item.astype(np.uint64))
    dense = np.cumsum(begins).astype(np.uint64) - np.uint64(1)
    return ((dense << np.uint64(bits[1])) | item.astype(np.uint64)) << np.uint64(64 - bits[0] - bits[1])


def _parts(
    made: Plan,
    cut: float,
    time: NDArray[np.float64],
    lengths: NDArray[np.int64],
    place: NDArray[np.int64],
    again: NDArray[np.int32],
) -> NDArray[np.int8]:
    """`TRAIN`, `TARGET` or `LATE` for each event: a target is the first meeting of an item that its user did not meet in train."""
    size = np.repeat(lengths, lengths)
    late = time > cut if made.split == "global_time" else (place == size - 1) & (size > 1)
    early = np.repeat(np.add.reduceat(~late, np.cumsum(lengths) - lengths) if len(lengths) else lengths, lengths)
    return np.where(late, np.where((again == 0) & (early > 0), TARGET, LATE), TRAIN).astype(np.int8)


def _reserve(folder: Path, rows: int) -> None:
    """Makes the arrays that the buckets fill; no worker keeps more of them mapped than it writes."""
    for name, kind in (("items", np.int32), ("times", np.float64), ("event_types", np.int16), ("seq", np.int64)):
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=(rows,))


def _write_at(path: Path, rows: int, at: int, values: NDArray[np.float64]) -> None:
    """Writes values into a `.npy` file of so many rows, from row `at` on, without a map of it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - (rows - at) * values.itemsize)
        file.write(np.ascontiguousarray(values).data)


def _finish(folder: Path, segments: Sequence[tuple[Path, int]], items: pl.Series, made: Plan, packed: Sequence[Packed]) -> None:
    """Offsets over all buckets, and the names of users and items."""
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate([found.lengths for found in packed]))]))
    first = np.concatenate([found.first for found in packed])
    order = np.argsort(first)
    wanted = first[order]
    names = []
    for path, begin in segments:
        ids = pl.read_parquet(path, columns=[Columns.USER_ID]).to_series()
        low, high = np.searchsorted(wanted, [begin, begin + len(ids)])
        names.append(ids.gather(wanted[low:high] - begin))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    pl.concat(names).gather(back).to_frame(Columns.USER_ID).write_parquet(folder / "users.parquet")
    train = np.sum([found.train for found in packed], axis=0)
    pl.DataFrame({Columns.ITEM_ID: items, "train_events": train}).write_parquet(folder / "items.parquet")
    (folder / "stage.json").write_bytes(msgspec.json.encode(made))


def _each(step: Callable[[In], Out], tasks: Iterable[In], workers: int) -> list[Out]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(step, tasks))
