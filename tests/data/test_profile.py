"""Every figure of a profile is checked on logs small enough to count by hand."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import numbers, profile_features, profile_people
from tastemaker.data import profile as profiles
from tastemaker.data.baseline import baseline_of
from tastemaker.data.dataset import Dataset
from tastemaker.data.numbers import numbers_of
from tastemaker.data.profile import Profile
from tastemaker.data.profile_catalogue import scripts_of
from tastemaker.data.profile_features import LEAST
from tastemaker.data.profile_findings import findings
from tastemaker.data.profile_page import profile_page, write_profile
from tastemaker.data.tallies import Tally, tail_of
from tastemaker.journal.append import Journal
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings

DAY, HOUR = 86_400.0, 3_600.0
MONDAY = 1_700_438_400.0  # 2023-11-20 00:00 UTC
PLAIN = "features.use="  # features have tests of their own
DEFAULTS = load_settings(None, [PLAIN], {})


def met(user: str, item: str, time: float | None, kind: str = "view", value: float | None = None) -> Event:
    return Event(user_id=user, item_id=item, timestamp=time, event_type=kind, value=value)


def journal(folder: Path, events: Sequence[Event], items: Sequence[Item] = ()) -> Journal:
    found = Journal.open(folder / "journal")
    found.append(list(events))
    found.put_items(list(items))
    return found


def look(folder: Path, events: Sequence[Event], items: Sequence[Item] = (), chosen: Settings = DEFAULTS) -> Profile:
    return profiles.look(journal(folder, events, items), chosen, lambda *_: None)[0]


def words(page: str) -> str:
    """The text of a page as a reader sees it."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page)).split())


def test_days_gaps_and_hours(tmp_path: Path) -> None:
    times = [MONDAY + 3 * HOUR, MONDAY + 3 * HOUR + 1, MONDAY + DAY, MONDAY + 4 * DAY + 23 * HOUR, MONDAY + 6 * DAY]
    found = look(tmp_path, [met("u", f"i{place}", time) for place, time in enumerate(times)]).timeline
    assert found is not None
    assert (found.step, found.days, found.empty_days, found.gaps) == (1, 7, 3, 2)
    assert [(gap.first, gap.last, gap.days) for gap in found.longest_gaps] == [
        ("2023-11-22", "2023-11-23", 2),
        ("2023-11-25", "2023-11-25", 1),
    ]
    assert [count for _, count, _ in found.columns] == [2, 1, 0, 0, 1, 0, 1]
    assert [empty for _, _, empty in found.columns] == [0, 0, 1, 1, 0, 1, 0]
    assert found.busiest == ("2023-11-20", 2)
    assert {hour: count for hour, count in enumerate(found.hours) if count} == {3: 2, 24: 1, 4 * 24 + 23: 1, 6 * 24: 1}


def test_a_long_log_is_drawn_in_wider_steps_and_no_event_is_lost(tmp_path: Path) -> None:
    found = look(tmp_path, [met("u", "i", MONDAY + 10 * place * DAY + place) for place in range(100)]).timeline
    assert found is not None
    assert (found.step, found.days, found.gaps, found.empty_days) == (7, 991, 99, 891)
    assert sum(count for _, count, _ in found.columns) == 100
    assert sum(empty for _, _, empty in found.columns) == 891
    assert len(found.columns) == 142
    assert found.columns[-1] == ("2026-08-03", 1, 3), "991 days are 141 weeks and 4 days"


def test_what_is_new_in_each_period(tmp_path: Path) -> None:
    rows = [("a", "x", 0), ("a", "x", 0), ("a", "y", 1), ("b", "x", 1), ("b", "z", 1), ("a", "x", 3), ("c", "z", 3)]
    found = look(tmp_path, [met(user, item, MONDAY + day * DAY + place) for place, (user, item, day) in enumerate(rows)]).newness
    assert found is not None
    assert found.step == 1
    assert [(one.events, one.new_item, one.new_user) for one in found.periods] == [(2, 2, 2), (3, 2, 2), (0, 0, 0), (2, 0, 1)]


