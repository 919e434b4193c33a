"""A log cut by users: whole histories, the numbers that users' memories tell, and which events are held back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.pieces import Column, read_pieces
from tastemaker.data.stage_plan import Plan
from tastemaker.data.stage_slices import rows_of
from tastemaker.features.key import USER_ITEM
from tastemaker.features.parts import Parts
from tastemaker.features.rows import Rows
from tastemaker.features.runs import grouped, grouped_codes, places
from tastemaker.journal.identity import mixed
from tastemaker.schema.columns import Columns

TRAIN, TARGET, LATE = 0, 1, 2
"""What the split made of an event: learnt from; asked for; held back without being asked for (met before, or a user without history)."""


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
        late = _late(made, parts, rows_of(parts, columns, user), columns, answers, list(zip(blocks, pairs, strict=True)))
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


def _write_at(path: Path, rows: int, at: int, values: NDArray[np.float64]) -> None:
    """Writes values into a `.npy` file of so many rows, from row `at` on, without a map of it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - (rows - at) * values.itemsize)
        file.write(np.ascontiguousarray(values).data)
