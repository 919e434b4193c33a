"""The contract of every registered feature: a table at once, single events in any order, and training rows tell the same numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import DAY, EVENTS, EVERY, IDS, TIMES, features, fold, questions, table

from tastemaker.features import timeline
from tastemaker.features.base import FeatureQuery
from tastemaker.features.declare import REGISTRY, declare
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.rows import when
from tastemaker.features.state import State
from tastemaker.schema.events import Event

USERS = ("u", "v", "用户", "nobody")
ASKED = (*IDS, "unlisted", "unknown")
ALL_FEATURES = features()
quick = settings(max_examples=35, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def now_of(made: FeatureSet, state: State, now: float, device: str | None = None) -> np.ndarray:
    """The numbers of every user and item at one moment, as requests would get them."""
    context = None if device is None else {"device": device}
    return np.concatenate([made.gives(state, FeatureQuery(user, ASKED, now, context)) for user in USERS])


def same(made: FeatureSet, left: np.ndarray, right: np.ndarray) -> None:
    """Equal numbers; a difference is told by the name of its column."""
    wrong = ~np.isclose(left, right, rtol=1e-5, atol=1e-5)
    assert np.isfinite(left).all(), ", ".join(made.names[column] for column in np.flatnonzero(~np.isfinite(left).all(axis=0)))
    assert not wrong.any(), ", ".join(made.names[column] for column in np.flatnonzero(wrong.any(axis=0)))


def test_every_registered_feature_is_under_the_laws() -> None:
    assert set(REGISTRY) == {text.partition("(")[0] for text in EVERY}
    assert len(ALL_FEATURES.names) == len(set(ALL_FEATURES.names))
    for text in EVERY:
        assert declare(text).names == declare(declare(text).text).names


@quick
@given(events=EVENTS, later=st.sampled_from([0.0, 1.0, 3_000.0, 2 * DAY]), shuffler=st.randoms(use_true_random=False))
def test_law_a_table_at_once_is_the_fold_of_its_events_in_any_order(
    events: list[Event], later: float, shuffler: random.Random
) -> None:
    shuffled = list(events)
    shuffler.shuffle(shuffled)
    now = max((when(event.timestamp) for event in events), default=0.0)
    now = (now if np.isfinite(now) else 0.0) + later  # later = 0: at the very moment of the last event, which must not be seen
    once, folded = ALL_FEATURES.remember(table(events)), fold(ALL_FEATURES, shuffled)
    cut = len(events) // 2
    mixed = fold(ALL_FEATURES, shuffled[cut:], ALL_FEATURES.remember(table(shuffled[:cut])))
    for state in (folded, mixed):
        same(ALL_FEATURES, now_of(ALL_FEATURES, once, now, "mobile"), now_of(ALL_FEATURES, state, now, "mobile"))


def past_and_live(events: Sequence[Event], times: Sequence[float | None]) -> None:
    """Training rows are what a service would have answered that had folded the earlier events, one by one."""
    rows = ALL_FEATURES.rows(table(events), questions(USERS, ASKED, times, "fridge")).reshape(
        len(USERS) * len(ASKED), len(times), -1
    )
    for place, time in enumerate(times):
        earlier = [event for event in events if when(event.timestamp) < when(time)]
        state = fold(ALL_FEATURES, earlier)
        same(ALL_FEATURES, rows[:, place], now_of(ALL_FEATURES, state, when(time), "fridge"))


@quick
@given(events=EVENTS, times=st.lists(TIMES, min_size=1, max_size=4))
def test_law_training_rows_are_what_a_service_would_have_answered(events: list[Event], times: list[float | None]) -> None:
    past_and_live(events, [*times, *(event.timestamp for event in events[:3])])


@quick
@given(events=EVENTS, more=EVENTS, time=TIMES)
def test_law_no_number_knows_what_comes_later(events: list[Event], more: list[Event], time: float | None) -> None:
    asked = questions(USERS, ASKED, [time])
    everything = [msgspec.structs.replace(event, event_id=f"f{event.event_id}") for event in more] + events
    earlier = [event for event in everything if when(event.timestamp) < when(time)]
    same(ALL_FEATURES, ALL_FEATURES.rows(table(everything), asked), ALL_FEATURES.rows(table(earlier), asked))


SIX = [
    Event(event_id=f"e{n}", user_id="u", item_id=IDS[n % 2], event_type="view", timestamp=DAY * (n // 2), value=4.0)
    for n in range(6)
]


def test_a_join_that_sees_ties_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    past_and_live(SIX, [2 * DAY])
    monkeypatch.setattr(timeline, "STRICTLY_BEFORE", "right")  # the classic leak: <= instead of <
    with pytest.raises(AssertionError, match="user_events"):
        past_and_live(SIX, [2 * DAY])


@pytest.mark.parametrize("text", [text for text in EVERY if declare(text).feature.remembers], ids=str)
def test_a_join_that_sees_ties_would_change_every_feature_with_a_memory(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a law that looks at a feature alone has something to catch in each of them."""
    rng, events = random.Random(3), []
    for n in range(60):
        user, item, kind = rng.choice("uv"), IDS[min(n // 12, 4)], rng.choice(["view", "buy", "rate"])
        fields = {"timestamp": DAY * rng.randrange(1, 4), "value": float(rng.randrange(1, 6)), "context": {"device": "tv"}}
        events.append(Event(event_id=f"{n}", user_id=user, item_id=item, event_type=kind, **fields))
    made, asked = features(text), questions(["u"], IDS, [DAY, 2 * DAY, 3 * DAY], "tv")
    honest = made.rows(table(events), asked)
    monkeypatch.setattr(timeline, "STRICTLY_BEFORE", "right")
    assert not np.allclose(honest, made.rows(table(events), asked))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, more=EVENTS)
def test_law_a_saved_state_goes_on_as_if_it_had_never_rested(events: list[Event], more: list[Event], tmp_path: Path) -> None:
    made, now = ALL_FEATURES, 30 * DAY
    state = fold(made, more[:3], made.remember(table(events)))
    made.save(state, tmp_path)
    again, woken = FeatureSet.load(tmp_path)
    assert again.names == made.names
    same(made, now_of(made, state, now), now_of(again, woken, now))
    same(made, now_of(made, fold(made, more[3:], state), now, "tv"), now_of(again, fold(again, more[3:], woken), now, "tv"))
    same(
        made,
        made.rows(table(events), questions(USERS, ASKED, [3 * DAY])),
        again.rows(table(events), questions(USERS, ASKED, [3 * DAY])),
    )


@quick
@given(events=EVENTS)
def test_law_one_feature_alone_tells_what_it_tells_in_company(events: list[Event]) -> None:
    asked = questions(["u"], ASKED, [3 * DAY, 5 * DAY + 900.0])
    together = ALL_FEATURES.rows(table(events), asked)
    text = EVERY[len(events) * 7 % len(EVERY)]
    alone = features(text)
    columns = [ALL_FEATURES.names.index(name) for name in alone.names]
    np.testing.assert_allclose(alone.rows(table(events), asked), together[:, columns], rtol=1e-5, atol=1e-6)