def test_visits_end_after_the_gap_and_not_at_it(tmp_path: Path) -> None:
    of_a = [0, 1_800, 3_600, 5_401, 9_000]  # 1,800 seconds is no gap, 1,801 is one
    events = [met("a", f"i{place}", MONDAY + time) for place, time in enumerate(of_a)] + [met("b", "i", MONDAY + 5_402)]
    found = look(tmp_path, events).visits
    assert found is not None
    assert (found.n, found.single) == (4, 3 / 4)
    assert (found.events_mean, found.events_median, found.events_p90) == (6 / 4, 1, 3)
    assert (found.seconds_mean, found.seconds_median, found.seconds_p90) == (900.0, 0, 3_600)
    assert dict(found.lengths) == {0: 3, 1: 0, 60: 0, 300: 0, 900: 0, 1_800: 0, 3_600: 1, 7_200: 0}
    assert found.sizes == [(1, 3), (2, 1)]
    other = look(tmp_path / "other", events, chosen=load_settings(None, [PLAIN, "profile.session_gap=3600"], {})).visits
    assert other is not None
    assert other.n == 2


def test_repeats_and_copies(tmp_path: Path) -> None:
    events = [met("a", "x", MONDAY), met("a", "x", MONDAY), met("a", "x", MONDAY, "buy"), met("a", "y", MONDAY + 1)]
    events += [met("b", "x", MONDAY + 2), met("b", "x", MONDAY + 3)]
    found = look(tmp_path, events).repeats
    assert (found.pairs, found.repeated_pairs, found.repeats, found.copies) == (3, 2, 3, 1)


def test_machines_are_named_with_their_reasons(tmp_path: Path) -> None:
    clock = [met("clock", f"i{place}", MONDAY + 600 * place) for place in range(60)]
    burst = [met("burst", f"i{place}", MONDAY + 5 * HOUR + place * 0.9) for place in range(61)]
    busy = [met("busy", "i", MONDAY + 7 * DAY + 500 * place + 300 * (place % 2)) for place in range(101)]
    rng = np.random.default_rng(0)
    human = [met("human", f"i{place}", MONDAY + float(time)) for place, time in enumerate(rng.exponential(4_000, 100).cumsum())]
    sixty = [met("sixty", f"i{place}", MONDAY + 9 * HOUR + place * 0.5 + (place == 60) * 9_000) for place in range(61)]
    chosen = load_settings(None, [PLAIN, "data.bot_events_per_day=100"], {})
    found = look(tmp_path, clock + burst + busy + human + sixty, chosen=chosen).suspects
    assert found is not None
    assert {one.user_id: one.reasons for one in found.listed} == {
        "busy": ["101 events in a day"],
        "burst": ["61 events in a minute", "as regular as a clock"],
        "clock": ["as regular as a clock"],
    }
    assert [one.user_id for one in found.listed] == ["busy", "burst", "clock"], "most events first"
    assert (found.n, found.events) == (3, 222)
    of_clock = found.listed[2]
    assert (of_clock.busiest_day, of_clock.busiest_minute) == (60, 1)
    assert of_clock.variation == pytest.approx(0.0, abs=1e-9)
    assert found.listed[0].variation == pytest.approx(0.6, abs=0.01), "gaps of 800 and of 200 seconds in turn"


