"""Held-back events: by time, by the last events of each user, by items that training never sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tastemaker.data.dataset import Dataset
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError

NAMES = ("global_time", "temporal_user", "leave_last_out", "cold_items")
ROLLING = ("global_time", "temporal_user")
"""Splits that are asked at each event that they hold back, with all that the user did before it."""
MOST_OF_A_USER = 20
"""Events that `temporal_user` holds back of one user at most, so that few who do much don't stand for all."""
_ROW, _FIRST = "_row", "_first"


@dataclass(frozen=True)
class Split:
    """Events to learn from and events to be judged by.

    Attributes:
        train: the dataset without what is held back; its catalogue is whole.
        test: user_id, item_id, cold (the item has no event in train); one row a target; only users with a history in train.
        name: one of `NAMES`, or `newer`.
        words: the protocol in plain words.
    """

    train: Dataset
    test: pl.DataFrame
    name: str
    words: str


def split(dataset: Dataset, name: str, share: float = 0.1, seed: int = 0) -> Split:
    """The split of that name; where a log holds only an order, the last event of each user is held back in place of `global_time`.

    Raises:
        SettingsError: an unknown name.
    """
    if name not in NAMES:
        raise SettingsError(f"data.split is {name!r}; expected {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    if name == "cold_items":
        return cold_items(dataset, share, seed)
    if name == "temporal_user":
        return temporal_user(dataset, share)
    return leave_last_out(dataset) if name == "leave_last_out" or dataset.time_is_order else global_time(dataset, share)


def global_time(dataset: Dataset, share: float = 0.1) -> Split:
    """Everything later than one moment is held back: what a service frozen at that moment would have met."""
    times = dataset.events[Columns.TIMESTAMP]
    cut = float(times.quantile(1.0 - share, interpolation="lower") or 0.0)
    early, late = dataset.events.filter(times <= cut), dataset.events.filter(times > cut)
    words = f"global time split: the last {late.height:,} of {dataset.events.height:,} events are held back"
    made = _made(dataset, early, late, "global_time", words)
    log = None if dataset.log is None else dataset.log.filter(pl.col(Columns.TIMESTAMP) <= cut)
    return replace(made, train=replace(made.train, log=log))


def temporal_user(dataset: Dataset, share: float = 0.1, most: int = MOST_OF_A_USER) -> Split:
    """The last events of each user are held back (the temporal user split of Z. Meng et al., "Exploring data splitting strategies", RecSys 2020).

    Everybody with a past is judged, where `global_time` leaves those alone who came back after its moment. In exchange what is learned of others may be later
    than the question, so that figures come out higher than a service would meet: it compares recommenders that learned from the same events, it foretells none.
    Events of the same moment as the last one kept are kept too, as no order is known among them; who did all in one moment holds nothing back.

    Args:
        share: of each user's events, rounded down, but at least one of two or more.
        most: events of one user.
    """
    count = pl.len().over(Columns.USER_ID).cast(pl.Int64)
    kept = count - (count * share).floor().cast(pl.Int64).clip(1, most)
    mine = pl.int_range(pl.len()).over(Columns.USER_ID) < pl.max_horizontal(kept, 1)
    events = dataset.events.sort(Columns.TIMESTAMP, maintain_order=True).with_columns(mine.alias(_FIRST))
    edge = pl.col(Columns.TIMESTAMP).filter(pl.col(_FIRST)).max().over(Columns.USER_ID)
    early = events.select(pl.col(_FIRST) | (pl.col(Columns.TIMESTAMP) == edge).fill_null(False)).to_series()
    events = events.drop(_FIRST)
    train, late = events.filter(early), events.filter(~early)
    words = f"temporal user split: of each user's events the last {share:.0%}, {most} at most, are held back, {late.height:,} of {events.height:,}"
    return _made(dataset, train, late, "temporal_user", words)


def leave_last_out(dataset: Dataset) -> Split:
    """The last event of each user with at least two is held back."""
    events = dataset.events.sort(Columns.TIMESTAMP, maintain_order=True).with_row_index(_ROW)
    last = events.group_by(Columns.USER_ID).agg(pl.col(_ROW).max(), pl.len()).filter(pl.col("len") > 1)[_ROW]
    held = events[_ROW].is_in(last.implode())
    events = events.drop(_ROW)
    return _made(dataset, events.filter(~held), events.filter(held), "leave_last_out", "the last event of each user is held back")


def cold_items(dataset: Dataset, share: float = 0.1, seed: int = 0) -> Split:
    """Leave-last-out with a random share of the items taken out of training altogether."""
    base = leave_last_out(dataset)
    ids = sorted(dataset.item_ids())
    cold = pl.Series(
        np.random.default_rng(seed).permutation(np.array(ids, dtype=object))[: round(len(ids) * share)].tolist(), dtype=pl.String
    )
    train = base.train.events.filter(~pl.col(Columns.ITEM_ID).is_in(cold.implode()))
    words = f"the last event of each user is held back, and {len(cold):,} random items are taken out of training"
    return _made(dataset, train, base.test, "cold_items", words)


def newer(dataset: Dataset, later: pl.DataFrame) -> Split:
    """Events that came after a bundle was trained, as a test of that bundle.

    Args:
        dataset: everything. later: the newer events, columns of the journal.
    """
    early = dataset.events.join(later.select(Columns.SEQ), on=Columns.SEQ, how="anti", maintain_order="left")
    return _made(dataset, early, later, "newer", f"{later.height:,} events that came after the bundle was trained")


def _made(dataset: Dataset, train: pl.DataFrame, late: pl.DataFrame, name: str, words: str) -> Split:
    pairs = late.select(Columns.USER_ID, Columns.ITEM_ID).unique(maintain_order=True)
    known = pairs.join(train, on=Columns.USER_ID, how="semi", maintain_order="left")
    fresh = known.join(train, on=[Columns.USER_ID, Columns.ITEM_ID], how="anti", maintain_order="left")
    warm = train[Columns.ITEM_ID].unique()
    test = fresh.with_columns((~pl.col(Columns.ITEM_ID).is_in(warm.implode())).alias(Columns.COLD))
    return Split(replace(dataset.with_events(train), log=_earlier(dataset.log, late)), test, name, words)


def _earlier(log: pl.DataFrame | None, late: pl.DataFrame) -> pl.DataFrame | None:
    """The log of every type without what a user did from the first event on that is held back of him; None where there are no times to tell."""
    if log is None or late.is_empty() or late[Columns.TIMESTAMP].null_count() or log[Columns.TIMESTAMP].null_count():
        return None
    first = late.group_by(Columns.USER_ID).agg(pl.col(Columns.TIMESTAMP).min().alias(_FIRST))
    joined = log.join(first, on=Columns.USER_ID, how="left", maintain_order="left")
    kept = joined.filter(pl.col(_FIRST).is_null() | (pl.col(Columns.TIMESTAMP) < pl.col(_FIRST)))
    return kept.drop(_FIRST)
