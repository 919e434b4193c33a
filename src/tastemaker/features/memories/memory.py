"""The shape of a memory, and its one promise: both roads lead to the same content.

A memory is asked for a moment that is not before the latest event of the key (a moment before it is answered as if it were that of
the latest event). What happens at the asked moment itself is never told. So a memory keeps apart what happened *at* the latest time
from what happened before it. Events may come in any order: the content depends on their set alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.key import Key
from tastemaker.features.timeline import Asked, Timeline
from tastemaker.features.which import Which

Told = TypeVar("Told", covariant=True)
SLOT = "slot"
"""Column of packed contents; one row for each slot, in order, where there is none."""


class Moment(NamedTuple):
    """One event as a memory sees it: epoch seconds (`TIMELESS` for none), item slot, value (NaN for none) and its ids."""

    time: float
    item: int
    value: float
    event_id: str
    item_id: str


class Memory(Protocol[Told]):
    """What all memories share. The content is written by slot of the key."""

    @property
    def key(self) -> Key:
        """By what it is kept apart."""

    @property
    def which(self) -> Which:
        """Which events enter."""

    @property
    def step(self) -> float:
        """Seconds to which all times are floored: what is told changes at these boundaries only. 0: exact."""

    def empty(self) -> Any:
        """A content without events."""

    def update(self, content: Any, slot: int, moment: Moment) -> None:
        """Folds one event."""

    def read(self, content: Any, slots: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What the content tells at moments, [m]; slot -1 is told as a key without events."""

    def as_of(self, asked: Asked, before: Any = None) -> Told:
        """The same for moments of the past, from the whole log.

        Args:
            asked: moments on the log's timeline. before: the content after earlier events, which the log goes on from; its slots are codes. None: there
                are none.
        """

    def batch(self, line: Timeline, slots: NDArray[np.int64], ids: pl.DataFrame) -> Any:
        """The content after a whole log.

        Args:
            line: the log's events. slots: for each of the line's codes, [K]. ids: `event_id` and `item_id` of the log.
        """

    def joined(self, content: Any, other: Any) -> Any:
        """The content after the events of both, whichever came first; may write into either. Quick where `other` is of few keys."""

    def pack(self, content: Any, slots: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """The content as a table; what is told of some slots needs no more than this where they are given."""

    def unpack(self, table: pl.DataFrame) -> Any:
        """The content of a table."""


def moved(values: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Values put at places, which are as many and all different, [m]."""
    found = np.empty_like(values)
    found[places] = values
    return found


def passed(now: NDArray[np.float64], since: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds between, never below 0; +inf since `TIMELESS`."""
    with np.errstate(invalid="ignore"):
        return np.where(now > since, now - since, 0.0)


def slot_column(every: int, slots: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Slots to pack: all of so many, or some."""
    return np.arange(every) if slots is None else slots


def slots_of(table: pl.DataFrame) -> NDArray[np.int64]:
    """Slots of the rows of a packed content, int64."""
    found: NDArray[np.int64] = table[SLOT].to_numpy() if SLOT in table.columns else np.arange(table.height)
    return found
