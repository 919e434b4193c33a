"""Numbers that can be worked out by hand, one family after another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from world import DAY, MONDAY, features, fold, questions, table

from tastemaker.features.base import FeatureQuery
from tastemaker.features.script import script
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item

HOUR = 3_600.0
LOG = math.log


def event(
    item: str, at: float | None, kind: str = "view", user: str = "u", value: float | None = None, device: str | None = None
) -> Event:
    name = f"{user}-{item}-{at}-{kind}-{value}"
    return Event(
        event_id=name,
        user_id=user,
        item_id=item,
        timestamp=at,
        event_type=kind,
        value=value,
        context={"device": device} if device else None,
    )


def told(
    text: str, events: list[Event], item: str, now: float, user: str = "u", context: dict[str, Any] | None = None
) -> list[float]:
    """The numbers of one feature; asked of a live state and of the past, which must agree."""
    made = features(text)
    live = made.gives(made.remember(table(events)), FeatureQuery(user, [item], now, context))[0]
    asked = questions([user], [item], [now], None if context is None else context["device"])
    np.testing.assert_allclose(made.rows(table(events), asked)[0], live, rtol=1e-5, atol=1e-6)
    return [float(number) for number in live]


def test_counts_ever_and_in_a_window() -> None:
    log = [event("tent", None), event("tent", 0.0), event("tent", DAY), event("tent", 2 * DAY), event("boots", DAY)]
    assert told("item_events", log, "tent", 2 * DAY) == pytest.approx([LOG(4)]), (
        "the one at the very moment is not seen; the timeless one is"
    )
    assert told("item_events(window=1d)", log, "tent", 2 * DAY) == pytest.approx([LOG(2)]), (
        "now - 1 day belongs to the window, now does not"
    )
    assert told("user_events", log, "tent", 9 * DAY) == pytest.approx([LOG(6)])
    assert told("item_events", log, "nothing", 9 * DAY) == [0.0]


def test_an_event_weighs_half_after_its_half_life() -> None:
    log = [event("tent", 0.0), event("tent", DAY), event("tent", None)]
    assert told("item_faded(half_life=1d)", log, "tent", 2 * DAY) == pytest.approx([LOG(1.75)])
    assert told("user_faded(half_life=1d)", log, "tent", 2 * DAY) == pytest.approx([LOG(1.75)])


def test_rates_are_pulled_towards_the_rate_of_all() -> None:
    far = "1000000000d"[:6] + "d"  # a half-life of ages: nothing fades
    log = [event("tent", 1.0 + n, "view") for n in range(8)] + [event("tent", 20.0 + n, "buy") for n in range(4)]
    log += [event("boots", 40.0 + n, "view") for n in range(8)]
    prior = (4 + 0.5) / (16 + 1)
    text = f"item_rate(of=buy, per=view, half_life={far}, smoothing=10)"
    assert told(text, log, "tent", 100.0) == pytest.approx([(4 + 10 * prior) / 18], rel=1e-4)
    assert told(text, log, "boots", 100.0) == pytest.approx([(0 + 10 * prior) / 18], rel=1e-4)
    assert told(text, log, "nothing", 100.0) == pytest.approx([prior], rel=1e-4)
    assert told(text, [], "tent", 100.0) == [0.5]


def test_a_rate_never_leaves_its_bounds() -> None:
    log = [event("tent", float(n), "buy") for n in range(50)]
    assert told("item_rate(of=buy, per=view, smoothing=0)", log, "tent", 99.0) == [1.0]


def test_trend_rises_with_new_interest_and_is_flat_where_nothing_changes() -> None:
    steady = [event("tent", n * HOUR) for n in range(24 * 120)]
    assert told("item_trend", steady, "tent", 120 * DAY)[0] == pytest.approx(0.0, abs=0.03)
    assert told("item_trend", [event("tent", 100 * DAY - n) for n in range(1, 30)], "tent", 100 * DAY)[0] > 1.5
    assert told("item_trend", [event("tent", n * 1.0) for n in range(1, 30)], "tent", 20 * DAY)[0] < -1
    assert told("item_trend", steady, "nothing", 120 * DAY) == [0.0]


def test_rank_is_that_of_the_last_whole_days() -> None:
    log = [event("tent", HOUR + n) for n in range(3)] + [event("boots", HOUR)] + [event("shoes", HOUR)]
    assert told("item_rank", log, "tent", 2 * HOUR) == [0.0], "today is not over"
    assert told("item_rank", log, "tent", DAY) == pytest.approx([2.5 / 3])
    assert told("item_rank", log, "boots", DAY) == pytest.approx([1 / 3])
    assert told("item_rank", log, "dull", DAY) == [0.0]
    assert told("item_rank(days=1)", log, "tent", 2 * DAY) == [0.0], "the day before yesterday is out of the window"


def test_value_is_compared_with_that_of_all() -> None:
    log = [
        event("tent", 1.0, "rate", value=5.0),
        event("boots", 2.0, "rate", "v", value=2.0),
        event("boots", 3.0, "rate", value=2.0),
    ]
    assert told("item_value(smoothing=1)", log, "tent", 9.0) == pytest.approx([4.0, 1.0])
    assert told("item_value(smoothing=1)", log, "nothing", 9.0) == pytest.approx([3.0, 0.0])
    assert told("user_value(smoothing=1)", [*log, event("dull", 4.0)], "tent", 9.0) == pytest.approx([1 / 3, 2 / 3])


def test_recency_and_age() -> None:
    log = [event("tent", DAY), event("tent", 3 * DAY)]
    assert told("item_recency", log, "tent", 4 * DAY) == pytest.approx([LOG(2)])
    assert told("user_recency", log, "boots", 4 * DAY) == pytest.approx([LOG(2), LOG(4)])
    assert told("user_recency", log, "boots", 4 * DAY, user="nobody") == pytest.approx([LOG(1 + 1e10 / DAY), 0.0])
    assert told("item_age(half_life=3d)", log, "tent", 4 * DAY) == pytest.approx([LOG(4), 0.5, 1.0]), "first seen"
    assert told("item_age(half_life=2d)", log, "shoes", 4 * DAY) == pytest.approx([LOG(3), 0.5, 1.0]), "created_at"
    assert told("item_age", log, "nothing", 4 * DAY) == [0.0, 1.0, 0.0]


def test_prices_are_compared_inside_their_categories() -> None:
    # medians: shoes of (120, 60), outdoor of (120, 300), in logs
    shoes, outdoor = (LOG(121) + LOG(61)) / 2, (LOG(121) + LOG(301)) / 2
    assert told("price", [], "shoes", 1.0) == pytest.approx([LOG(61), LOG(61) - shoes, 1.0], rel=1e-5)
    assert told("price", [], "boots", 1.0) == pytest.approx([LOG(121), LOG(121) - (shoes + outdoor) / 2, 1.0], rel=1e-4)
    assert told("price", [], "dull", 1.0) == [0.0, 0.0, 0.0], "a negative price is none"


def test_categories_and_brands() -> None:
    log = [event("boots", 0.0), event("tent", DAY), event("茶", DAY)]
    # as of day 2 with a half-life of a day: shoes .25, outdoor .75, everything 1.25
    mean = (LOG(1.25) + LOG(1.75)) / 2
    assert told("group_events(half_life=1d)", log, "boots", 2 * DAY) == pytest.approx([mean, 0.4])
    assert told("group_events(by=brand, half_life=1d)", log, "tent", 2 * DAY) == pytest.approx([LOG(1.75), 0.6])
    assert told("group_events", log, "茶", 2 * DAY) == [0.0, 0.0]


def test_affinity_is_the_share_of_what_a_user_does() -> None:
    log = [event("boots", 1.0), event("boots", 1.0, "buy"), event("tent", 1.0), event("shoes", 1.0, user="v")]
    events, share, lift = told("affinity(by=brand, smoothing=2, half_life=90000d)", log, "tent", 2.0)
    usual = 3 / 5  # 3 of 4 events, smoothed by one
    assert events == pytest.approx(LOG(4), rel=1e-5)
    assert share == pytest.approx((3 + 2 * usual) / 5, rel=1e-5)
    assert lift == pytest.approx(LOG((share + 1e-3) / (usual + 1e-3)), rel=1e-4)
    assert told("affinity(by=brand, half_life=90000d)", log, "tent", 2.0, user="nobody") == pytest.approx([0, usual, 0], abs=1e-5)


def test_a_session_ends_with_a_gap() -> None:
    log = [event("tent", 0.0), event("shoes", HOUR), event("boots", HOUR + 600)]
    now = HOUR + 1_200.0
    # texts: boots (1, 0, 0), shoes (.8, .6, 0); categories of shoes: all of them are those of boots
    assert told("session", log, "shoes", now) == pytest.approx([LOG(3), LOG(21), LOG(11), 0.8, 1.0], rel=1e-5)
    assert told("session", log, "tent", now)[3:] == pytest.approx([0.0, 1.0])
    assert told("session(gap=9m)", log, "shoes", now) == pytest.approx([0, 0, LOG(11), 0, 0], rel=1e-5)
    assert told("session(gap=2h)", log, "shoes", now)[0] == pytest.approx(LOG(4))


def test_user_and_item() -> None:
    log = [event("tent", 0.0, value=3.0), event("tent", DAY, value=-1.0), event("boots", DAY)]
    assert told("user_item", log, "tent", 3 * DAY) == pytest.approx([LOG(3), LOG(3), LOG(3)])
    assert told("user_item", log, "shoes", 3 * DAY) == pytest.approx([0, LOG(1 + 1e10 / DAY), 0])


def test_texts_are_matched_with_the_fading_past() -> None:
    log = [event("tent", 0.0), event("boots", 1.0)]  # (0, 1, 0) then (1, 0, 0), the older at .5
    length = math.hypot(1, 0.5)
    mean = (0.8 * 1 + 0.6 * 0.5) / length
    assert told("text_match(decay=.5)", log, "shoes", 2.0) == pytest.approx([mean, 0.8], rel=1e-5)
    assert told("text_match(length=1)", log, "tent", 2.0) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert told("text_match", log, "nothing", 2.0) == [0.0, 0.0]


def test_time_runs_in_circles() -> None:
    assert told("time_of_day", [], "tent", MONDAY) == pytest.approx([0, 1, 0, 1], abs=1e-6)
    assert told("time_of_day", [], "tent", MONDAY + 6 * HOUR)[:2] == pytest.approx([1, 0], abs=1e-6)
    assert told("time_of_day(east=6)", [], "tent", MONDAY)[:2] == pytest.approx([1, 0], abs=1e-6)
    assert features("time_of_day").rows(table([]), questions(["u"], ["tent"], [None])).tolist() == [[0, 0, 0, 0]]


def test_devices() -> None:
    assert told("device", [], "tent", 1.0, context={"device": "desktop"}) == [0, 1, 0, 0]
    assert told("device", [], "tent", 1.0, context={"device": "fridge"}) == [0, 0, 0, 0]


def test_scripts() -> None:
    assert script("Hiking boots, size 42") == pytest.approx((4, 0.0, 1.0, 15 / 18))
    assert script("绿茶")[:3] == (2, 1.0, 0.0)
    assert script("绿茶 green tea")[:3] == pytest.approx((4, 0.2, 0.8))
    assert script("Ёлка")[1:3] == (0.0, 0.0), "another script is neither"
    assert script("Überraschung")[2] == 1.0
    assert script(None) == script("") == (0, 0.0, 0.0, 0.0)
    assert told("item_text", [], "tent", 1.0) == pytest.approx([LOG(3), 1, 0, 1])
    assert told("item_quality", [], "boots", 1.0) == pytest.approx([0.8])


def test_target_encoding_leaves_out_the_day() -> None:
    log = [
        event("shoes", 1.0),
        event("shoes", 2.0, "buy"),
        event("tent", 3.0),
        event("tent", 4.0),
        event("shoes", DAY + 1.0, "buy"),
    ]
    prior = (1 + 0.5) / (4 + 1)
    assert told("target_rate(of=buy, by=brand, smoothing=2)", log, "shoes", DAY + 9.0) == pytest.approx([(1 + 2 * prior) / 4])
    assert told("target_rate(of=buy, by=brand, smoothing=2)", log, "tent", DAY + 9.0) == pytest.approx([2 * prior / 4])
    assert told("target_rate(of=buy, by=brand, smoothing=2)", log, "茶", DAY + 9.0) == pytest.approx([prior])
    assert told("target_rate(of=buy)", log[:4], "shoes", 9.0) == [0.5], "before the first midnight nothing is known"
    phone = [event("tent", 1.0, "buy", device="phone"), event("tent", 2.0, device="tv")]
    by = "target_rate(of=buy, by=device, smoothing=2)"
    assert told(by, phone, "tent", DAY, context={"device": "phone"}) == pytest.approx([2 / 3])
    assert told(by, phone, "tent", DAY, context={"device": "never seen"}) == pytest.approx([0.5])


def test_an_item_that_is_put_live_is_told_at_once() -> None:
    made = features("price", "item_text", "group_events(by=brand)", "text_match", "item_age")
    state = fold(made, [event("tent", DAY), event("boots", 2 * DAY)], made.remember(table([])))
    query = FeatureQuery("u", ["new"], 3 * DAY)
    assert made.gives(state, query)[0, 2] == 0.0
    item = Item(item_id="new", title="灯 lamp", price=60.0, categories=["shoes"], created_at=2 * DAY, extra={"brand": "Alp"})
    made.put_item(state, item, np.array([0, 3, 0], dtype=np.float32))
    numbers = dict(zip(made.names, made.gives(state, query)[0].tolist(), strict=True))
    assert numbers["price.log"] == pytest.approx(LOG(61))
    assert numbers["item_text.east_asian"] == pytest.approx(0.2)
    assert numbers["group_events(by=brand).events"] > 0
    assert numbers["text_match.best"] == pytest.approx(1.0)
    assert numbers["item_age.age"] == pytest.approx(LOG(2))
    made.put_item(state, Item(item_id="new", price=30.0))
    assert made.gives(state, query)[0, 0] == pytest.approx(LOG(31))
    assert made.gives(made.remember(table([])), query)[0, 2] == 0.0, "other states know nothing of it"
