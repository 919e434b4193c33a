"""Batches of like length: little is computed on padding."""

from __future__ import annotations

from collections.abc import Sequence


def length_batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of `lengths` in batches of at most `size`, shortest first, each index exactly once."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    return [order[begin : begin + size] for begin in range(0, len(order), size)]
