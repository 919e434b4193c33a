"""What a journal holds, in figures: everything that `reports/profile.html` shows and `reports/profile.json` tells.

Events are read lazily and in pieces, so that memory grows with users and items and not with events.
"""

from __future__ import annotations

import time

import msgspec
import polars as pl

from tastemaker.data.baseline import baseline_of_log
from tastemaker.data.numbers import Numbers, numbers_of
from tastemaker.data.profile_catalogue import CatalogueFigures, catalogue_of
from tastemaker.data.profile_features import FeatureProfile, features_of
from tastemaker.data.profile_people import Repeats, Suspects, Visits, people_of
from tastemaker.data.profile_times import Clock, Newness, Timeline, clock_of, newness_of, timed_only, timeline_of
from tastemaker.data.select import condition
from tastemaker.data.tallies import Tail, each, tail_of
from tastemaker.journal.append import Journal
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings

STEPS = 10


class Share(msgspec.Struct, kw_only=True, frozen=True):
    """An event type, or a label of the settings, and the events that have it. `valued`: those of them with a value."""

    name: str
    events: int
    valued: int


class Profile(msgspec.Struct, kw_only=True, frozen=True):
    """All figures.

    Attributes:
        made: when, UTC. events: all of them. clock: what their times are worth.
        users, items: how events fall on them.
        timeline, newness: None where no time is known.
        visits: None where no time of day is known. suspects: None where no time is.
        types: event types, most frequent first. labels: each expression of `data.positive`. positive: events with at least one of them.
        value: the values of events. catalogue: None where it is empty.
        features: None where none are declared, or no time is known.
    """

    made: str
    events: int
    clock: Clock
    users: Tail
    items: Tail
    timeline: Timeline | None
    newness: Newness | None
    visits: Visits | None
    repeats: Repeats
    suspects: Suspects | None
    types: list[Share]
    labels: list[Share]
    positive: int
    value: Numbers
    catalogue: CatalogueFigures | None
    features: FeatureProfile | None = None


def look(journal: Journal, settings: Settings, tell: Progress) -> tuple[Profile, Baseline]:
    """The profile of a journal, and the baseline that training on it would write.

    Raises:
        InputError: it holds no event.
    """
    if not journal.position():
        raise InputError("The journal holds no event to look at. Import some first: tastemaker import DIR --events FILE")
    events, items = journal.scan(), journal.items()
    profile = profile_of(events, items, settings, tell)
    baseline = baseline_of_log(events, items, settings.data.positive)
    tell("profile", STEPS, STEPS)
    return profile, baseline


def profile_of(events: pl.LazyFrame, items: pl.DataFrame, settings: Settings, tell: Progress) -> Profile:
    """Measures a log with the journal's columns, at least one event, and its catalogue (`journal.catalogue.ITEM_SCHEMA`)."""
    clock = clock_of(events)
    timed = timed_only(events)
    tell("profile", 1, STEPS)
    users, met = tail_of(each(events, Columns.USER_ID)), tail_of(each(events, Columns.ITEM_ID))
    tell("profile", 2, STEPS)
    timeline = timeline_of(timed, clock) if clock.timed else None
    tell("profile", 3, STEPS)
    newness = newness_of(timed, clock) if clock.timed else None
    tell("profile", 4, STEPS)
    people = people_of(events, users.events, clock, settings.data, settings.profile, tell)
    tell("profile", 5, STEPS)
    types, labels, positive = _shares(events, settings.data.positive)
    tell("profile", 6, STEPS)
    value = numbers_of(events, Columns.VALUE)
    tell("profile", 7, STEPS)
    catalogue = catalogue_of(items, events) if items.height else None
    tell("profile", 8, STEPS)
    features = features_of(timed, items, settings) if clock.timed else None
    tell("profile", 9, STEPS)
    return Profile(
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        events=users.events,
        clock=clock,
        users=users,
        items=met,
        timeline=timeline,
        newness=newness,
        visits=people.visits,
        repeats=people.repeats,
        suspects=people.suspects,
        types=types,
        labels=labels,
        positive=positive,
        value=value,
        catalogue=catalogue,
        features=features,
    )


def _shares(events: pl.LazyFrame, labels: list[str]) -> tuple[list[Share], list[Share], int]:
    """Event types, labels, and the events with at least one label (all of them where there is no label)."""
    valued = pl.col(Columns.VALUE).is_not_null()
    table = events.group_by(Columns.EVENT_TYPE).agg(pl.len().alias("n"), valued.sum().alias("valued")).collect(engine="streaming")
    table = table.sort(["n", Columns.EVENT_TYPE], descending=[True, False])
    types = [Share(name=name, events=n, valued=some) for name, n, some in table.iter_rows()]
    if not labels:
        return types, [], sum(one.events for one in types)
    conditions = [condition(label) for label in labels]
    sums = [one.sum().alias(f"n{place}") for place, one in enumerate(conditions)]
    sums += [(one & valued).sum().alias(f"v{place}") for place, one in enumerate(conditions)]
    row = events.select(*sums, pl.any_horizontal(*conditions).sum().alias("any")).collect(engine="streaming").row(0, named=True)
    found = [Share(name=label, events=row[f"n{place}"], valued=row[f"v{place}"]) for place, label in enumerate(labels)]
    return types, found, row["any"]
