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

import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.pieces import Column, piece_sizes, read_column, read_pieces, write_column, write_pieces
from tastemaker.data.sequences import Sequences
from tastemaker.data.times import ORDER_BELOW
from tastemaker.features.facts import devices_of
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.key import ITEM, USER_ITEM
from tastemaker.features.parts import Parts
from tastemaker.features.rows import Rows, worths
from tastemaker.features.runs import grouped, grouped_codes, in_time, places
from tastemaker.journal.identity import Words, mixed, text_numbers
from tastemaker.journal.read import segment_frame
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError, SettingsError

PIECE_ROWS = 1_500_000
_FINER = 4
"""Slices hold so much less, and users' features are computed for so much fewer rows at once: arrays that fit into a processor's caches."""
_WORTH = 100_000
"""Rows for which a piece of its own is worth while."""
FEATURES = ("item_events", "item_faded", "user_events", "user_recency", "user_item")
"""What is told of each event if nothing else is asked for."""
TRAIN, TARGET, LATE = 0, 1, 2
"""What the split made of an event: learnt from; asked for; held back without being asked for (met before, or a user without history)."""
_SAMPLE = 2_000
_UNOWNED = ("item", "time", "type", "value", "device")
"""Columns that memories read which are not kept by user."""
In = TypeVar("In")
Out = TypeVar("Out")
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


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


def histories(folder: Path) -> Sequences:
    """The packed histories of a staged folder, memory-mapped."""
    made = msgspec.json.decode((folder / "stage.json").read_bytes(), type=Plan)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "items", "times", "event_types")}
    users, items = (pl.read_parquet(folder / f"{name}s.parquet")[f"{name}_id"].to_list() for name in ("user", "item"))
    return Sequences(users, items, arrays["offsets"], arrays["items"], arrays["times"], arrays["event_types"], made.types)


def feature_table(folder: Path) -> pl.LazyFrame:
    """For each event of a staged folder, in the order of `histories`: `seq`, `part` (`TRAIN`, `TARGET` or `LATE`), and the features, float32."""
    return pl.scan_ipc(folder / "features-*.arrow")


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


def spread(path: Path, first: int, begin: int, items: pl.Series, made: Plan, out: Path) -> None:
    """A segment as numbers, by slice of time.

    Args:
        path: the segment. first: sequence number of its first row. begin: events of the log before it. items: ids of all items.
        out: folder of the pieces.
    """
    table = segment_frame(path, first)
    also = {"value": Columns.VALUE, "device": Columns.CONTEXT, "id0": Columns.EVENT_ID}
    names = [Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE]
    events = table.select(*names, *(column for name, column in also.items() if name in made.extra)).collect()
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
    if "value" in made.extra:
        columns["value"] = worths(events[Columns.VALUE])
    if "device" in made.extra:
        columns["device"] = (
            devices_of(events).replace_strict(made.devices, range(len(made.devices)), default=-1, return_dtype=pl.Int32).to_numpy()
        )
    if "id0" in made.extra:
        columns |= {f"id{word}": words for word, words in enumerate(_id_words(events[Columns.EVENT_ID], made.id_bytes))}
    write_pieces(out, columns, piece.astype(np.int64), made.slices)


def _id_words(ids: pl.Series, longest: int) -> list[Words]:
    """Texts as big-endian words of 8 bytes, filled up with zeros, so that words are ordered as the texts are."""
    padded = np.array([text.encode() for text in ids.fill_null("").to_list()], dtype=f"S{-(-longest // 8) * 8}")
    return list(padded.view(">u8").reshape(len(padded), -1).T.astype(np.uint64))


def sort_slice(made: Plan, parts: Parts | None, number: int, spread_out: Sequence[Path], out: Path) -> None:
    """The order of a slice by time, and what the slice leaves in the carried memories."""
    columns = read_pieces(spread_out, _UNOWNED, number)
    order = in_time(columns["time"]) if made.timed else None
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if order is not None:
        columns = {name: values[order] for name, values in columns.items()}
        write_column(out, "order", order.astype(np.int32))
    if parts is not None:
        log = parts.log(_rows(parts, columns))
        asked = parts.asked(log)
        for place, (memory, content, slots) in enumerate(zip(parts.carried, parts.contents(log), asked, strict=True)):
            memory.pack(content, slots).write_ipc(_contents(out, "left", place))
            write_column(out, f"asked{place}", slots)
        if ITEM in log.orders:
            write_column(out, "by_item", log.orders[ITEM].astype(np.int32))


