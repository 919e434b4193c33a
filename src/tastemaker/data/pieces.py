"""Columns of numbers on disk, cut into pieces: what one step of the stage writes, by piece, and the next one reads, piece by piece.

A folder holds one file of bare numbers a column, its dtype as its ending (`time.f8`), and `cuts`, int64 [pieces + 1]: piece p of every column
is `cuts[p]:cuts[p + 1]`. Not `.npy`: reading its header parses Python source, which costs 0.1 ms a file and fails now and then on several
threads (Python 3.11: "AST constructor recursion depth mismatch").
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]


def write_pieces(folder: Path, columns: Mapping[str, Column], piece: NDArray[np.int64], pieces: int) -> None:
    """Writes rows ordered by piece; rows of one piece keep their order.

    Args:
        folder: made here, anew where a worker died while it wrote. columns: arrays [rows]. piece: the piece of each row, int64 [rows] in `[0, pieces)`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cuts = np.concatenate([[0], np.cumsum(np.bincount(piece, minlength=pieces))]).astype(np.int64)
    order = None if (piece[1:] >= piece[:-1]).all() else np.argsort(piece.astype(np.uint16), kind="stable")
    for name, values in {**columns, "cuts": cuts}.items():
        write_column(folder, name, values if order is None or name == "cuts" else values[order])


def write_column(folder: Path, name: str, values: Column) -> None:
    """Writes one column, [rows]."""
    values.tofile(folder / f"{name}.{values.dtype.str[1:]}")


def read_column(folder: Path, name: str, begin: int = 0, rows: int = -1) -> Column:
    """Reads rows of one column; all from `begin` on where `rows` is -1."""
    path = next(folder.glob(f"{name}.*"))
    dtype = np.dtype(path.suffix[1:])
    return np.fromfile(path, dtype=dtype, count=rows, offset=begin * dtype.itemsize)


def read_piece(folders: Sequence[Path], name: str, piece: int) -> Column:
    """One column of one piece, over several folders, one behind the other."""
    found = []
    for folder in folders:
        begin, end = read_column(folder, "cuts", piece, 2).tolist()
        found.append(read_column(folder, name, begin, end - begin))
    return np.concatenate(found)


def piece_sizes(folders: Sequence[Path]) -> NDArray[np.int64]:
    """Rows of each piece in each folder, int64 [folders, pieces]."""
    return np.stack([np.diff(read_column(folder, "cuts")) for folder in folders])
