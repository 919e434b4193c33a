"""A small shop for the tests: its catalogue, its text vectors, events as they may come, and one example of every feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from hypothesis import strategies as st

from tastemaker.features.declare import REGISTRY
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.state import State
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.journal.read import EVENT_SCHEMA
from tastemaker.schema.events import Event

DAY = 86_400.0
MONDAY = 4 * DAY

# What stands in brackets where a feature can't do without; every registered feature has its default form in the laws, and these besides.
NEEDED = {
    "item_rate": "(of=buy, per=view)",
    "group_rate": "(of=buy, per=view)",
    "target_rate": "(of=buy)",
}
VARIANTS = (
    "item_events(of=buy|view, window=1h)",
    "item_events(window=2d)",
    "item_events(window=3h)",
    "item_faded(of=rate>=3, half_life=30m)",
    "item_rate(of=buy, per=view, half_life=1h, smoothing=0)",
    "item_trend(short=1h, long=1d)",
    "item_rank(days=2)",
    "item_rank(of=view, days=1)",
    "item_value(of=rate, smoothing=0)",
    "group_events(by=brand, half_life=1d)",
    "group_rate(of=buy, by=brand, per=view)",
    "user_events(window=1d)",
    "affinity(by=brand, half_life=1d, smoothing=1)",
    "session(gap=2h)",
    "user_item(of=buy)",
    "text_match(length=3, decay=.5)",
    "time_of_day(east=8)",
    *(f"target_rate(of=buy, by={by}, per=view, smoothing=2)" for by in ("brand", "device", "hour", "item", "user")),
    "target_rate(of=rate>=3, per=rate, step=1h)",
)
EVERY = (*(name + NEEDED.get(name, "") for name in REGISTRY), *VARIANTS)

ITEMS = pl.DataFrame(
    [
        {"item_id": "boots", "title": "Hiking boots", "text": "Waterproof", "categories": ["shoes", "outdoor"], "price": 120.0, "extra": '{"brand": "Alp"}'},
        {"item_id": "shoes", "title": "Shoes", "categories": ["shoes"], "price": 60.0, "created_at": 2 * DAY, "extra": '{"brand": "City"}'},
        {"item_id": "tent", "title": "帐篷", "categories": ["outdoor"], "price": 300.0, "image": "t.png", "extra": '{"brand": "Alp"}'},
        {"item_id": "茶", "title": "绿茶 green tea", "categories": [], "extra": "not json"},
        {"item_id": "dull", "categories": ["shoes"], "price": -1.0, "extra": None},
    ],
    schema=ITEM_SCHEMA,
)  # fmt: skip
IDS = ITEMS["item_id"].to_list()
VECTORS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 2], [0, 0, 0]], dtype=np.float32)

# times lie on few values, so that ties, day boundaries and window edges are met often
TIMES = st.one_of(
    st.none(),
    st.integers(0, 12).map(lambda half_days: half_days * DAY / 2),
    st.integers(0, 40).map(lambda quarters: 3 * DAY + quarters * 900.0),
    st.floats(0, 8 * DAY),
)
EVENTS = st.lists(
    st.builds(
        lambda **fields: fields,
        user_id=st.sampled_from(["u", "v", "用户"]),
        item_id=st.sampled_from([*IDS, "unlisted"]),
        event_type=st.sampled_from(["view", "buy", "rate"]),
        timestamp=TIMES,
        value=st.one_of(st.none(), st.sampled_from([1.0, 3.0, 4.5]), st.floats(-10, 10)),
        context=st.sampled_from([None, {}, {"device": "Mobile"}, {"device": "fridge"}, {"device": 7}]),
    ),
    max_size=25,
).map(lambda rows: [Event(event_id=f"e{place}", **row) for place, row in enumerate(rows)])


def features(*texts: str) -> FeatureSet:
    return FeatureSet.declared(texts or EVERY, ITEMS, VECTORS)


def table(events: Sequence[Event]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for place, event in enumerate(events):
        row = msgspec.structs.asdict(event)
        row["context"] = None if event.context is None else msgspec.json.encode(event.context).decode()
        rows.append({"seq": place, **row})
    return pl.DataFrame(rows, schema=EVENT_SCHEMA)


def questions(users: Sequence[str], items: Sequence[str], times: Sequence[float | None], device: str | None = None) -> pl.DataFrame:
    asked = [(user, item, time) for user in users for item in items for time in times]
    frame = pl.DataFrame(asked, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}, orient="row")
    return frame.with_columns(pl.lit(None if device is None else f'{{"device": "{device}"}}', dtype=pl.String).alias("context"))


def fold(made: FeatureSet, events: Sequence[Event], state: State | None = None) -> State:
    state = made.remember(table([])) if state is None else state
    for event in events:
        made.update(state, event)
    return state