def tell_slice(made: Plan, parts: Parts | None, number: int, spread_out: Sequence[Path], ordered: Path, out: Path) -> None:
    """What the carried memories tell of the events of a slice; rows by bucket of users, still in the order of time."""
    columns = read_pieces(spread_out, (), number)
    order = read_column(ordered, "order")
    if order is not None:
        columns = {name: values[order] for name, values in columns.items()}
    bucket = (columns["user"].astype(np.uint64) >> np.uint64(48)).astype(np.int64) * made.buckets >> 16
    whole = dict(columns)
    if parts is not None:
        log = parts.log(_rows(parts, columns))
        by_item = read_column(ordered, "by_item")
        if by_item is not None:
            log.orders[ITEM] = by_item.astype(np.int64)
        before = [memory.unpack(pl.read_ipc(_contents(ordered, "before", place))) for place, memory in enumerate(parts.carried)]
        early, told = parts.of_slice(log, before)
        whole |= {f"early{place}": values for place, values in enumerate(early)}
    write_pieces(out, whole, bucket, made.buckets)
    if parts is not None:
        for place, (arrays, owner) in enumerate(zip(told, parts.owners(log.rows), strict=True)):
            answers = {f"told{at}": values for at, values in enumerate(arrays)}
            write_pieces(out / f"sent{place}", answers, bucket if owner is None else bucket[owner], made.buckets)


def _rows(parts: Parts, columns: dict[str, Column], user: NDArray[np.int64] | None = None) -> Rows:
    """Columns as a feature set takes them; of users, where they are told."""
    rows = len(columns["time"])
    nobody = np.full(rows, -1, dtype=np.int64)
    return Rows(
        nobody if user is None else user,
        columns["item"].astype(np.int64),
        parts.devices[columns["device"]] if "device" in columns else nobody,
        columns["type"].astype(np.int64),
        columns["time"],
        columns["value"] if "value" in columns else np.full(rows, np.nan),
        nobody,
    )


def hand_on(parts: Parts, place: int, ordered: Sequence[Path]) -> None:
    """From what each slice leaves in one of the carried memories to what it holds before each slice, as far as that slice will ask for it."""
    memory = parts.carried[place]
    held = memory.empty()
    for folder in ordered:
        slots = read_column(folder, f"asked{place}")
        memory.pack(held, slots).write_ipc(_contents(folder, "before", place))
        left = _contents(folder, "left", place)
        held = memory.joined(held, memory.unpack(pl.read_ipc(left)))
        left.unlink()


def _contents(folder: Path, name: str, place: int) -> Path:
    return folder / f"{name}{place:02}.arrow"


def moment(made: Plan, slices: Sequence[Path]) -> float:
    """The time after which events are held back: exactly the quantile that `data.split.global_time` takes; NaN for `leave_last_out`."""
    if made.split != "global_time":
        return float("nan")
    rank = int(np.floor((made.rows - 1) * (1.0 - made.share)))
    ends = np.cumsum(piece_sizes(slices).sum(axis=1))
    place = int(np.searchsorted(ends, rank, side="right"))
    times = read_column(slices[place], "time")
    assert times is not None, "a slice always has its times"
    rank -= int(ends[place]) - len(times)
    return float(np.partition(times, rank)[rank])


@dataclass(frozen=True)
class Packed:
    """A bucket's users: events of each, the sequence number of the first of each; and the train events of every item."""

    lengths: NDArray[np.int64]
    first: NDArray[np.int64]
    train: NDArray[np.int64]


def pack_bucket(
    made: Plan, parts: Parts | None, n_items: int, bucket: int, slices: Sequence[Path], cut: float, at: int, folder: Path
) -> Packed:
    """The histories of a bucket's users, written into the arrays from row `at` on, and their features as `features-BUCKET.arrow`."""
    early = range(len(parts.early) if parts else 0)
    columns = read_pieces(slices, (), bucket)
    order, begins = _by_history(columns, made.timed)
    columns = {name: values[order] for name, values in columns.items() if name != "user"}
    item, time, user = columns["item"], columns["time"], np.cumsum(begins) - 1
    place = places(begins)
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(item)))
    blocks = _blocks(starts, len(item), made.block)
    again, pairs = _met(user, item, blocks)
    late: Sequence[Column] | NDArray[np.float32] = ()
    if parts is not None:
        answers = _Answers(parts, slices, bucket, order)
        late = _late(made, parts, _rows(parts, columns, user), columns, answers, list(zip(blocks, pairs, strict=True)))
    part = _parts(made, cut, time, lengths, place, again)
    for name, values in (("items", item), ("times", time), ("event_types", columns["type"]), ("seq", columns["seq"])):
        _write_at(folder / f"{name}.npy", made.rows, at, values)
    features: dict[str, Column] = {}
    if parts is not None:
        found: dict[str, Column] = dict(
            zip((*parts.early, *parts.late), (*(columns[f"early{place}"] for place in early), *late), strict=True)
        )
        features = {name: found[name] for name in made.features}
    table = pl.DataFrame({Columns.SEQ: columns["seq"], "part": part, **features})
    table.write_ipc(folder / f"features-{bucket:06d}.arrow")
    return Packed(lengths, columns["seq"][starts], np.bincount(item[part == TRAIN], minlength=n_items))


