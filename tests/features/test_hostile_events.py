"""What comes may be absurd; what leaves is finite and defined."""

from __future__ import annotations

import bisect
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DAY, ITEMS, VECTORS, features, fold, questions, table

from tastemaker.features.base import FeatureQuery
from tastemaker.features.declare import declare, declare_all
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.key import USER
from tastemaker.features.memories.faded import Faded
from tastemaker.features.memories.latest import Latest
from tastemaker.features.memories.memory import Moment
from tastemaker.schema.errors import BundleError, InputError, SettingsError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings

WILD = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, 5e-324, 2.0**63]),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
EVENTS = st.lists(
    st.builds(
        Event,
        user_id=TEXT,
        item_id=st.one_of(TEXT, st.sampled_from(["boots", "tent"])),
        event_type=st.sampled_from(["view", "rate", "buy", ""]),
        timestamp=WILD,
        value=WILD,
    ),
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS, times=st.lists(WILD, min_size=1, max_size=3), now=WILD, price=WILD, created=WILD, title=TEXT)
def test_law_no_number_is_nan_or_infinite(
    events: list[Event], times: list[float | None], now: float | None, price: float | None, created: float | None, title: str
) -> None:
    made, users = features(), ["", *(event.user_id for event in events[:2])]
    items = ["tent", "odd", *(event.item_id for event in events[:2])]
    assert np.isfinite(made.rows(table(events), questions(users, items, times))).all()
    state = fold(made, events)
    vector = np.array([np.nan, np.inf, 1], dtype=np.float32)
    made.put_item(state, Item(item_id="odd", price=price, created_at=created, title=title, categories=["", "x"] * 9), vector)
    assert np.isfinite(made.gives(state, FeatureQuery(users[-1], items, np.nan if now is None else now))).all()


def test_empty_tables_have_a_shape() -> None:
    made = features()
    assert made.rows(table([]), questions([], [], [])).shape == (0, len(made.names))
    assert made.rows(table([Event(user_id="u", item_id="i")]), questions([], [], [])).shape == (0, len(made.names))
    assert np.isfinite(made.rows(table([]), questions(["u"], ["i"], [1.0, None]))).all()
    assert made.gives(made.remember(table([])), FeatureQuery("u", [], 1.0)).shape == (0, len(made.names))
    bare = FeatureSet.declared(Settings().features.use)
    assert np.isfinite(bare.rows(table([]), questions(["u"], ["i"], [1.0]))).all()


def test_a_row_without_a_time_sees_nothing() -> None:
    log = [Event(user_id="u", item_id="tent", timestamp=time) for time in (None, 1.0)]
    rows = features("item_events", "user_events").rows(table(log), questions(["u"], ["tent"], [None, 2.0]))
    np.testing.assert_allclose(rows, [[0, 0], [np.log(3), np.log(3)]], rtol=1e-6)


def test_thousands_of_half_lives_lose_nothing() -> None:
    """Sums over a span where 2^(time / half-life) is far beyond floating point, against each event summed on its own."""
    rng, made = np.random.default_rng(0), features("item_faded(half_life=1h)")
    times = np.sort(rng.uniform(0, 5_000 * DAY, 3_000)).tolist()
    times += [5_000 * DAY + hour * 3_600.0 for hour in range(48)]
    log = [Event(user_id="u", item_id="tent", timestamp=time, event_id=f"{place}") for place, time in enumerate(times)]
    asked = [times[5] + 1.0, 2_500 * DAY, 5_000 * DAY + 40 * 3_600.0 + 1.0]
    expected = [sum(0.5 ** ((now - time) / 3_600.0) for time in times[: bisect.bisect_left(times, now)]) for now in asked]
    rows = made.rows(table(log), questions(["u"], ["tent"], asked))[:, 0]
    np.testing.assert_allclose(np.expm1(rows.astype(float)), expected, rtol=1e-5, atol=1e-7)


