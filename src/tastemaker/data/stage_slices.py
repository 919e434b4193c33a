"""A log cut by time: rows as numbers, their order, and what the memories of items, groups and everything tell of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.pieces import Column, piece_sizes, read_column, read_pieces, write_column, write_pieces
from tastemaker.data.stage_plan import Plan
from tastemaker.features.facts import devices_of
from tastemaker.features.key import ITEM
from tastemaker.features.parts import Parts
from tastemaker.features.rows import Rows, worths
from tastemaker.features.runs import in_time
from tastemaker.journal.identity import Words, text_numbers
from tastemaker.journal.read import segment_frame
from tastemaker.schema.columns import Columns

_UNOWNED = ("item", "time", "type", "value", "device")
"""Columns that memories read which are not kept by user."""


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
        log = parts.log(rows_of(parts, columns))
        asked = parts.asked(log)
        for place, (memory, content, slots) in enumerate(zip(parts.carried, parts.contents(log), asked, strict=True)):
            memory.pack(content, slots).write_ipc(_contents(out, "left", place))
            write_column(out, f"asked{place}", slots)
        if ITEM in log.orders:
            write_column(out, "by_item", log.orders[ITEM].astype(np.int32))


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


def tell_slice(made: Plan, parts: Parts | None, number: int, spread_out: Sequence[Path], ordered: Path, out: Path) -> None:
    """What the carried memories tell of the events of a slice; rows by bucket of users, still in the order of time."""
    columns = read_pieces(spread_out, (), number)
    order = read_column(ordered, "order")
    if order is not None:
        columns = {name: values[order] for name, values in columns.items()}
    bucket = (columns["user"].astype(np.uint64) >> np.uint64(48)).astype(np.int64) * made.buckets >> 16
    whole = dict(columns)
    if parts is not None:
        log = parts.log(rows_of(parts, columns))
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


def rows_of(parts: Parts, columns: dict[str, Column], user: NDArray[np.int64] | None = None) -> Rows:
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


def _contents(folder: Path, name: str, place: int) -> Path:
    return folder / f"{name}{place:02}.arrow"
