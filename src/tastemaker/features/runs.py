"""Rows brought together by a key, and where each stands among its like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grouped(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows with equal keys brought together, in each group in their order.

    The upper bits of the keys and the row number are packed into one word, so that one sort without payload does it; where two keys agree in
    the upper bits only, an ordinary stable sort is the answer.

    Returns:
        order: int64 [rows]. begins: bool [rows], true where a row, in that order, is the first of its group.
    """
    low = np.uint64((1 << max(len(keys).bit_length(), 1)) - 1)
    packed = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.int64)
    packed &= ~low
    begins = np.ones(len(keys), dtype=bool)
    if not (keys & low).any():  # nothing was lost in the packing
        begins[1:] = packed[1:] != packed[:-1]
        return order, begins
    ordered = keys[order]
    begins[1:] = ordered[1:] != ordered[:-1]
    if (begins[1:] & (packed[1:] == packed[:-1])).any():
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        begins[1:] = ordered[1:] != ordered[:-1]
    return order, begins


def grouped_codes(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`grouped` for codes of a key, which are not negative: slots, or pairs as first · 2³² + second. Groups are in the order of codes."""
    begins = np.ones(len(codes), dtype=bool)
    if (codes[1:] >= codes[:-1]).all():
        begins[1:] = codes[1:] != codes[:-1]
        return np.arange(len(codes), dtype=np.int64), begins
    dense, rows = codes.view(np.uint64), len(codes).bit_length()
    most = int(codes.max())
    if most.bit_length() + rows > 64:
        span = int((codes & 0xFFFFFFFF).max()) + 1
        most = ((most >> 32) + 1) * span
        dense = ((codes >> 32) * span + (codes & 0xFFFFFFFF)).view(np.uint64)
    if most.bit_length() + rows > 64:
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        begins[1:] = ordered[1:] != ordered[:-1]
        return order, begins
    return grouped(dense << np.uint64(max(rows, 1)))


def places(begins: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Place of each row in its group, from 0, int64 [rows], for rows that are ordered by group."""
    rows = np.arange(len(begins), dtype=np.int64)
    return rows - np.maximum.accumulate(np.where(begins, rows, 0))


def in_time(times: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The order by time, ties as they stand; None where it is so already.

    Times that are whole numbers of 1/64 of a second and lie close enough are packed with the row's number into one word and sorted at once.

    Args:
        times: float64 [rows], without NaN.
    """
    if (times[1:] >= times[:-1]).all():
        return None
    rows, low, high = len(times).bit_length(), float(times.min()), float(times.max())
    if np.isfinite(low) and np.isfinite(high) and (high - low) * 64 < 2.0 ** (62 - rows):
        fine = (times - low) * 64
        whole = fine.astype(np.uint64)
        if (whole == fine).all() and (low + fine / 64 == times).all():
            packed = (whole << np.uint64(rows)) | np.arange(len(times), dtype=np.uint64)
            packed.sort()
            return (packed & np.uint64((1 << rows) - 1)).view(np.int64)
    return np.argsort(times, kind="stable")
