"""A ranker's rows are told apart from what the same answer showed in vain."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import polars as pl
import pytest
from ring_world import ITEMS, ring

from tastemaker.data.dataset import Dataset
from tastemaker.models.fusion import boosted
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.training.fit import TrainedBrain, fit, states_of
from tastemaker.training.ranker_rows import LABEL, QUESTION, list_of

SHOWN, DEPTH = 6, 20


def shown_ring() -> tuple[Dataset, dict[tuple[str, str], set[str]]]:
    """The ring, where each event is a click in an answer of its own that showed six more items; and what each click was shown beside."""
    data, random = ring(120), np.random.default_rng(1)
    clicks = data.events.with_columns(
        pl.lit("click").alias("event_type"), pl.int_range(pl.len()).cast(pl.String).alias("request_id")
    )
    rows, beside = [], {}
    for user, item, time, request in clicks.select("user_id", "item_id", "timestamp", "request_id").iter_rows():
        others = {f"i{number}" for number in random.permutation(ITEMS)[:SHOWN]} - {item}
        beside[user, item] = others
        rows += [(user, other, time - 0.5, "impression", request) for other in [item, *sorted(others)]]
    names = ["user_id", "item_id", "timestamp", "event_type", "request_id"]
    shown = pl.DataFrame(rows, schema=names, orient="row")
    log = pl.concat([clicks, shown], how="diagonal_relaxed").sort("timestamp", maintain_order=True)
    return replace(data, events=clicks, log=log), beside


def quick(settings: Settings, kind: str) -> Settings:
    sequence = msgspec.structs.replace(settings.sequence, min_steps=20, epochs=1)
    sampling = msgspec.structs.replace(settings.sampling, ranker=kind)
    ranker = msgspec.structs.replace(settings.ranker, depth=DEPTH, mode="off")
    return msgspec.structs.replace(settings, sequence=sequence, sampling=sampling, ranker=ranker)


@pytest.mark.parametrize("kind", ["unclicked", "both", "candidates"])
def test_negatives_are_what_the_answer_showed_in_vain(toy_settings: Settings, kind: str) -> None:
    data, beside = shown_ring()
    met = {key[0]: {item for user, item in beside if user == key[0]} for key in beside}
    found = fit(data, quick(toy_settings, kind)).features
    assert found is not None
    rows = found.rows.asked.with_columns(pl.Series("fusion", found.rows.values[:, found.rows.names.index("fusion")]))
    assert np.isfinite(found.rows.values).all()
    questions = 0
    for part in rows.partition_by(QUESTION, "user_id", "timestamp"):
        user = part["user_id"][0]
        target = part.filter(pl.col(LABEL) == 1.0)["item_id"].to_list()
        others = part.filter(pl.col(LABEL) == 0.0)["item_id"].to_list()
        if kind == "candidates":
            assert len(target) <= 1
            assert part.height == DEPTH
            continue
        assert len(target) == 1
        shown = beside[user, target[0]] - met[user]
        questions += 1
        if kind == "unclicked":
            assert set(others) == shown
        else:
            assert shown <= set(others)
            assert part.height == DEPTH or not shown
        assert len(set(others)) == len(others)
    assert questions > 80 or kind == "candidates"


def test_a_log_without_impressions_falls_back_to_candidates(toy_settings: Settings) -> None:
    both, alone = (fit(ring(60), quick(toy_settings, kind)).features for kind in ("both", "candidates"))
    assert both is not None
    assert alone is not None
    assert both.rows.asked.equals(alone.rows.asked)
    empty = fit(ring(60), quick(toy_settings, "unclicked")).features
    assert empty is not None
    assert empty.rows.asked.height == 0


def test_shown_items_have_the_columns_of_candidates_or_of_their_own(brain: TrainedBrain) -> None:
    state = states_of(brain.model, [np.array([3, 4, 5], dtype=np.int32)])[0]
    found = brain.channels.candidates([state], 4)[0]
    others = np.setdiff1d(np.arange(ITEMS, dtype=np.int32), [*found.items, 3, 4, 5])
    assert min(len(found.items), len(others)) > 3
    items = np.random.default_rng(0).permutation(np.concatenate([found.items, others])).astype(np.int32)
    score = brain.fusion.score(found, 3)
    told = list_of(brain.channels, brain.fusion, state, found, score, items, np.full(len(items), -1))
    width = 2 * len(found.channels)
    for at, item in enumerate(items):
        place = np.flatnonzero(found.items == item)
        if len(place):
            scores, whole = found.scores[place[0]], score[place[0]]
        else:
            apart = brain.channels.score_items(state, np.array([item]), 4)
            scores, whole = apart.scores[0], brain.fusion.score(apart, 3)[0]
        np.testing.assert_allclose(told.columns[at, : len(scores)], np.maximum(scores, -20.0), rtol=1e-4, atol=1e-4)
        assert told.scores[at] == pytest.approx(whole, abs=1e-4)
        plain = whole - brain.fusion.cold_boost * told.raised[at]
        assert told.columns[at, -1] == pytest.approx(plain, abs=1e-4)
        above = (score - brain.fusion.cold_boost * boosted(found) > plain + 1e-4).sum()
        assert told.columns[at, width + 1] == pytest.approx(np.log1p(above), abs=1e-4), "the place among the candidates"


def test_an_unknown_word_is_refused(toy_settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"sampling\.ranker is 'shown'; expected unclicked, candidates, both"):
        fit(ring(60), quick(toy_settings, "shown"))
