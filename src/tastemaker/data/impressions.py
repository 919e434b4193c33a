"""What was shown and what came of it: one row for each item of each answer, those left alone as negatives.

An answer is known by its `request_id`; where the log has none, by user and session, and where there is no session either, by the user alone. Every
impression and every click of the log is counted in exactly one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.negatives import OwnItems, Positives, Unclicked
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import IntArray

REQUEST, LABEL, SHOWN, CLICKS = "request", "label", "shown", "clicks"
_BETWEEN = "\x1f"
_OPTIONAL = {
    Columns.REQUEST_ID: pl.String,
    Columns.SESSION_ID: pl.String,
    Columns.POSITION: pl.Int64,
    Columns.TIMESTAMP: pl.Float64,
}


@dataclass(frozen=True)
class Impressions:
    """The shown items of a log.

    Attributes:
        table: request (text), user_id, item_id, position (int64 or null), timestamp (epoch seconds or null), label (1: clicked, 0: not), shown and clicks (how
            many events of each kind the row stands for); answers in order of first appearance, their items by position, ties in the order of the log.
        others: events of other types; no row stands for them.
    """

    table: pl.DataFrame
    others: int

    @property
    def click_rate(self) -> float:
        """Share of the rows that were clicked, in [0, 1]; NaN without rows."""
        return float(self.table[LABEL].mean()) if self.table.height else float("nan")  # type: ignore[arg-type]

    def by_position(self) -> pl.DataFrame:
        """position, rows, clicked, rate: how much the place alone decides (needed before one trusts clicks: Joachims et al. 2005)."""
        grouped = self.table.group_by(Columns.POSITION).agg(pl.len().alias("rows"), pl.col(LABEL).sum().alias("clicked"))
        return grouped.with_columns((pl.col("clicked") / pl.col("rows")).alias("rate")).sort(Columns.POSITION, nulls_last=True)

    def unclicked(self, user_ids: list[str], item_ids: list[str], own: OwnItems) -> tuple[Positives, Unclicked]:
        """The clicks as positives, and the source of their negatives; rows of other users and items are left out.

        Args:
            user_ids, item_ids: what an index stands for.
            own: what each user met.
        """
        known = self._known(user_ids, item_ids)
        number = known["_number"].to_numpy()
        users, items = known["_user"].to_numpy().astype(np.int64), known["_item"].to_numpy().astype(np.int32)
        label = known[LABEL].to_numpy()
        clicked = label == 1
        total = int(number.max(initial=-1)) + 1
        asker = np.zeros(total, dtype=np.int64)
        asker[number] = users
        offsets, left = _packed(number[~clicked], items[~clicked], total)
        return Positives(users[clicked], items[clicked], requests=number[clicked]), Unclicked(offsets, left, asker, own)

    def places(self, user_ids: list[str], item_ids: list[str]) -> dict[int, dict[int, int]]:
        """Where each answer showed its items, 0 the first place: answer, numbered as `Positives.requests`, to item index to place; what the log does
        not tell is left out."""
        known = self._known(user_ids, item_ids).drop_nulls(Columns.POSITION)
        found: dict[int, dict[int, int]] = {}
        for number, item, position in known.select("_number", "_item", Columns.POSITION).iter_rows():
            places = found.setdefault(number, {})
            places[item] = min(position, places.get(item, position))
        least = int(known[Columns.POSITION].min() or 0) if known.height else 0  # type: ignore[arg-type]
        return {number: {item: place - least for item, place in places.items()} for number, places in found.items()}

    def _known(self, user_ids: list[str], item_ids: list[str]) -> pl.DataFrame:
        """The rows of known users and items, with `_user`, `_item` and the number of the answer, `_number`."""
        known = self.table.with_columns(
            _numbers(self.table[Columns.USER_ID], user_ids).alias("_user"),
            _numbers(self.table[Columns.ITEM_ID], item_ids).alias("_item"),
        ).drop_nulls(["_user", "_item"])
        return known.with_columns((pl.col(REQUEST).rank("dense").cast(pl.Int64) - 1).alias("_number"))


def impressions(events: pl.DataFrame, shown: Sequence[str] = ("impression",), clicked: Sequence[str] = ("click",)) -> Impressions:
    """Joins what was shown with what was clicked.

    A click without an impression stands for one: an item that was clicked was shown. Where an answer has a `request_id` an item is one row of it, at its
    first position; elsewhere the same item at another position is another row, and a click that tells no position belongs to the first one shown.

    Args:
        events: user_id, item_id, event_type, and where the log has them request_id, session_id, position, timestamp.
        shown, clicked: names of event types.

    Raises:
        InputError: no event has one of these types; the message lists those that are there.
    """
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in _OPTIONAL.items() if name not in events.columns]
    kind = pl.col(Columns.EVENT_TYPE)
    wanted = events.filter(kind.is_in([*shown, *clicked])).with_columns(missing)
    if wanted.is_empty():
        there = ", ".join(events[Columns.EVENT_TYPE].unique().sort().head(8).to_list()) or "no event at all"
        raise InputError(
            f"No event is an impression ({', '.join(shown)}) or a click ({', '.join(clicked)}); the log holds: {there}."
        )
    wanted = wanted.with_columns(_request().alias(REQUEST), kind.is_in(list(clicked)).alias(LABEL))
    of_one_item = [REQUEST, Columns.USER_ID, Columns.ITEM_ID]
    first = pl.col(Columns.POSITION).min().over(of_one_item)
    row = pl.when(pl.col(Columns.REQUEST_ID).is_not_null()).then(first).otherwise(pl.col(Columns.POSITION).fill_null(first))
    wanted = wanted.with_columns(row.cast(pl.Int64).alias(Columns.POSITION), pl.col(Columns.TIMESTAMP).cast(pl.Float64))
    table = wanted.group_by([*of_one_item, Columns.POSITION], maintain_order=True).agg(
        pl.col(Columns.TIMESTAMP).min(),
        pl.col(LABEL).any().cast(pl.Int8),
        (~pl.col(LABEL)).sum().cast(pl.Int64).alias(SHOWN),
        pl.col(LABEL).sum().cast(pl.Int64).alias(CLICKS),
    )
    table = table.with_row_index("_row").with_columns(pl.col("_row").min().over(REQUEST))
    table = table.sort("_row", Columns.POSITION, nulls_last=True, maintain_order=True).drop("_row")
    return Impressions(table, events.height - wanted.height)


def _request() -> pl.Expr:
    """What names an answer: user and request, else user and session, else the user."""
    user, session = pl.col(Columns.USER_ID), pl.col(Columns.SESSION_ID)
    by_request = pl.concat_str([user, pl.lit("r"), pl.col(Columns.REQUEST_ID)], separator=_BETWEEN)
    by_session = pl.concat_str([user, pl.lit("s"), session], separator=_BETWEEN)
    return pl.coalesce(by_request, by_session, user)


def _numbers(values: pl.Series, names: list[str]) -> pl.Series:
    return values.replace_strict({name: place for place, name in enumerate(names)}, default=None, return_dtype=pl.Int64)


def _packed(number: NDArray[np.int64], items: IntArray, total: int) -> tuple[NDArray[np.int64], IntArray]:
    """Offsets [total + 1] and items of each request, those shown at several positions once."""
    pairs = np.unique(np.stack([number, items.astype(np.int64)]), axis=1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs[0], minlength=total))]).astype(np.int64)
    return offsets, pairs[1].astype(np.int32)
