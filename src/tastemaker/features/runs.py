"""Rows brought together by a key, and where each stands among its like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RADIX = 48
"""Bits up to which codes are sorted digit by digit."""
_LATE = 16
"""Where at most one row of so many is earlier than the one before it, runs are merged."""
_STRETCH = 8_192
"""Ascending questions of a search that are answered from one short stretch."""
_WHOLE = 2.0**52
"""Whole numbers below it are exact in float64."""


def grouped(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows with equal keys brought together, in each group in their order; groups are in the order of their keys' upper bits.

    Keys are sorted by their upper bits; where two of them agree in these only, by all of them.

    Returns:
        order: int64 [rows]. begins: bool [rows], true where a row, in that order, is the first of its group.
    """
    order = _by_digits((keys >> np.uint64(64 - _RADIX)).view(np.int64), _RADIX)
    ordered = keys[order]
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ordered >>= np.uint64(64 - _RADIX)
    if (begins[1:] & (ordered[1:] == ordered[:-1])).any():
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
    dense, most = codes, int(codes.max())
    if most.bit_length() > _RADIX:
        span = int((codes & 0xFFFFFFFF).max()) + 1
        most = ((most >> 32) + 1) * span
        dense = (codes >> 32) * span + (codes & 0xFFFFFFFF) if most.bit_length() <= _RADIX else codes
    order = _by_digits(dense, most.bit_length()) if most.bit_length() <= _RADIX else np.argsort(codes, kind="stable")
    ordered = codes[order]
    begins[1:] = ordered[1:] != ordered[:-1]
    return order, begins


def _by_digits(codes: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """The stable order of codes of so many bits, digit by digit of 16 bits, which numpy sorts by counting: five times as fast as by comparison."""
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    for shift in range(16, bits, 16):
        order = order[np.argsort((codes >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def places(begins: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Place of each row in its group, from 0, int64 [rows], for rows that are ordered by group."""
    rows = np.arange(len(begins), dtype=np.int64)
    return rows - np.maximum.accumulate(np.where(begins, rows, 0))


def in_time(times: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The order by time, ties as they stand; None where it is so already.

    A log with few late events is merged from its runs (numpy's stable sort), which is eight times as fast as any other way. Else times that are whole numbers of 1/64 of a second and lie close enough are packed with the row's number into one word and sorted at once.

    Args:
        times: float64 [rows], without NaN.
    """
    late = len(times) - 1 - int(np.count_nonzero(times[1:] >= times[:-1]))
    if late <= 0:
        return None
    if late * _LATE <= len(times):
        return np.argsort(times, kind="stable")
    rows, low, high = len(times).bit_length(), float(times.min()), float(times.max())
    if np.isfinite(low) and np.isfinite(high) and (high - low) * 64 < 2.0 ** (62 - rows):
        fine = (times - low) * 64
        whole = fine.astype(np.uint64)
        if (whole == fine).all() and (low + fine / 64 == times).all():
            packed = (whole << np.uint64(rows)) | np.arange(len(times), dtype=np.uint64)
            packed.sort()
            return (packed & np.uint64((1 << rows) - 1)).view(np.int64)
    return np.argsort(times, kind="stable")


class Bounds:
    """Times that ascend in groups, laid out to be searched together.

    All groups stand in one ascending row of numbers, group · width + time. Where these are rounded, a place can only be too early: each is looked at with
    the times themselves, and the few that are wrong are bisected.

    Args:
        times: ascending in each group, float64 [E], none NaN. starts: where groups begin, int64 [K + 1].
    """

    def __init__(self, times: NDArray[np.float64], starts: NDArray[np.int64]) -> None:
        self._times, self._starts = times, starts
        with np.errstate(over="ignore", invalid="ignore"):
            self._low = times.min() if len(times) else 0.0
            self._width = times.max() - self._low + 1.0 if len(times) else 1.0
            self._finite = bool(np.isfinite(self._width * len(starts)))
        if self._finite:
            self._shifts = np.arange(len(starts) - 1) * self._width
            self._keys = np.repeat(self._shifts, np.diff(starts))
            self._keys += times - self._low
        self._whole = (
            self._finite and self._width * len(starts) + abs(self._low) < _WHOLE and bool((np.floor(times) == times).all())
        )

    def lower(self, of: NDArray[np.int64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where in a group the first time is that is not below a wanted one, int64 [m]; the group's end where all are below.

        Args:
            of: the asked groups, int64 [m]. wanted: float64 [m], none NaN.
        """
        begin, end = self._starts[of], self._starts[of + 1]
        if not len(self._times) or not len(of):
            return begin
        found = np.clip(self._about(of, wanted), begin, end, out=begin) if self._finite else begin
        if self._whole and (np.floor(wanted) == wanted).all():
            return found
        wrong = np.flatnonzero((found < end) & (self._times[np.minimum(found, len(self._times) - 1)] < wanted))
        if len(wrong):
            found[wrong] = _bisected(self._times, found[wrong], end[wrong], wanted[wrong])
        return found

    def _about(self, of: NDArray[np.int64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        """The place, or one before it."""
        aims = np.clip(wanted, self._low, self._low + self._width - 0.5)
        aims -= self._low
        aims += self._shifts[of]
        return _ascending_search(self._keys, aims)


def _bisected(
    times: NDArray[np.float64], begin: NDArray[np.int64], end: NDArray[np.int64], wanted: NDArray[np.float64]
) -> NDArray[np.int64]:
    """First place of begin … end - 1 whose time is not below a wanted one, int64 [m]; its end where all are below."""
    while (open_ := begin < end).any():
        middle = (begin + end) // 2
        below = times[np.minimum(middle, len(times) - 1)] < wanted
        begin, end = np.where(open_ & below, middle + 1, begin), np.where(open_ & ~below, middle, end)
    return begin


def _ascending_search(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """`np.searchsorted` from the left; questions in ascending order are asked by the stretch, so that each looks at memory that is near."""
    if len(wanted) <= _STRETCH or (wanted[1:] < wanted[:-1]).any():
        return np.searchsorted(values, wanted)
    marks = np.append(np.searchsorted(values, wanted[::_STRETCH]), len(values))
    found = np.empty(len(wanted), dtype=np.int64)
    for place, (low, high) in enumerate(zip(marks[:-1].tolist(), marks[1:].tolist(), strict=True)):
        part = slice(place * _STRETCH, (place + 1) * _STRETCH)
        found[part] = np.searchsorted(values[low:high], wanted[part])
        found[part] += low
    return found
