"""Histories, packed one behind the other without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class Sequences:
    """Each user's items in the order in which they were met; ties keep the order of the log.

    Attributes:
        user_ids: U users, in order of first appearance.
        item_ids: N items; an index into this list stands for an item everywhere inside.
        offsets: int64 [U + 1]; user u's events are `offsets[u]:offsets[u + 1]`.
        items: int32 [E] item indices.
        times: float64 [E] epoch seconds, or an order, or NaN.
        event_types: int16 [E] index into `type_names`.
        type_names: names of the event types.
        values: float64 [E], a rating, a price, an amount; NaN where an event has none; None where none has.
    """

    user_ids: list[str]
    item_ids: list[str]
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    times: NDArray[np.float64]
    event_types: NDArray[np.int16]
    type_names: list[str]
    values: NDArray[np.float64] | None = None

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, those without events included."""
        return len(self.item_ids)

    def history(self, user: int) -> NDArray[np.int32]:
        """One user's items, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def histories(self) -> list[NDArray[np.int32]]:
        """All users' items, oldest first."""
        return np.split(self.items, self.offsets[1:-1])

    def counts(self) -> NDArray[np.int64]:
        """Events of each item, int64 [N]."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)

    def lengths(self) -> NDArray[np.int64]:
        """Events of each user, int64 [U]."""
        return np.diff(self.offsets)

    def keep(self, mask: NDArray[np.bool_]) -> Sequences:
        """The same users and items with only the events that `mask` (bool [E]) keeps; histories may become empty."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        return Sequences(
            self.user_ids,
            self.item_ids,
            kept[self.offsets].astype(np.int64),
            self.items[mask],
            self.times[mask],
            self.event_types[mask],
            self.type_names,
            None if self.values is None else self.values[mask],
        )

    def last_positions(self) -> NDArray[np.int64]:
        """Index of the last event of each user with at least two events."""
        return self.offsets[1:][self.lengths() >= 2] - 1


def build(dataset: Dataset, item_ids: list[str] | None = None) -> Sequences:
    """Packs a dataset's events by user.

    Args:
        dataset: events in the order in which they happened.
        item_ids: the order of items; events of other items are left out. Default: `dataset.item_ids()`.
    """
    names = dataset.item_ids() if item_ids is None else item_ids
    numbers = pl.DataFrame(
        {Columns.ITEM_ID: names, "_item": np.arange(len(names), dtype=np.int32)}, schema_overrides={Columns.ITEM_ID: pl.String}
    )
    events = dataset.events.select(Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.VALUE)
    events = events.join(numbers, on=Columns.ITEM_ID, how="inner", maintain_order="left")
    users = events[Columns.USER_ID].unique(maintain_order=True)
    order = pl.DataFrame(
        {Columns.USER_ID: users, "_user": np.arange(len(users), dtype=np.int64)}, schema_overrides={Columns.USER_ID: pl.String}
    )
    types = events[Columns.EVENT_TYPE].unique().sort().to_list()
    events = events.join(order, on=Columns.USER_ID, maintain_order="left").sort("_user", Columns.TIMESTAMP, maintain_order=True)
    values = events[Columns.VALUE]
    counts = np.bincount(events["_user"].to_numpy(), minlength=len(users))
    return Sequences(
        user_ids=users.to_list(),
        item_ids=names,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=events["_item"].to_numpy().astype(np.int32),
        times=events[Columns.TIMESTAMP].fill_null(float("nan")).to_numpy().astype(np.float64),
        event_types=events[Columns.EVENT_TYPE]
        .replace_strict({name: place for place, name in enumerate(types)}, return_dtype=pl.Int16)
        .to_numpy()
        if types
        else np.zeros(0, dtype=np.int16),
        type_names=types,
        values=None if values.null_count() == len(values) else values.cast(pl.Float64).fill_null(float("nan")).to_numpy(),
    )
