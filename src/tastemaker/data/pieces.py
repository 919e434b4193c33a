"""Columns of numbers on disk, cut into pieces: what one step of the stage writes, by piece, and the next one reads, piece by piece.

A folder holds one file of bare numbers a column, whose endings are its dtype and that in which it is stored (`time.f8.u4`): the smallest that holds
all of its numbers exactly, as each page of a new file costs a fault. `cuts`, int64 [pieces + 1]: piece p of every column is `cuts[p]:cuts[p + 1]`.
Not `.npy`: reading its header parses Python source, which costs 0.1 ms a file and fails now and then on several threads (Python 3.11: "AST
constructor recursion depth mismatch").
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
CUTS = "cuts"
_SMALLER = {"f8": ("u4", "f4"), "i8": ("u4",), "i4": ("u2",), "i2": ("u1",)}
"""What a dtype may be stored as, if that is exact."""


def write_pieces(folder: Path, columns: Mapping[str, Column], piece: NDArray[np.int64], pieces: int) -> None:
    """Writes rows ordered by piece; rows of one piece keep their order.

    Args:
        folder: made here, anew where a worker died while it wrote. columns: arrays [rows]. piece: the piece of each row, int64 [rows] in `[0, pieces)`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cuts = np.concatenate([[0], np.cumsum(np.bincount(piece, minlength=pieces))]).astype(np.int64)
    order = None if (piece[1:] >= piece[:-1]).all() else np.argsort(piece.astype(np.uint16), kind="stable")
    cuts.tofile(folder / CUTS)
    for name, values in columns.items():
        write_column(folder, name, values if order is None else values[order])


def write_column(folder: Path, name: str, values: Column) -> None:
    """Writes one column, [rows]."""
    stored = _smallest(values)
    stored.tofile(folder / f"{name}.{values.dtype.str[1:]}.{stored.dtype.str[1:]}")


def read_pieces(folders: Sequence[Path], names: Iterable[str], piece: int) -> dict[str, Column]:
    """Columns of one piece, over several folders, one behind the other; of all columns for which `names` is empty."""
    wanted, found, at = set(names), dict[str, Column](), 0
    spans = [np.fromfile(folder / CUTS, dtype=np.int64, count=2, offset=piece * 8).tolist() for folder in folders]
    rows = sum(end - begin for begin, end in spans)
    for folder, (begin, end) in zip(folders, spans, strict=True):
        for file in os.listdir(folder):
            name, _, kinds = file.partition(".")
            if kinds and (name in wanted or not wanted):
                kind, stored = (np.dtype(one) for one in kinds.split("."))
                if name not in found:
                    found[name] = np.zeros(rows, dtype=kind)
                found[name][at : at + end - begin] = np.fromfile(folder / file, stored, end - begin, offset=begin * stored.itemsize)
        at += end - begin
    return found


def read_column(folder: Path, name: str) -> Column | None:
    """One whole column; None where the folder has none of this name."""
    path = next(folder.glob(f"{name}.*"), None)
    if path is None:
        return None
    kind, stored = (np.dtype(one) for one in path.name.split(".")[1:])
    return np.fromfile(path, dtype=stored).astype(kind, copy=False)


def piece_sizes(folders: Sequence[Path]) -> NDArray[np.int64]:
    """Rows of each piece in each folder, int64 [folders, pieces]."""
    return np.stack([np.diff(np.fromfile(folder / CUTS, dtype=np.int64)) for folder in folders])


def _smallest(values: Column) -> Column:
    """The values in the smallest dtype that holds them all exactly."""
    for kind in _SMALLER.get(values.dtype.str[1:], ()) if len(values) else ():
        dtype = np.dtype(kind)
        if dtype.kind == "u" and not (values.min() >= 0 and values.max() <= np.iinfo(dtype).max):
            continue
        with np.errstate(over="ignore"):
            stored = values.astype(dtype)
        if values.dtype.kind == "i" or ((stored == values) | np.isnan(values)).all():
            return stored
    return values
