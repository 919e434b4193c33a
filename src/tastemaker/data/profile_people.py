"""What people do: visits, repeated pairs, and users who look like machines.

All of this needs the events of one user together. The log is read in parts, each with all events of some of the users, so that memory is
bounded by a part and not by the log.
"""

from __future__ import annotations

import heapq

import msgspec
import polars as pl

from tastemaker.data.profile_times import DAY, Clock, timed_only
from tastemaker.data.tallies import Tally
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import DataSettings, ProfileSettings

PART = 2_000_000
"""Events in one part, about."""
LISTED = 100
"""Suspects that are named, those with most events first; all are counted."""
LENGTHS = (0, 1, 60, 300, 900, 1_800, 3_600, 7_200)
"""Left edges, in seconds, of the columns of visit lengths."""


class Visits(msgspec.Struct, kw_only=True, frozen=True):
    """Visits: events of one user of which none is more than `gap` seconds after the one before.

    Attributes:
        n: visits. single: share of them with one event.
        seconds_*: from the first to the last event of a visit; events_*: of a visit.
        lengths: (seconds, visits at least that long and shorter than the next entry).
        sizes: (events, visits with at least that many and fewer than the next entry).
    """

    gap: float
    n: int
    single: float
    seconds_mean: float
    seconds_median: int
    seconds_p90: int
    events_mean: float
    events_median: int
    events_p90: int
    lengths: list[tuple[int, int]]
    sizes: list[tuple[int, int]]


class Repeats(msgspec.Struct, kw_only=True, frozen=True):
    """Repeated events.

    Attributes:
        pairs: different (user, item) pairs. repeated_pairs: those with more than one event.
        repeats: events that are not the first of their pair.
        copies: events that agree with an earlier one in user, item, type and time.
    """

    pairs: int
    repeated_pairs: int
    repeats: int
    copies: int


class Suspect(msgspec.Struct, kw_only=True, frozen=True):
    """A user who looks like a machine.

    Attributes:
        busiest_day, busiest_minute: most events in one day and in one minute (UTC); the minute is None where only days are known.
        variation: standard deviation of the seconds between events over their mean: 1 for chance, 0 for a clock; None for few events.
        reasons: which bounds of the settings were passed.
    """

    user_id: str
    events: int
    busiest_day: int
    busiest_minute: int | None
    variation: float | None
    reasons: list[str]


class Suspects(msgspec.Struct, kw_only=True, frozen=True):
    """All suspects: how many, their events, and the busiest of them by name."""

    n: int
    events: int
    listed: list[Suspect]


class People(msgspec.Struct, kw_only=True, frozen=True):
    """What `people_of` finds; visits are None where no time of day is known, suspects where no time is."""

    visits: Visits | None
    repeats: Repeats
    suspects: Suspects | None


class _Count:
    """Running sums over the parts."""

    def __init__(self) -> None:
        self.seconds, self.sizes = Tally(), Tally()
        self.pairs = self.repeated_pairs = self.repeats = self.copies = 0
        self.suspects = self.suspect_events = 0
        self.listed: list[tuple[int, str, Suspect]] = []