def test_parts_of_a_log_give_the_figures_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    users, items, times = rng.integers(0, 40, 2_000), rng.zipf(1.5, 2_000) % 50, MONDAY + rng.exponential(40, 2_000).cumsum()
    events = [met(f"u{u}", f"i{i}", float(round(t))) for u, i, t in zip(users, items, times, strict=True)]
    log = journal(tmp_path, events)
    chosen = load_settings(None, [PLAIN, "profile.bot_events_per_minute=2", "data.bot_events_per_day=50"], {})
    whole, baseline = profiles.look(log, chosen, lambda *_: None)
    assert whole.suspects is not None
    assert whole.suspects.n > 5
    monkeypatch.setattr(profile_people, "PART", 150)
    monkeypatch.setattr(numbers, "PIECE", 100)
    again, same = profiles.look(log, chosen, lambda *_: None)
    assert msgspec.structs.replace(again, made=whole.made) == whole
    assert same == baseline


def test_tails() -> None:
    tail = tail_of(np.array([1, 1, 1, 1, 1, 1, 1, 1, 2, 90]))
    assert (tail.n, tail.events, tail.most, tail.mean, tail.median, tail.single) == (10, 100, 90, 10.0, 1.0, 0.8)
    assert (tail.top_1, tail.top_10) == (0.9, 0.9)
    assert tail.gini == pytest.approx(sum((2 * i - 11) * x for i, x in enumerate([1] * 8 + [2, 90], 1)) / 1_000)
    assert (tail.ranks[0], tail.ranks[-1]) == ((1, 90), (10, 1))
    assert tail_of(np.array([3, 3, 3])).gini == 0.0
    hundred = tail_of(np.arange(1, 201))
    assert hundred.top_1 == pytest.approx((200 + 199) / 20_100)
    assert hundred.top_10 == pytest.approx(sum(range(181, 201)) / 20_100)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=20), min_size=1, max_size=4), st.floats(0.01, 1.0))
def test_a_tally_gathered_in_parts_has_the_quantiles_of_all(parts: list[list[int]], share: float) -> None:
    tally, every = Tally(), sorted(value for part in parts for value in part)
    for part in parts:
        tally.add(pl.Series(part, dtype=pl.Int64))
    assert tally.total == len(every)
    if every:
        assert tally.mean() == pytest.approx(np.mean(every))
        assert tally.quantile(share) == np.quantile(every, share, method="inverted_cdf")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.0, float("nan"), float("inf")]), max_size=60))
def test_numbers_lose_no_row(values: list[float | None]) -> None:
    found = numbers_of(pl.LazyFrame({"x": values}, schema={"x": pl.Float64}), "x")
    finite = [value for value in values if value is not None and np.isfinite(value)]
    base = found.baseline
    assert (base.count, base.missing) == (len(finite), len(values) - len(finite))
    assert sum(base.counts) == sum(found.histogram.counts) == len(finite)
    assert base.edges == sorted(set(base.edges))
    assert list(base.binned(np.array(finite))) == base.counts or not finite
    if finite:
        assert 0 not in base.counts, "no bin is empty of the data that it was made from"
        assert (base.mean, base.std) == pytest.approx((np.mean(finite), np.std(finite)), rel=1e-6, abs=1e-6)
        assert (base.low, base.high, found.median) == (min(finite), max(finite), pytest.approx(np.median(finite)))


def test_values_labels_and_types(tmp_path: Path) -> None:
    events = [met("u", f"i{place}", MONDAY + place, "rating", value) for place, value in enumerate([1.0, 4.0, 4.0, 5.0])]
    events += [met("u", "j", MONDAY + 9, "view"), met("u", "k", MONDAY + 10, "rating")]
    chosen = load_settings(None, [PLAIN, "data.positive=rating>=4, view, rating>=5, buy"], {})
    found = look(tmp_path, events, chosen=chosen)
    assert [(one.name, one.events, one.valued) for one in found.types] == [("rating", 5, 4), ("view", 1, 0)]
    assert [(one.name, one.events) for one in found.labels] == [("rating>=4", 3), ("view", 1), ("rating>=5", 1), ("buy", 0)]
    assert found.positive == 4
    assert (found.value.histogram.values, found.value.histogram.counts) == ([1.0, 4.0, 5.0], [1, 2, 1])
    assert (found.value.baseline.count, found.value.baseline.missing, found.value.median) == (4, 2, 4.0)
    assert "No event has the label 'buy'." in findings(found)


