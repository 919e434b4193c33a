"""By what a memory is kept apart: by user, item, category, brand, device, hour, or a pair of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.grown import Grown
from tastemaker.features.rows import Rows

HOURS = 24
Columns = dict[str, list[int]]
"""Slots of one event by the name of the column; several where an item has several categories."""


class Groups(Protocol):
    """What a key reads of the catalogue. Implemented by `facts.Facts`."""

    @property
    def categories(self) -> Grown:
        """Category slots by item slot, int32 [items, CATEGORIES], filled up with -1."""

    @property
    def brand(self) -> Grown:
        """Brand slot by item slot, int32 [items]."""


@dataclass(frozen=True)
class Key:
    """One or two columns. An item of several categories has one code for each of them.

    Attributes:
        by: names of columns: `all`, `user`, `item`, `category`, `brand`, `device`, `hour`.
    """

    by: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """True for two columns, whose codes are large numbers instead of slots."""
        return len(self.by) == 2

    def event_codes(self, columns: Columns) -> list[int]:
        """The known codes of one event: what `codes` gives of one row, without arrays, which cost more than the work on one number."""
        first = [slot for slot in columns[self.by[0]] if slot >= 0]
        if not self.paired:
            return first
        return [(one << 32) | two for one in first for two in columns[self.by[1]] if two >= 0]

    def codes(self, rows: Rows, facts: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Codes of all rows, and which row each belongs to.

        Returns:
            codes: int64 [m], -1 where a part is unknown; a pair is first · 2³² + second.
            owner: int64 [m], or None where row and code are one to one (m = n).
        """
        owner = None
        if "category" in self.by:
            listed = facts.categories.read(rows.item)
            owner, place = np.nonzero(listed >= 0)
            category = listed[owner, place].astype(np.int64)
            rows = rows.part(owner)
            parts = [category if name == "category" else _column(name, rows, facts) for name in self.by]
        else:
            parts = [_column(name, rows, facts) for name in self.by]
        if not self.paired:
            return parts[0], owner
        return np.where((parts[0] < 0) | (parts[1] < 0), -1, (parts[0] << 32) | parts[1]), owner


def event_columns(rows: Rows, facts: Groups) -> Columns:
    """Everything that keys read of one event, from rows of length 1."""
    item, now = int(rows.item[0]), float(rows.now[0])
    categories, brands = facts.categories.values, facts.brand.values
    return {
        "all": [0],
        "user": rows.user.tolist(),
        "item": [item],
        "category": categories[min(item, len(categories) - 1)].tolist(),
        "brand": [int(brands[min(item, len(brands) - 1)])],
        "device": rows.device.tolist(),
        "hour": [int(now % 86_400.0 // 3_600.0) if math.isfinite(now) else -1],
    }


def _column(name: str, rows: Rows, facts: Groups) -> NDArray[np.int64]:
    if name == "user":
        return rows.user
    if name == "item":
        return rows.item
    if name == "brand":
        return facts.brand.read(rows.item).astype(np.int64)
    if name == "device":
        return rows.device
    if name == "hour":
        return hour(rows.now)
    return np.zeros(len(rows), dtype=np.int64)


def hour(now: NDArray[np.float64]) -> NDArray[np.int64]:
    """Hour of the day in UTC, int64 [n]; -1 without a time."""
    timed = np.isfinite(now)
    return np.where(timed, np.where(timed, now, 0.0) % 86_400.0 // 3_600.0, -1).astype(np.int64)


EVERYTHING = Key(("all",))
USER = Key(("user",))
ITEM = Key(("item",))
USER_ITEM = Key(("user", "item"))
