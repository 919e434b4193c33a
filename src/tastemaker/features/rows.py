"""Moments as columns: who, which item, when, with what. Events and questions have the same shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

TIMELESS = -np.inf
"""The time of what has no time: before everything, so it counts, but fades to nothing and is in no window."""

LARGEST_VALUE = 1e6
"""An event's value is clipped to this, so that one absurd value can't drown all others."""


@dataclass(frozen=True)
class Rows:
    """Events or questions, slots instead of names.

    Attributes:
        user, item, device, kind: slots, int64 [n]; -1 where unknown. `kind` is the event type, -1 for questions.
        now: epoch seconds, float64 [n]; `TIMELESS` where there is none.
        value: of events, float64 [n]; NaN where there is none.
        order: breaks ties of time between events, int64 [n]: the rank of (event id, item id).
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    device: NDArray[np.int64]
    kind: NDArray[np.int64]
    now: NDArray[np.float64]
    value: NDArray[np.float64]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.now)

    def part(self, part: Any) -> Rows:
        """Some of the rows, by slice, mask or places."""
        return Rows(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def when(timestamp: float | None) -> float:
    """A time that can be compared; `TIMELESS` for none, NaN and infinities."""
    return TIMELESS if timestamp is None or not np.isfinite(timestamp) else float(timestamp)


def worth(value: float | None) -> float:
    """An event's value within its bounds; NaN for none, NaN and infinities."""
    return np.nan if value is None or not np.isfinite(value) else min(max(float(value), -LARGEST_VALUE), LARGEST_VALUE)


def worths(values: pl.Series) -> NDArray[np.float64]:
    """`worth` of a column of float64, [n]."""
    found = values.fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(found), np.clip(found, -LARGEST_VALUE, LARGEST_VALUE), np.nan)