CATALOGUE = [
    Item(item_id="1", title="无线蓝牙耳机", text="降噪,续航三十小时", categories=["电子", "耳机"], price=299.0),
    Item(item_id="2", title="Wireless headphones 耳机", text="Thirty hours on one charge", categories=["电子"], price=59.0),
    Item(item_id="3", title="Наушники", price=0.5),
    Item(item_id="4", title="東京の夜", text=" ", categories=[]),
    Item(item_id="5", title="  WIRELESS   headphones 耳机"),
    Item(item_id="6", title="2001", hidden=True),
    Item(item_id="7"),
    Item(item_id="8", title="ಕನ್ನಡ"),
]


def test_the_catalogue_in_figures(tmp_path: Path) -> None:
    events = [met("u", "1", MONDAY), met("u", "1", MONDAY + 1), met("u", "3", MONDAY + 2), *[met("u", "gone", MONDAY)] * 3]
    found = look(tmp_path, events, CATALOGUE).catalogue
    assert found is not None
    assert (found.items, found.hidden, found.no_text) == (8, 1, 1)
    assert found.missing == {"title": 1, "text": 6, "categories": 6, "price": 5, "image": 8, "created_at": 8}
    assert (found.unmet, found.unknown_items, found.unknown_events) == (6, 1, 3)
    assert found.categories.counts == {"电子": 2, "耳机": 1}
    assert (found.categories.count, found.categories.missing, found.categories.distinct) == (3, 6, 2)
    assert {one.name: one.items for one in found.scripts} == {
        "Latin": 2, "Chinese": 1, "Cyrillic": 1, "Japanese": 1, "no letters": 2, "other": 1,
    }  # fmt: skip
    assert {one.name: one.letters for one in found.scripts}["Chinese"] == 6 + 8 + 2 + 3 + 2
    assert (found.letters.baseline.low, found.letters.baseline.high) == (0.0, 22 + 26)
    assert (found.price.baseline.count, found.price.median) == (3, 59.0)
    assert (found.same_titles.titles, found.same_titles.items) == (1, 2)


def test_scripts_are_counted_in_letters_not_in_bytes() -> None:
    table = pl.DataFrame([{"item_id": "1", "title": "中文 ab, 12!"}], schema=ITEM_SCHEMA)
    assert {one.name: one.letters for one in scripts_of(table)} == {"Latin": 2, "Chinese": 2}


def test_the_page_agrees_with_the_figures_and_shows_chinese(tmp_path: Path) -> None:
    chosen = load_settings(None, [PLAIN, "data.positive=view"], {})
    events = [met(f"u{place % 7}", str(1 + place % 5), MONDAY + place * 7_000) for place in range(123)]
    log = journal(tmp_path, events, CATALOGUE)
    found, baseline = profiles.look(log, chosen, lambda *_: None)
    path = write_profile(found, baseline, tmp_path / "reports")
    told = msgspec.json.decode((tmp_path / "reports" / "profile.json").read_bytes(), type=Profile)
    assert told == found
    page = path.read_text(encoding="utf-8")
    assert page == profile_page(told), "the page is drawn from what the file tells, and from nothing else"
    text = words(page)
    for figure in ("123 events", "7 users", "5 items with events", "8 items in the catalogue", "电子", "耳机", "view 123 100.0%"):
        assert figure in text
    assert all(sentence in text for sentence in findings(found))
    assert "<script" not in page
    assert "http" not in page