def people_of(
    events: pl.LazyFrame, total: int, clock: Clock, data: DataSettings, settings: ProfileSettings, tell: Progress
) -> People:
    """Reads the log part by part."""
    parts, count = max(-(-total // PART), 1), _Count()
    columns = events.select(Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_TYPE, Columns.TIMESTAMP)
    for number in range(parts):
        part = columns.filter(pl.col(Columns.USER_ID).hash(0) % parts == number) if parts > 1 else columns
        table = part.collect(engine="streaming")
        _add_repeats(count, table)
        timed = timed_only(table.lazy()).sort(Columns.USER_ID, Columns.TIMESTAMP).collect()
        if clock.kind == "seconds":
            _add_visits(count, timed, settings.session_gap)
        if clock.timed:
            _add_suspects(count, timed, clock, data, settings)
        tell("visits, repeats, machines", number + 1, parts)
    return People(
        visits=_visits(count, settings.session_gap) if clock.kind == "seconds" else None,
        repeats=Repeats(pairs=count.pairs, repeated_pairs=count.repeated_pairs, repeats=count.repeats, copies=count.copies),
        suspects=Suspects(
            n=count.suspects, events=count.suspect_events, listed=[one for _, _, one in sorted(count.listed, reverse=True)]
        )
        if clock.timed
        else None,
    )


def _add_repeats(count: _Count, table: pl.DataFrame) -> None:
    pairs = table.group_by(Columns.USER_ID, Columns.ITEM_ID).len()["len"]
    count.pairs += pairs.len()
    count.repeated_pairs += int((pairs > 1).sum())
    count.repeats += int(pairs.sum()) - pairs.len()
    timed = timed_only(table.lazy()).collect()
    count.copies += timed.height - timed.n_unique()


def _add_visits(count: _Count, timed: pl.DataFrame, gap: float) -> None:
    """Counts the visits of a table that is sorted by user and time."""
    user, time = pl.col(Columns.USER_ID), pl.col(Columns.TIMESTAMP)
    begins = (user != user.shift()) | (time - time.shift() > gap)
    visits = timed.group_by(begins.fill_null(True).cum_sum().alias("visit")).agg(
        pl.len(), (time.max() - time.min()).round(0, "half_away_from_zero").alias("seconds")
    )
    count.sizes.add(visits["len"])
    count.seconds.add(visits["seconds"])


def _visits(count: _Count, gap: float) -> Visits:
    powers = [2**power for power in range(count.sizes.quantile(1.0).bit_length())]
    seconds, sizes = count.seconds, count.sizes
    return Visits(
        gap=gap,
        n=sizes.total,
        single=sizes.between([1, 2])[0] / sizes.total,
        seconds_mean=seconds.mean(),
        seconds_median=seconds.quantile(0.5),
        seconds_p90=seconds.quantile(0.9),
        events_mean=sizes.mean(),
        events_median=sizes.quantile(0.5),
        events_p90=sizes.quantile(0.9),
        lengths=list(zip(LENGTHS, seconds.between(LENGTHS), strict=True)),
        sizes=list(zip(powers, sizes.between(powers), strict=True)),
    )


def _add_suspects(count: _Count, timed: pl.DataFrame, clock: Clock, data: DataSettings, settings: ProfileSettings) -> None:
    """Looks at users with enough events to pass any bound; the table is sorted by user and time."""
    per_minute = settings.bot_events_per_minute if clock.kind == "seconds" else None
    regular = settings.bot_least_events if clock.kind == "seconds" else None
    least = min(bound for bound in (data.bot_events_per_day + 1, per_minute and per_minute + 1, regular) if bound)
    user, time = pl.col(Columns.USER_ID), pl.col(Columns.TIMESTAMP)
    busy = timed.filter(pl.len().over(user) >= least)
    gaps = time.diff().over(user)
    table = (
        busy.with_columns(gaps.alias("gap"))
        .group_by(user)
        .agg(
            pl.len().alias("events"),
            (time // DAY).value_counts(name="n").struct.field("n").max().alias("day"),
            (time // 60).value_counts(name="n").struct.field("n").max().alias("minute"),
            (pl.col("gap").std(ddof=0) / pl.col("gap").mean()).alias("variation"),
        )
    )
    for name, events, day, minute, variation in table.iter_rows():
        steady = None
        if regular is not None and events >= regular and variation is not None and variation == variation:
            steady = variation  # NaN, for no time passed at all, is none
        reasons = [f"{day:,} events in a day"] if day > data.bot_events_per_day else []
        if per_minute is not None and minute > per_minute:
            reasons.append(f"{minute:,} events in a minute")
        if steady is not None and steady < settings.bot_gap_variation:
            reasons.append("as regular as a clock")
        if reasons:
            count.suspects += 1
            count.suspect_events += events
            suspect = Suspect(
                user_id=name,
                events=events,
                busiest_day=day,
                busiest_minute=minute if per_minute is not None else None,
                variation=steady,
                reasons=reasons,
            )
            entry = (events, name, suspect)
            (heapq.heappush if len(count.listed) < LISTED else heapq.heappushpop)(count.listed, entry)
