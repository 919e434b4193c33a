"""Impressions: every event in one row, labels and positions as they happened, what was left alone as negatives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.dataset import Dataset
from tastemaker.data.impressions import impressions
from tastemaker.data.negatives import NONE, OwnItems
from tastemaker.data.sequences import build
from tastemaker.schema.errors import InputError

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "request_id": pl.String, "position": pl.Int64}
Row = tuple[str, str, str, str | None, int | None]
ROWS = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.sampled_from("ijk"),
        st.sampled_from(["impression", "click", "purchase"]),
        st.sampled_from(["r", "s", None]),
        st.sampled_from([0, 1, None]),
    ),
    min_size=1,
    max_size=25,
)


def frame(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_law_every_event_is_counted_in_one_row(rows: list[Row]) -> None:
    kinds = Counter(row[2] for row in rows)
    if not kinds["impression"] + kinds["click"]:
        with pytest.raises(InputError, match="the log holds: purchase"):
            impressions(frame(rows))
        return
    made = impressions(frame(rows))
    table = made.table
    assert table["shown"].sum() == kinds["impression"]
    assert table["clicks"].sum() == kinds["click"]
    assert made.others == kinds["purchase"]
    assert (table["label"] == (table["clicks"] > 0).cast(pl.Int8)).all()
    keys = ["request", "user_id", "item_id", "position"]
    assert table.unique(keys).height == table.height
    inside = table.filter(pl.col("request").str.contains("\x1fr\x1f"))
    assert inside.unique(["request", "item_id"]).height == inside.height
    for user, item, kind, request, _ in rows:
        if kind == "click" and request:
            mine = (pl.col("request") == f"{user}\x1fr\x1f{request}") & (pl.col("item_id") == item)
            assert table.filter(mine)["label"].to_list() == [1]


def test_a_click_finds_its_impression_and_its_place() -> None:
    rows: list[Row] = [
        ("u", "a", "impression", "r1", 2),
        ("u", "b", "impression", "r1", 0),
        ("u", "c", "impression", "r1", 1),
        ("u", "c", "click", "r1", None),
        ("u", "b", "impression", "r2", 0),
        ("v", "d", "click", "r1", None),
    ]
    found = impressions(frame(rows))
    assert found.table.select("user_id", "item_id", "position", "label").rows() == [
        ("u", "b", 0, 0), ("u", "c", 1, 1), ("u", "a", 2, 0), ("u", "b", 0, 0), ("v", "d", None, 1),
    ]  # fmt: skip
    assert found.click_rate == pytest.approx(0.4)
    assert found.by_position().rows() == [(0, 2, 0, 0.0), (1, 1, 1, 1.0), (2, 1, 0, 0.0), (None, 1, 1, 1.0)]


def test_without_requests_the_session_tells_and_the_place_is_part_of_the_row() -> None:
    rows = [
        ("u", "a", "impression", "s1", 0),
        ("u", "a", "impression", "s1", 3),
        ("u", "a", "click", "s1", None),
        ("u", "a", "impression", "s2", 0),
    ]
    found = impressions(frame(rows).rename({"request_id": "session_id"}))
    assert found.table.select("position", "label", "shown", "clicks").rows() == [(0, 1, 1, 1), (3, 0, 1, 0), (0, 0, 1, 0)]


def test_what_was_left_alone_becomes_negatives_of_the_click_beside_it() -> None:
    rows: list[Row] = [("u", item, "impression", "r1", place) for place, item in enumerate("abc")]
    rows += [
        ("u", "b", "click", "r1", None),
        ("u", "c", "impression", "r2", 0),
        ("u", "a", "click", "r2", 1),
        ("v", "c", "click", "r1", 0),
    ]
    log = frame(rows).filter(pl.col("event_type") == "click").with_columns(timestamp=pl.int_range(pl.len()) + 1.6e9)
    data = Dataset.read(events=log.select("user_id", "item_id", "timestamp"))
    sequences = build(data, list("abcd"))
    positives, source = impressions(frame(rows)).unclicked(sequences.user_ids, sequences.item_ids, OwnItems(sequences))
    drawn = source.draw(positives, 4, np.random.default_rng(0))
    by_click = {
        (sequences.user_ids[user], sequences.item_ids[item]): {*found.tolist()}
        for user, item, found in zip(positives.users, positives.items, drawn.items, strict=True)
    }
    assert by_click == {("u", "b"): {2}, ("u", "a"): {2}, ("v", "c"): {NONE}}  # a is no negative of u, who took it in r2


def test_real_impressions(shared_data: Path) -> None:
    events = pl.read_parquet(shared_data / "news" / "bing" / "events.parquet")
    found = impressions(events)
    assert found.others == 0
    assert found.table["clicks"].sum() == 6_576
    assert found.table["shown"].sum() == 4_287
    pairs = events.select("user_id", "item_id").unique().height
    assert found.table.height == pairs
    clicked = events.filter(pl.col("event_type") == "click").select("user_id", "item_id").unique().height
    assert found.table["label"].sum() == clicked
    assert found.table["request"].n_unique() == 469
    assert found.click_rate == pytest.approx(clicked / pairs)
    sequences = build(Dataset.read(events=events.filter(pl.col("event_type") == "click").drop("split")))
    positives, _ = found.unclicked(sequences.user_ids, events["item_id"].unique().sort().to_list(), OwnItems(sequences))
    assert len(positives.items) == clicked


def test_real_impressions_come_through_the_import(shared_data: Path) -> None:
    data = Dataset.read(
        events=shared_data / "news" / "bing" / "events.parquet", items=shared_data / "news" / "bing" / "items.parquet"
    )
    table = impressions(data.events).table
    sequences = build(data.with_events(data.events.filter(pl.col("event_type") == "click")), data.item_ids())
    own = OwnItems(sequences)
    positives, source = impressions(data.events).unclicked(sequences.user_ids, sequences.item_ids, own)
    drawn = source.draw(positives, 3, np.random.default_rng(0))
    refused = set(table.filter(pl.col("label") == 0).select("user_id", "item_id").iter_rows())
    real = drawn.items != NONE
    assert real.any(axis=1).mean() > 0.9
    users = np.repeat(positives.users, 3)[real.ravel()]
    named = {(sequences.user_ids[user], sequences.item_ids[item]) for user, item in zip(users, drawn.items[real], strict=True)}
    assert named <= refused
    assert not own.has(positives.users, drawn.items)[real].any()
