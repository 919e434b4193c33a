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
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.streaming.features import LiveFeatures
from tastemaker.training.features import TrainedFeatures
from tastemaker.training.fit import TrainedBrain, fit
from tastemaker.training.holdout import hold_out
from tastemaker.training.parts import COLD_SHARE
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
    log = data.events.filter(~pl.col("item_id").is_in(pretended_new(data)))
    told = {name: rows.values[:, place] for place, name in enumerate(rows.names)}
    for row in range(0, rows.asked.height, 97):
        user, item, now = rows.asked.select("user_id", "item_id", "timestamp").row(row)
        before = log.filter(pl.col("timestamp") < now)
        assert told["user_events"][row] == pytest.approx(np.log1p(before.filter(pl.col("user_id") == user).height))
        assert told["item_events"][row] == pytest.approx(np.log1p(before.filter(pl.col("item_id") == item).height))
    positive = rows.asked[LABEL].to_numpy() == 1.0
    assert (told["user_item.times"][positive] == 0).all(), "the event that is to be foretold is not among what is known"


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
