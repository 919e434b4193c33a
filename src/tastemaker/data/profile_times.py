"""When things happen: events a day and the gaps between, the hours of the week, and what is new in each period. All times are UTC."""

from __future__ import annotations

import datetime

import msgspec
import numpy as np
import polars as pl

from tastemaker.data.times import ORDER_BELOW
from tastemaker.schema.columns import Columns

DAY = 86_400
LATEST = 1e11
"""Seconds; a time beyond it (the year 5138) is no time."""
DAILY = 400
"""The longest log, in days, that is drawn day by day; longer ones are drawn in wider steps."""
PERIODS = 60
"""Periods in which new items and users are counted, at most."""
LONGEST_GAPS = 10
_STEPS = (1, 7, 30, 91, 365, 3_650, 36_500)


class Clock(msgspec.Struct, kw_only=True, frozen=True):
    """What the times of a log are worth.

    Attributes:
        kind: `seconds`; `days`, where only the day is known; `order`, where numbers are places in a history; `none`.
        timed: events with a real time. first, last: epoch seconds of the earliest and the latest of them.
    """

    kind: str
    timed: int
    first: float | None = None
    last: float | None = None


class Gap(msgspec.Struct, kw_only=True, frozen=True):
    """Whole days (UTC) without any event between two days with some."""

    first: str
    last: str
    days: int


class Timeline(msgspec.Struct, kw_only=True, frozen=True):
    """Events over time.

    Attributes:
        step: days of one column. columns: (first day, events, days without any event).
        days: from the first to the last day. empty_days: those without any event.
        gaps: how many runs of empty days there are; `longest_gaps`: the longest of them.
        busiest: the day with most events, and how many.
        hours: events in each hour of the week, Monday 0 h first, 168 numbers; empty where only the day is known.
    """

    step: int
    columns: list[tuple[str, int, int]]
    days: int
    empty_days: int
    gaps: int
    longest_gaps: list[Gap]
    busiest: tuple[str, int]
    hours: list[int]


class Period(msgspec.Struct, kw_only=True, frozen=True):
    """Some days from `begin` on: all events, and those whose item, and whose user, was first seen in this very period."""

    begin: str
    events: int
    new_item: int
    new_user: int


class Newness(msgspec.Struct, kw_only=True, frozen=True):
    """The cold share over time. `step`: days of a period. In the first period everything is new."""

    step: int
    periods: list[Period]


def timed_only(events: pl.LazyFrame) -> pl.LazyFrame:
    """The events with a real time."""
    return events.filter(pl.col(Columns.TIMESTAMP).is_between(ORDER_BELOW, LATEST))


def clock_of(events: pl.LazyFrame) -> Clock:
    """Looks at all times of a log."""
    time = pl.col(Columns.TIMESTAMP)
    of_day = time % DAY
    row = timed_only(events).select(
        pl.len(), time.min().alias("first"), time.max().alias("last"), of_day.min().alias("early"), of_day.max().alias("late")
    )
    timed, first, last, early, late = row.collect(engine="streaming").row(0)
    if not timed:
        places = int(events.select(time.count()).collect(engine="streaming").item())
        return Clock(kind="order" if places else "none", timed=0)
    only_days = early == late and (early == 0 or timed >= 10)
    return Clock(kind="days" if only_days else "seconds", timed=timed, first=first, last=last)


def timeline_of(timed: pl.LazyFrame, clock: Clock) -> Timeline:
    """Events of each day, and the hours of the week."""
    day = (pl.col(Columns.TIMESTAMP) // DAY).cast(pl.Int64).alias("day")
    table = timed.group_by(day).len().sort("day").collect(engine="streaming")
    days, counts = table["day"].to_numpy(), table["len"].to_numpy()
    span = int(days[-1] - days[0]) + 1
    step = _step(span, DAILY)
    place = (days - days[0]) // step
    columns = np.bincount(place, weights=counts).astype(np.int64)
    met = np.bincount(place)
    lengths = [min(step, span - step * number) for number in range(len(columns))]
    apart = np.diff(days) - 1
    longest = [place for place in np.argsort(-apart, kind="stable")[:LONGEST_GAPS] if apart[place] > 0]
    most = int(counts.argmax())
    return Timeline(
        step=step,
        columns=[
            (_date(int(days[0]) + step * number), int(columns[number]), lengths[number] - int(met[number]))
            for number in range(len(columns))
        ],
        days=span,
        empty_days=span - len(days),
        gaps=int((apart > 0).sum()),
        longest_gaps=[
            Gap(first=_date(days[place] + 1), last=_date(days[place + 1] - 1), days=int(apart[place])) for place in longest
        ],
        busiest=(_date(days[most]), int(counts[most])),
        hours=_hours(timed) if clock.kind == "seconds" else [],
    )


def newness_of(timed: pl.LazyFrame, clock: Clock) -> Newness:
    """For each period the events whose item, and whose user, nobody had seen before it."""
    assert clock.first is not None
    assert clock.last is not None
    first_day = int(clock.first // DAY)
    step = _step(int(clock.last // DAY) - first_day + 1, PERIODS)
    period = ((pl.col(Columns.TIMESTAMP) // DAY).cast(pl.Int64) - first_day) // step
    dated = timed.select(Columns.USER_ID, Columns.ITEM_ID, period.alias("period"))
    events = _count(dated)
    new = {name: _count(_of_first_period(dated, name)) for name in (Columns.ITEM_ID, Columns.USER_ID)}
    periods = [
        Period(
            begin=_date(first_day + step * number),
            events=events.get(number, 0),
            new_item=new[Columns.ITEM_ID].get(number, 0),
            new_user=new[Columns.USER_ID].get(number, 0),
        )
        for number in range(max(events) + 1)
    ]
    return Newness(step=step, periods=periods)


def _of_first_period(dated: pl.LazyFrame, name: str) -> pl.LazyFrame:
    first = dated.group_by(name).agg(pl.col("period").min())
    return dated.select(name, "period").join(first, on=[name, "period"], how="semi")


def _count(dated: pl.LazyFrame) -> dict[int, int]:
    return dict(dated.group_by("period").len().collect(engine="streaming").iter_rows())


def _hours(timed: pl.LazyFrame) -> list[int]:
    hour = (pl.col(Columns.TIMESTAMP) // 3_600).cast(pl.Int64)
    of_week = ((hour + 3 * 24) % 168).alias("hour")  # 1970-01-01 was a Thursday
    found = dict(timed.group_by(of_week).len().collect(engine="streaming").iter_rows())
    return [int(found.get(place, 0)) for place in range(168)]


def _step(days: int, most: int) -> int:
    return next((step for step in _STEPS if days <= step * most), _STEPS[-1])


def _date(day: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))).isoformat()
