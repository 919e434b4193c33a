"""Rows for a ranker know what was known just before their moment, and not more."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from ring_world import ring

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.features import timeline
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.streaming.features import LiveFeatures
from tastemaker.training.features import TrainedFeatures
from tastemaker.training.fit import TrainedBrain, fit
from tastemaker.training.holdout import hold_out
from tastemaker.training.parts import COLD_SHARE
from tastemaker.training.ranker_labels import heads_of, labels_of
from tastemaker.training.ranker_rows import LABEL, QUESTION


def pretended_new(data: Dataset) -> list[str]:
    held = hold_out(build(data), COLD_SHARE, 0)
    return [data.item_ids()[place] for place in np.flatnonzero(held.fresh)]


@pytest.fixture(scope="module")
def trained(brain: TrainedBrain) -> TrainedFeatures:
    assert brain.features is not None
    return brain.features


def test_each_question_has_one_positive_row_among_others(trained: TrainedFeatures) -> None:
    asked = trained.rows.asked
    by = asked.group_by(QUESTION).agg(pl.col(LABEL).sum(), pl.len(), pl.col("item_id").n_unique().alias("items"))
    assert by.height > 100
    assert (by[LABEL] <= 1.0).all()
    assert by[LABEL].mean() > 0.8, "the ring is easy: most answers are among the best"
    assert (by["len"] == by["items"]).all(), "no candidate twice"
    assert by["len"].max() > 20
    assert np.array_equal(np.diff(trained.rows.begin), asked[QUESTION].rle().struct.field("len").to_numpy())
    assert asked["timestamp"].is_sorted()
    assert len(set(trained.rows.names)) == trained.rows.values.shape[1]
    assert np.isfinite(trained.rows.values).all()


def test_a_row_sees_what_came_strictly_before_it(trained: TrainedFeatures) -> None:
    data, rows = ring(skip=(15, 35)), trained.rows
    log = data.events
    assert not set(rows.asked["item_id"]) & set(pretended_new(data))
    told = {name: rows.values[:, place] for place, name in enumerate(rows.names)}
    for row in range(0, rows.asked.height, 97):
        user, item, now = rows.asked.select("user_id", "item_id", "timestamp").row(row)
        before = log.filter(pl.col("timestamp") < now)
        assert told["user_events"][row] == pytest.approx(np.log1p(before.filter(pl.col("user_id") == user).height))
        assert told["item_events"][row] == pytest.approx(np.log1p(before.filter(pl.col("item_id") == item).height))
    positive = rows.asked[LABEL].to_numpy() == 1.0
    assert (told["user_item.times"][positive] == 0).all(), "the event that is to be foretold is not among what is known"


def changed_by_later_events(trained: TrainedFeatures, log: pl.DataFrame, rows: list[int]) -> int:
    """How many rows would read otherwise if nothing had happened from their own moment on."""
    asked, found = trained.rows.asked[rows], 0
    whole = trained.features.rows(log, asked)
    for place in range(len(rows)):
        one = asked[place]
        before = log.filter(pl.col("timestamp") < one["timestamp"][0])
        found += int(not np.allclose(trained.features.rows(before, one)[0], whole[place], atol=1e-5))
    return found


def test_law_no_row_reads_what_came_at_its_moment_or_later(trained: TrainedFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ring(skip=(15, 35)).events
    positive = np.flatnonzero(trained.rows.asked[LABEL].to_numpy() == 1.0)
    rows = np.random.default_rng(0).permutation(positive)[:8].tolist()
    assert changed_by_later_events(trained, log, rows) == 0
    monkeypatch.setattr(timeline, "STRICTLY_BEFORE", "right")  # the planted leak: a row reads the very event that it is to foretell
    assert changed_by_later_events(trained, log, rows) == len(rows)


def test_what_counts_other_peoples_events_is_not_read(trained: TrainedFeatures) -> None:
    rows = trained.rows
    told = {name: rows.compared[:, place] for place, name in enumerate(rows.names)}
    assert all(not told[name].any() for name in ("item_events", "item_faded", "item_rank"))
    assert told["text_match.mean"].any()
    assert not {"item_events", "item_faded", "item_rank"} & set(trained.preparation.kept)
    values = {name: rows.values[:, place] for place, name in enumerate(rows.names)}
    assert values["item_events"].any(), "the rows still hold it"


def test_a_label_holds_if_such_an_event_followed() -> None:
    rows = [("u", "a", 5.0, "view", None), ("u", "a", 9.0, "buy", 3.0), ("u", "b", 1.0, "buy", 9.0), ("v", "a", 9.0, "view", None)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event_type", "value"], orient="row")
    asked = pl.DataFrame({"user_id": ["u", "u", "u", "v"], "item_id": ["a", "a", "b", "b"], "timestamp": [5.0, 6.0, 5.0, 0.0]})
    heads = ["view", "buy", "buy>=5", "never"]
    assert labels_of(log, asked, heads).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    near = labels_of(log.with_columns(pl.col("timestamp") * 86_400), asked.with_columns(pl.col("timestamp") * 86_400), heads, 3.0)
    assert near.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    timeless = log.with_columns(pl.lit(None, pl.Float64).alias("timestamp"))
    assert labels_of(timeless, asked, heads)[2].tolist() == [0, 1, 1, 0]


def test_heads_are_those_of_the_settings_or_the_frequent_event_types() -> None:
    log = pl.DataFrame({"event_type": ["buy"] * 2 + ["view"] * 3 + ["impression"] * 9 + ["odd name"] * 5})
    assert heads_of(log, Settings()) == ("view", "buy")
    named = load_settings(None, ["ranker.heads=rating>=4,buy"], {})
    assert heads_of(log, named) == ("rating>=4", "buy")
    with pytest.raises(SettingsError, match="names a label twice"):
        heads_of(log, load_settings(None, ["ranker.heads=buy,buy"], {}))


def test_what_is_offered_is_prepared_and_the_target_can_be_told(trained: TrainedFeatures) -> None:
    table = trained.table()
    assert table.columns[5:] == trained.preparation.kept
    ready = table.select(trained.preparation.kept).to_numpy()
    assert np.isfinite(ready).all()
    assert np.abs(ready).max() <= 10
    fusion = trained.rows.values[:, trained.rows.names.index("fusion")]
    positive = trained.rows.asked[LABEL].to_numpy() == 1.0
    assert fusion[positive].mean() > fusion[~positive].mean() + 1, "the ring is easy"


def test_a_service_goes_on_where_training_ended(trained: TrainedFeatures, tmp_path: Path) -> None:
    trained.export(tmp_path)
    live = LiveFeatures.open(tmp_path)
    log, now = ring(skip=(15, 35)).events, 1.7e9
    asked = pl.DataFrame({"user_id": ["u3", "u3"], "item_id": ["i1", "new"], "timestamp": [now, now]})
    np.testing.assert_allclose(live.told("u3", ["i1", "new"], now), trained.features.rows(log, asked), rtol=1e-5, atol=1e-6)
    event = Event(user_id="u3", item_id="new", timestamp=now - 5, event_type="view", event_id="e")
    live.put_item(
        Item(item_id="new", title="red thing", categories=["things"], price=3.0), np.zeros(len(trained.text.mean), np.float32)
    )
    live.fold_event(event)
    later = live.told("u3", ["i1", "new"], now)
    at = {name: place for place, name in enumerate(live.features.names)}
    assert later[1, at["user_item.times"]] > 0
    assert later[0, at["user_events"]] > trained.features.rows(log, asked)[0, at["user_events"]]


def test_a_log_without_times_has_no_features(toy_settings: Settings) -> None:
    data = ring(30)
    order = data.with_events(data.events.with_columns(pl.int_range(pl.len()).cast(pl.Float64).alias("timestamp")))
    quick = msgspec.structs.replace(toy_settings, sequence=msgspec.structs.replace(toy_settings.sequence, min_steps=5, epochs=1))
    assert fit(order, quick).features is None
    assert fit(data, quick, rows=False).features is None