def test_a_wrong_figure_would_be_seen_on_the_page(tmp_path: Path) -> None:
    found = look(tmp_path, [met("u", "i", MONDAY + place * 100) for place in range(5)])
    wrong = msgspec.structs.replace(found, events=6)
    assert "6 events" in words(profile_page(wrong))
    assert "6 events" not in words(profile_page(found))


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
    items = [Item(item_id=f"{evil}{number}", title=evil, text=evil, categories=[evil], price=1.0) for number in range(2)]
    events = [met(f"{evil}", f"{evil}0", MONDAY + 60 * place, evil, 1.0) for place in range(70)]
    chosen = load_settings(None, [PLAIN, "data.positive=a'b&c,a\">1"], {})
    page = profile_page(look(tmp_path, events, items, chosen))
    assert "<script" not in page
    assert "<img" not in page
    assert "a'b&c" not in page
    assert "a'b&c 0 0.0%" in words(page)
    assert words(page).count(evil) >= 4, "as a suspect, a type, a category and a shared title"
    assert not re.search(r"(aria-label|points|d)='[^']*onerror", page)


@pytest.mark.parametrize(
    ("times", "kind", "sentence"),
    [
        ([1.0, 2.0, 3.0], "order", "Timestamps give an order only"),
        ([None, None, None], "none", "Events have no time"),
        ([float(day) * DAY + MONDAY for day in range(12)], "days", "Only the day of the events is known"),
    ],
)
def test_logs_without_a_clock_say_so(tmp_path: Path, times: list[float | None], kind: str, sentence: str) -> None:
    found = look(tmp_path, [met("u", f"i{place}", time) for place, time in enumerate(times)])
    assert found.clock.kind == kind
    assert found.visits is None
    assert (found.timeline is None) == (found.newness is None) == (found.suspects is None) == (kind != "days")
    assert found.timeline is None or found.timeline.hours == []
    assert any(sentence in one for one in findings(found))
    assert "What the data looks like" in words(profile_page(found))


def test_one_event_and_a_time_that_can_not_be(tmp_path: Path) -> None:
    found = look(tmp_path, [met("u", "i", MONDAY + 5)])
    assert (found.events, found.users.n, found.items.top_1, found.users.gini) == (1, 1, 1.0, 0.0)
    assert found.visits is not None
    assert (found.visits.n, found.visits.seconds_p90) == (1, 0)
    assert "1 events" in words(profile_page(found))
    odd = look(tmp_path / "odd", [met("u", "i", MONDAY + 5), met("u", "j", 1e300, value=1e300), met("u", "k", None)])
    assert (odd.clock.timed, odd.events, odd.value.baseline.missing) == (1, 3, 3)
    assert "2 events have no usable time." in findings(odd)


def test_an_empty_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event to look at"):
        look(tmp_path, [], CATALOGUE)


def test_features_that_tell_something_are_told_from_noise() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(2_000) < 0.3).astype(np.float32)
    signal = label + rng.normal(0, 0.5, 2_000)
    missing = np.where(label + rng.random(2_000) > 1.2, np.nan, 1.0)  # says something only by what is missing
    values = np.stack([signal, np.exp(signal), rng.normal(size=2_000), np.full(2_000, 7.0), missing], 1).astype(np.float32)
    names = ["signal", "the same, bent", "noise", "constant", "holes"]
    found = profile_features.profile_features(names, values, label)
    by_name = {one.name: one for one in found.features}
    told = {name: one.information for name, one in by_name.items()}
    assert all(value is not None for value in told.values())
    assert min(told["signal"], told["holes"]) > 0.15  # type: ignore[type-var, operator]
    assert max(told["noise"], told["constant"]) < 0.03  # type: ignore[type-var, operator]
    assert by_name["noise"].importance == pytest.approx(0.0, abs=0.03)
    assert found.auc is not None
    assert found.auc > 0.9
    correlation = np.array(found.correlation)
    assert correlation[0, 1] == pytest.approx(1.0, abs=1e-5), "ranks do not see the bend"
    assert np.abs(correlation[2, [0, 1, 3]]).max() < 0.1
    assert np.array_equal(correlation, correlation.T)
    assert correlation[3, 3] == 0.0, "a constant says nothing, not even about itself"
    assert by_name["holes"].numbers.baseline.missing == int(np.isnan(missing).sum())
    assert found.positive == pytest.approx(label.mean())