def _by_history(columns: dict[str, Column], timed: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows by user and in the order of time, and which of them begin a history; of a timed log, they come in the order of time."""
    if timed:
        return grouped(mixed(columns["user"]))
    in_order = np.argsort(np.nan_to_num(columns["time"], nan=-np.inf), kind="stable")
    order, begins = grouped(mixed(columns["user"])[in_order])
    return in_order[order], begins


def _blocks(starts: NDArray[np.int64], rows: int, size: int) -> list[slice]:
    """Stretches of whole histories, of about `size` rows or one long history."""
    wanted = np.searchsorted(starts, np.arange(0, rows, size))
    cuts = np.unique(np.append(starts[wanted[wanted < len(starts)]], rows)).tolist()
    return [slice(low, high) for low, high in itertools.pairwise(cuts)]


class _Answers:
    """What the sent memories told for the rows of a bucket, in another order than they came in."""

    def __init__(self, parts: Parts, slices: Sequence[Path], bucket: int, order: NDArray[np.int64]) -> None:
        self._parts, self._order = parts, order
        self._arrays: list[list[Column]] = []
        for place in range(len(parts.sent)):
            told = read_pieces([one / f"sent{place}" for one in slices], (), bucket)
            self._arrays.append([told[name] for name in sorted(told)])

    def ordered(self, rows: Rows, by: NDArray[np.int64] | None) -> Callable[[slice], list[list[Column]]]:
        """Gives the answers for a stretch of the reordered rows; `by` reorders them once more."""
        order = self._order if by is None else self._order[by]
        owners = self._parts.owners(rows)
        arrays = [[values[_answers(order, owner)] for values in told] for told, owner in zip(self._arrays, owners, strict=True)]

        def of(block: slice) -> list[list[Column]]:
            cuts = [block if owner is None else slice(*np.searchsorted(owner, [block.start, block.stop])) for owner in owners]
            return [[values[cut] for values in told] for told, cut in zip(arrays, cuts, strict=True)]

        return of


def _late(
    made: Plan,
    parts: Parts,
    rows: Rows,
    columns: dict[str, Column],
    answers: _Answers,
    blocks: Sequence[tuple[slice, NDArray[np.int64]]],
) -> NDArray[np.float32]:
    """The late columns of a bucket, float32 [late, n], where events at one time stand in the order of their ids if that matters.

    Args:
        blocks: stretches of rows, and each one's rows by user and item.
    """
    words = [columns[name] for name in made.extra if name.startswith("id")]
    by_id = np.lexsort((columns["item"], *reversed(words), columns["time"], rows.user)) if words else None
    rows = rows if by_id is None else rows.part(by_id)
    told = answers.ordered(rows, by_id)
    found = np.empty((len(parts.late), len(rows)), dtype=np.float32)
    for block, pairs in blocks:
        log = parts.log(rows.part(block))
        if by_id is None:
            log.orders[USER_ITEM] = pairs
        found[:, block] = parts.of_users(log, told(block))
    if by_id is not None:
        found[:, by_id] = found.copy()
    return found


def _met(
    user: NDArray[np.int64], item: NDArray[np.int32], blocks: Sequence[slice]
) -> tuple[NDArray[np.int32], list[NDArray[np.int64]]]:
    """How often each row's user met its item before, ties in the order of the log, int32 [n]; and each block's rows by user and item."""
    again = np.empty(len(item), dtype=np.int32)
    orders = []
    for block in blocks:
        order, begins = grouped_codes(user[block] << 32 | item[block])
        again[block][order] = places(begins)
        orders.append(order)
    return again, orders


def _answers(order: NDArray[np.int64], owner: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Where the answers for reordered rows stand among those for the rows as they stood.

    Args:
        order: the rows, [n]. owner: which of the reordered rows each answer is for, ascending, [m]; None: each row has one.
    """
    if owner is None:
        return order
    each = np.bincount(owner, minlength=len(order))
    before = np.empty(len(order), dtype=np.int64)
    before[order] = each
    first = np.cumsum(before) - before
    answers: NDArray[np.int64] = first[order][owner] + places(np.diff(owner, prepend=-1) != 0)
    return answers


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
