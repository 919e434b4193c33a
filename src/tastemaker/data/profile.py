"""What a journal holds, in figures: everything that `reports/profile.html` shows and `reports/profile.json` tells.

Events are read lazily and in pieces, so that memory grows with users and items and not with events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

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

STEPS = 11
Each = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


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


def look(journal: Journal, settings: Settings, tell: Progress, spread: Each | None = None) -> tuple[Profile, Baseline]:
    """The profile of a journal, and the baseline that training on it would write.

    Args:
        tell: called as tell(what, done, total).
        spread: runs a step on every task and gives the results in order, such as `data._ray.each`; None: one after the other, here.

    Raises:
        InputError: it holds no event.
    """
    if not journal.position():
        raise InputError("The journal holds no event to look at. Import some first: tastemaker import DIR --events FILE")
    events, items = journal.scan(), journal.items()
    profile = profile_of(events, items, settings, tell, spread)
    baseline = baseline_of_log(events, items, settings.data.positive)
    tell("profile", STEPS, STEPS)
    return profile, baseline


def profile_of(
    events: pl.LazyFrame, items: pl.DataFrame, settings: Settings, tell: Progress, spread: Each | None = None
) -> Profile:
    """Measures a log with the journal's columns, at least one event, and its catalogue (`journal.catalogue.ITEM_SCHEMA`); arguments as of `look`."""
    clock = clock_of(events)
    tell("profile", 1, STEPS)
    users = tail_of(each(events, Columns.USER_ID))
    tell("profile", 2, STEPS)
    parts = _parts(events, items, settings, clock, users.events, tell if spread is None else _silent)
    found: dict[str, Any] = {}
    if spread is None:
        for place, (name, part) in enumerate(parts.items()):
            found[name] = part()
            tell("profile", 3 + place, STEPS)
    else:
        found = dict(zip(parts, spread(lambda name: parts[name](), list(parts)), strict=True))
    people, (types, labels, positive) = found["people"], found["shares"]
    return Profile(
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        events=users.events,
        clock=clock,
        users=users,
        items=found["items"],
        timeline=found["timeline"],
        newness=found["newness"],
        visits=people.visits,
        repeats=people.repeats,
        suspects=people.suspects,
        types=types,
        labels=labels,
        positive=positive,
        value=found["value"],
        catalogue=found["catalogue"],
        features=found["features"],
    )


def _parts(
    events: pl.LazyFrame, items: pl.DataFrame, settings: Settings, clock: Clock, total: int, tell: Progress
) -> dict[str, Callable[[], Any]]:
    """Figures that need none of each other, the longest work first."""
    timed = timed_only(events)
    return {
        "people": lambda: people_of(events, total, clock, settings.data, settings.profile, tell),
        "features": lambda: features_of(timed, items, settings) if clock.timed else None,
        "newness": lambda: newness_of(timed, clock) if clock.timed else None,
        "timeline": lambda: timeline_of(timed, clock) if clock.timed else None,
        "catalogue": lambda: catalogue_of(items, events) if items.height else None,
        "items": lambda: tail_of(each(events, Columns.ITEM_ID)),
        "shares": lambda: _shares(events, settings.data.positive),
        "value": lambda: numbers_of(events, Columns.VALUE),
    }


def _silent(what: str, done: int, total: int) -> None:
    """Where nobody can be told."""


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