def test_importance_without_mixed_labels_is_left_out_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(200, dtype=np.float32).reshape(100, 2)
    assert "Without a label" in profile_features.profile_features(["a", "b"], values).note
    ones = profile_features.profile_features(["a", "b"], values, np.ones(100, dtype=np.float32))
    assert "mixed labels" in ones.note
    assert ones.features[0].information is None
    mixed = (np.arange(100) % 2).astype(np.float32)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "tastemaker[train]" in profile_features.profile_features(["a", "b"], values, mixed).note
    assert LEAST <= 50


def test_declared_features_are_measured_at_the_moments_of_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [met(f"u{n % 9}", f"i{n % 4}", MONDAY + 60 * n, "rating", 5.0 if n % 4 < 2 else 2.0) for n in range(400)]
    chosen = load_settings(None, ["features.use=item_events, device", "data.positive=rating>=4"], {})
    found = look(tmp_path, rows, chosen=chosen).features
    assert found is not None
    assert (found.rows, found.positive) == (400, 0.5)
    events = next(one for one in found.features if one.name == "item_events")
    assert events.numbers.baseline.low == 0.0, "the first event of an item sees none of it"
    assert np.expm1(events.numbers.baseline.high) == pytest.approx(99), "the last one sees the 99 before it"
    assert events.information is not None
    assert [one.name for one in found.features if not one.varies] == [
        f"device.{name}" for name in ("mobile", "desktop", "tablet", "tv")
    ]
    monkeypatch.setattr(profile_features, "LATEST", 200)
    cut = look(tmp_path / "cut", rows, chosen=chosen).features
    assert cut is not None
    assert "latest 200 of 400 events" in cut.note
    assert np.expm1(cut.features[0].numbers.baseline.high) == pytest.approx(49)
    assert cut.rows == 200


def test_features_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)).astype(np.float32)
    features = profile_features.profile_features(["<b>one", "two", "three"], values, (values[:, 0] > 0).astype(np.float32))
    found = msgspec.structs.replace(look(tmp_path, [met("u", "i", MONDAY)]), features=features)
    page = profile_page(found)
    assert "<b>one" not in page
    text = words(page)
    assert f"{features.features[0].information:.4f}" in text
    assert f"{features.correlation[0][1]:+.2f}" in text
    assert msgspec.json.decode(msgspec.json.encode(found), type=Profile) == found


def test_the_baseline_of_a_journal_is_that_of_what_training_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    events = [
        met(f"u{rng.integers(9)}", f"i{rng.integers(70)}", MONDAY + p, "rating", float(rng.integers(1, 6))) for p in range(400)
    ]
    chosen = load_settings(None, [PLAIN, "data.positive=rating>=4"], {})
    log = journal(tmp_path, events, CATALOGUE)
    _, found = profiles.look(log, chosen, lambda *_: None)
    assert found == baseline_of(Dataset.from_journal(log, chosen), chosen.data.positive)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Baseline) == found
    positive = [event for event in events if event.value is not None and event.value >= 4]
    assert (found.events, found.positive, found.catalogue) == (len(positive), ["rating>=4"], 8)
    assert found.event_types.counts == {"rating": len(positive)}
    of_items = found.popularity.items
    assert sum(of_items.counts.values()) + of_items.other == of_items.count == len(positive)
    assert len(of_items.counts) == 50
    assert of_items.distinct == found.items > 50
    assert sum(found.events_per_user.counts) == found.users
    assert found.value.edges == [4.0]
    assert found.value.counts == [sum(e.value == 4 for e in positive), sum(e.value == 5 for e in positive)]
    assert found.missing["items.price"] == 5
    assert (found.first, found.last) == (min(e.timestamp for e in positive), max(e.timestamp for e in positive))  # type: ignore[type-var]
