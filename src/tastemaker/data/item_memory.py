"""What every item had met before each event of a log that lies in slices of time: how often, and faded.

A slice is worked on alone (`item_memory`), the slices' totals are put together in order (`carry_over`), and each row gets both (`since_ever`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.pieces import grouped, piece_sizes, places, read_column, read_piece, write_column

HALF_LIFE = 7 * 86_400.0
_FADE = 4.0
"""Half-lives in a block of the faded sum: few enough that a difference of two running sums keeps its digits."""


def item_memory(
    items: NDArray[np.int32], times: NDArray[np.float64] | None, n_items: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Events of the item before each row, their faded sum at that moment, both inside the slice; and both of each item at its end."""
    met, faded = np.zeros(len(items), dtype=np.int32), np.zeros(len(items), dtype=np.float32)
    total, weight = np.zeros(n_items, dtype=np.int64), np.zeros(n_items)
    start = 0
    while start < len(items):
        stop = len(items) if times is None else int(np.searchsorted(times, times[start] + _FADE * HALF_LIFE, side="right"))
        block = items[start:stop]
        order, begins = grouped(block.astype(np.uint64) << np.uint64(32))
        block_met = np.empty(len(block), dtype=np.int64)
        block_met[order] = places(begins)
        met[start:stop] = block_met + total[block]
        total += np.bincount(block, minlength=n_items)
        if times is not None:
            weight *= 0.5 ** ((times[stop - 1] - times[max(start - 1, 0)]) / HALF_LIFE)
            faded[start:stop] = _faded(block, times[start:stop], weight, order, begins)
        start = stop
    return met, faded, total, weight


def _faded(
    items: NDArray[np.int32],
    times: NDArray[np.float64],
    weight: NDArray[np.float64],
    order: NDArray[np.int64],
    begins: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Faded sums before each row of a block; `weight`, as of the block's end, gets what the block adds.

    A row's sum is the difference of two running sums over the events of its item, weighed as of the block's end and brought back to the row's time.
    """
    back = np.exp2((times[-1] - times) / HALF_LIFE)
    weights = 1.0 / back[order]
    sums = np.cumsum(weights) - weights
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(items)))
    groups = items[order[starts]]
    found = np.empty(len(items))
    found[order] = sums + np.repeat(weight[groups] - sums[starts], lengths)
    weight[groups] += np.add.reduceat(weights, starts)
    faded: NDArray[np.float64] = found * back
    return faded


def carry_over(slices: Sequence[Path]) -> None:
    """Makes of each slice's own totals what every item had met before the slice: `_before` and `_faded` (as of the slice's first moment)."""
    before: NDArray[np.int64] | int = 0
    faded: NDArray[np.float64] | float = 0.0
    moment = np.nan
    for folder in slices:
        total, weight, (first, last) = (read_column(folder, f"_{name}") for name in ("total", "weight", "ends"))
        if np.isfinite(first):
            faded = faded * 0.5 ** ((first - moment) / HALF_LIFE) if np.isfinite(moment) else faded
            moment = first
        write_column(folder, "_before", np.zeros_like(total) + before)
        write_column(folder, "_faded", np.zeros_like(weight) + faded)
        before = before + total
        if np.isfinite(first):
            faded = faded * 0.5 ** ((last - first) / HALF_LIFE) + weight
            moment = last


def since_ever(
    slices: Sequence[Path], bucket: int, columns: dict[str, NDArray[np.float64]], timed: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What the items had met before each row, the earlier slices included."""
    met, faded = read_piece(slices, "met", bucket), read_piece(slices, "faded", bucket)
    start = 0
    for folder, rows in zip(slices, piece_sizes(slices)[:, bucket].tolist(), strict=True):
        there = slice(start, start + rows)
        items = columns["item"][there]
        met[there] += read_column(folder, "_before")[items].astype(np.int32)
        if timed:
            age = (columns["time"][there] - read_column(folder, "_ends")[0]) / HALF_LIFE
            faded[there] += (read_column(folder, "_faded")[items] * np.exp2(-age)).astype(np.float32)
        start += rows
    return met, faded