def test_a_user_with_a_hundred_thousand_events() -> None:
    rng, made = (
        np.random.default_rng(1),
        features("user_events", "user_faded", "session", "user_item", "text_match", "user_events(window=1d)"),
    )
    size = 100_000
    log = pl.DataFrame(
        {
            "user_id": ["u"] * size,
            "item_id": rng.choice(np.array(["boots", "tent", "shoes"]), size),
            "timestamp": np.floor(rng.uniform(0, 60 * DAY, size)),
            "event_id": [f"e{place}" for place in range(size)],
        }
    )
    state = made.remember(log)
    live = made.gives(state, FeatureQuery("u", ["boots", "tent", "茶"], 60 * DAY))
    assert live[:, 0] == pytest.approx(np.log1p(size))
    np.testing.assert_allclose(live, made.rows(log, questions(["u"], ["boots", "tent", "茶"], [60 * DAY])), rtol=1e-4, atol=1e-4)


def test_a_memory_of_the_latest_stays_small_however_many_come_at_one_moment() -> None:
    memory = Latest(USER, length=5)
    content = memory.empty()
    for place in range(2_000):
        memory.update(content, 0, Moment(float(place // 1_000), place, np.nan, f"{place:05}", "i"))
    assert len(content.get(0)) == 10
    seen = memory.read(content, np.array([0]), np.array([2.0]))
    assert seen.items.tolist() == [[1999, 1998, 1997, 1996, 1995]]
    assert memory.read(content, np.array([0]), np.array([1.0])).items.tolist() == [[999, 998, 997, 996, 995]]


def test_a_late_event_has_the_weight_that_it_would_have_by_now() -> None:
    memory = Faded(USER, half_life=10.0)
    content = memory.empty()
    for time in (20.0, 0.0, 10.0):
        memory.update(content, 3, Moment(time, 0, np.nan, "", ""))
    assert memory.read(content, np.array([3, 2, -1, 99]), np.full(4, 30.0)).tolist() == pytest.approx([0.5 + 0.25 + 0.125, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item_evnts", "Did you mean item_events"),
        ("item_events(windw=7d)", "Did you mean window"),
        ("item_events(window=7 parsecs)", "no span of time"),
        ("item_events(window=0d)", "above 0"),
        ("item_events(window)", "parameter=value"),
        ("item_events(window=1d, window=2d)", "twice"),
        ("item_rate(per=view)", "needs of="),
        ("item_rate(of=rating>=four)", "is no label"),
        ("group_events(by=brnd)", "Did you mean brand"),
        ("item_rank(days=0)", "at least 1"),
        ("item_value(smoothing=-1)", "at least 0"),
        ("price(log=1)", "It has none"),
        ("item_events(", "is no feature"),
        ("", "is no feature"),
    ],
)
def test_mistakes_in_a_declaration_are_explained(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        declare(text)


def test_declarations_are_told_by_what_differs_from_the_defaults() -> None:
    assert declare(" item_rate( per = view,of=rating>=4 , smoothing=20) ").text == "item_rate(of=rating>=4, per=view)"
    assert declare("session").names == ("session.events", "session.minutes", "session.dwell", "session.last", "session.same")
    with pytest.raises(SettingsError, match="the same feature"):
        declare_all(["item_faded", "item_faded(half_life=168h)"])
    with pytest.raises(SettingsError, match="No features are declared"):
        FeatureSet.declared([])


def test_the_default_features_are_settings() -> None:
    assert len(declare_all(Settings().features.use)) == len(Settings().features.use)
    changed = load_settings(overrides=['features.use=["price", "item_rate(of=buy, per=view)"]'], environment={})
    assert FeatureSet.declared(changed.features.use).names == [
        "price.log",
        "price.relative",
        "price.known",
        "item_rate(of=buy, per=view)",
    ]


def test_what_does_not_fit_is_refused_with_a_letter(tmp_path: Path) -> None:
    made = features("price")
    with pytest.raises(InputError, match="no timestamp"):
        made.rows(table([]), pl.DataFrame({"user_id": ["u"], "item_id": ["i"]}))
    with pytest.raises(InputError, match="one id each"):
        FeatureSet.declared(["price"], ITEMS, VECTORS[:2])
    with pytest.raises(BundleError, match="no features that can be read"):
        FeatureSet.load(tmp_path)
    made.save(made.remember(table([])), tmp_path)
    (tmp_path / "user.parquet").write_bytes(b"torn")
    with pytest.raises(BundleError, match="no features that can be read"):
        FeatureSet.load(tmp_path)


def test_queries_of_the_past_accept_broken_contexts() -> None:
    asked = questions(["u"], ["tent"], [1.0]).with_columns(pl.Series("context", ["{broken"]))
    assert features("device").rows(table([]), asked).tolist() == [[0, 0, 0, 0]]
