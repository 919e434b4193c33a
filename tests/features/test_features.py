"""The batch road and the road of single events lead to the same memory, and the numbers are those one expects."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.features.base import Feature, FeatureQuery, fold
from tastemaker.features.item_counts import DAY, ItemCounts
from tastemaker.features.user_history import UserHistory
from tastemaker.schema.events import Event

EVENTS = st.lists(
    st.builds(
        Event,
        user_id=st.sampled_from("uvw"),
        item_id=st.sampled_from("ijk"),
        timestamp=st.none() | st.floats(1.5e9, 1.5e9 + 90 * DAY),
    ),
    max_size=40,
)
FEATURES: list[Feature[object]] = [ItemCounts(half_life=DAY), ItemCounts(half_life=3_600.0), UserHistory(), UserHistory(length=3)]  # type: ignore[list-item]


def table(events: list[Event]) -> pl.DataFrame:
    rows = [(event.user_id, event.item_id, event.timestamp) for event in events]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}, orient="row")


@pytest.mark.parametrize("feature", FEATURES, ids=repr)
@settings(max_examples=60, deadline=None)
@given(events=EVENTS, now=st.floats(1.5e9, 1.5e9 + 120 * DAY), data=st.data())
def test_law_a_table_at_once_is_the_fold_of_its_events(
    feature: Feature[object], events: list[Event], now: float, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    once = feature.batch(table(events))
    single = fold(feature, events)
    mixed = feature.batch(table(events[:cut]))  # trained on the past, then folded live
    for event in events[cut:]:
        feature.update(mixed, event)
    for user in "uvwx":
        query = FeatureQuery(user, ["i", "j", "k", "unknown"], now)
        numbers = feature.gives(once, query)
        assert numbers.shape == (4, len(feature.names))
        np.testing.assert_allclose(numbers, feature.gives(single, query), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(numbers, feature.gives(mixed, query), rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, seed=st.randoms())
def test_law_counts_know_no_order(events: list[Event], seed: object) -> None:
    shuffled = list(events)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    feature, query = ItemCounts(half_life=DAY), FeatureQuery("u", ["i", "j"], 1.5e9 + 100 * DAY)
    np.testing.assert_allclose(
        feature.gives(fold(feature, events), query), feature.gives(fold(feature, shuffled), query), rtol=1e-5, atol=1e-6
    )


def test_an_event_weighs_half_after_its_half_life() -> None:
    feature = ItemCounts(half_life=DAY)
    state = fold(feature, [Event(user_id="u", item_id="i", timestamp=0.0), Event(user_id="u", item_id="i", timestamp=DAY)])
    numbers = feature.gives(state, FeatureQuery("u", ["i", "new"], 2 * DAY))
    np.testing.assert_allclose(numbers, [[math.log(3), 0.75], [0, 0]], rtol=1e-6)


def test_history_tells_how_long_ago() -> None:
    feature = UserHistory(length=2)
    events = [Event(user_id="u", item_id=item, timestamp=time) for item, time in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    numbers = feature.gives(fold(feature, events), FeatureQuery("u", ["a", "c"], 10.0))
    assert numbers[:, 0] == pytest.approx([math.log(4)] * 2)
    assert numbers[:, 1] == pytest.approx([math.log(8)] * 2)
    assert numbers[0, 2] == 0, "the oldest beyond `length` is forgotten"
    assert math.isnan(numbers[0, 3])
    assert numbers[1, 2:] == pytest.approx([math.log(2), math.log(8)])
    assert np.isnan(feature.gives({}, FeatureQuery("nobody", ["a"], 10.0))[0, [1, 3]]).all()
