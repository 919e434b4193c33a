"""The ranker in the road: it orders what the fusion found, with what is known this moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.ranking import MORE
from tastemaker.journal.append import Journal
from tastemaker.pipeline.engine import Found, Wish
from tastemaker.recommender import Recommender
from tastemaker.schema.candidates import part
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import Asked, Asker
from tastemaker.schema.queries import ExplainQuery, RankQuery, RecommendQuery
from tastemaker.schema.settings import RankerSettings, ServingSettings, Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.wire import Live, open_live
from toy_bundle import write_workspace
from toy_ranker import DEPTH, write_ranker


@pytest.fixture
def space(tmp_path: Path) -> Path:
    write_workspace(tmp_path, besides=write_ranker)
    return tmp_path


@pytest.fixture
def journal(space: Path) -> Iterator[Journal]:
    opened = Journal.open(space / "journal")
    yield opened
    opened.close()


def opened(space: Path, journal: Journal | None, **ranker: object) -> Live:
    return open_live(space / "bundles", journal, service=Settings(ranker=RankerSettings(**ranker)))  # type: ignore[arg-type]


def asked(live: Live, user: str = "u0", k: int = 60, now: float | None = None, tell: bool = False) -> Found:
    state = live.query(live.state.history(user), Asker(user, time.time() if now is None else now))
    return live.road.recommend(state, Wish(k, live.barred(), tell=tell))


def test_the_best_are_ordered_anew_and_the_others_stay_behind(space: Path, journal: Journal) -> None:
    plain, live = asked(opened(space, journal, mode="off")), opened(space, journal)
    found = asked(live)
    assert sorted(found.items.tolist()) == sorted(plain.items.tolist())
    assert set(found.items[:DEPTH].tolist()) == set(plain.items[:DEPTH].tolist())
    assert found.items[DEPTH:].tolist() == plain.items[DEPTH:].tolist()
    assert found.items[:DEPTH].tolist() != plain.items[:DEPTH].tolist()
    assert (np.diff(found.scores) <= 0).all()
    counts = live.channels.counts[found.items[:DEPTH]]
    assert counts[: DEPTH // 2].mean() > counts[DEPTH // 2 :].mean(), "it likes items with many events"
    assert found.chances is not None
    assert found.chances[:DEPTH, 0].sum() == pytest.approx(0.8, abs=1e-4)
    assert np.isnan(found.chances[DEPTH:]).all()


def test_where_it_was_not_better_nothing_changes(tmp_path: Path) -> None:
    write_workspace(tmp_path, besides=partial(write_ranker, orders=False))
    plain, found = asked(opened(tmp_path, None, mode="off")), asked(opened(tmp_path, None))
    assert found.items.tolist() == plain.items.tolist()
    assert found.scores.tolist() == plain.scores.tolist()
    assert found.chances is None
    told = asked(opened(tmp_path, None), tell=True)
    assert told.items.tolist() == plain.items.tolist()
    assert told.chances is not None
    assert (told.chances[:DEPTH, 0].argsort()[::-1] == np.arange(DEPTH)).all(), "`next` is the fusion's own"
    always = asked(opened(tmp_path, None, mode="always"))
    assert always.items.tolist() != plain.items.tolist()
    chances = asked(opened(tmp_path, None, mode="chances", weights={"view": 1.0}))
    assert chances.items.tolist() == plain.items.tolist()


def test_weights_are_read_when_answering(space: Path) -> None:
    found, turned = (asked(opened(space, None, weights={"view": weight})) for weight in (1.0, -1.0))
    assert found.chances is not None
    assert turned.chances is not None
    assert (np.diff(found.chances[:DEPTH, 1]) <= 0).all()
    assert (np.diff(turned.chances[:DEPTH, 1]) >= 0).all()
    np.testing.assert_allclose(found.scores[:DEPTH], found.chances[:DEPTH, 1], rtol=1e-6)
    both = asked(opened(space, None, weights={"next": 1.0, "view": 0.5}))
    assert both.chances is not None
    np.testing.assert_allclose(both.scores[:DEPTH], both.chances[:DEPTH] @ [1.0, 0.5], rtol=1e-5)


def test_weights_that_make_no_sense_are_refused(space: Path) -> None:
    with pytest.raises(SettingsError, match="'like', but this ranker knows next, view"):
        opened(space, None, weights={"like": 1.0})
    with pytest.raises(SettingsError, match="weighs nothing"):
        opened(space, None, weights={"view": 0.0})
    assert opened(space, None, weights={"like": 1.0}, mode="off").ranker is None


def test_an_event_changes_what_it_reads_and_offline_reads_the_same(space: Path, journal: Journal) -> None:
    live = opened(space, journal)
    now = time.time()
    before = asked(live, now=now, tell=True)
    loved = int(before.items[DEPTH - 1])
    name = live.state.rows[loved]["item_id"]
    journal.append(
        [Event(user_id=f"other{n}", item_id=name, event_type="view", timestamp=now - 60 + n, event_id=f"x{n}") for n in range(40)]
    )
    live.poll()
    after = asked(live, now=now, tell=True)
    assert after.items.tolist().index(loved) < DEPTH // 3
    assert before.chances is not None
    assert after.chances is not None
    assert after.chances[after.items == loved, 1] > before.chances[before.items == loved, 1]
    features, _ = FeatureSet.load(live.bundle.path / "features")
    log = pl.DataFrame(
        {
            "user_id": [f"other{n}" for n in range(40)], "item_id": [name] * 40, "timestamp": [now - 60 + n for n in range(40)],
            "event_id": [f"x{n}" for n in range(40)],
        }
    )  # fmt: skip
    sizes = np.diff(np.load(live.bundle.path / "users" / "offsets.npy"))
    items = [live.state.rows[place]["item_id"] for place in np.load(live.bundle.path / "users" / "items.npy")]
    times, users = np.load(live.bundle.path / "users" / "times.npy"), np.repeat([f"u{n}" for n in range(len(sizes))], sizes)
    past = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times, "event_id": [f"t{n}" for n in range(len(items))]})
    shown = [live.state.rows[place]["item_id"] for place in after.items[:DEPTH].tolist()]
    queries = pl.DataFrame({"user_id": ["u0"] * DEPTH, "item_id": shown, "timestamp": [now] * DEPTH})
    told = features.rows(pl.concat([past, log]), queries)[:, features.names.index("item_events")]
    expected = 1 / (1 + np.exp(3 - (told - told.mean())))
    np.testing.assert_allclose(after.chances[:DEPTH, 1], expected, atol=1e-3, err_msg="a service reads what training reads")


def test_a_log_that_ended_long_ago_is_answered_as_on_its_last_day(space: Path, journal: Journal) -> None:
    features = opened(space, journal).state.features
    assert features is not None
    assert features.moment(4e9) == features.latest + 86_400
    assert features.moment(features.latest + 5) == features.latest + 5
    late = opened(space, journal)
    assert late.state.features is not None
    journal.append([Event(user_id="u0", item_id="boots-1", timestamp=1.7e9, event_id="late")])
    late.poll()
    assert late.state.features.moment(4e9) == 1.7e9 + 86_400


def test_explain_tells_chances(space: Path, journal: Journal) -> None:
    answers = Answers(opened(space, journal), journal, ServingSettings())
    listed = answers.recommend(RecommendQuery(user_id="u0", k=5, explain=True)).items
    assert all(set(item.chances or {}) == {"next", "view"} for item in listed)
    assert answers.recommend(RecommendQuery(user_id="u0", k=5)).items[0].chances is None
    told = answers.explain(ExplainQuery(user_id="u0", item_id=listed[0].item_id))
    assert told["ranker"]["orders"]
    assert told["ranker"]["chances"] == pytest.approx(listed[0].chances, rel=1e-3)
    seen = live_item(answers, "u0")
    assert answers.explain(ExplainQuery(user_id="u0", item_id=seen))["ranker"]["chances"] == {}


def live_item(answers: Answers, user: str) -> str:
    live = answers.live
    return str(live.state.rows[int(live.state.history(user)[0])]["item_id"])


def test_nobody_nothing_and_everything_filtered_are_answered(space: Path, journal: Journal) -> None:
    answers = Answers(opened(space, journal), journal, ServingSettings())
    assert answers.recommend(RecommendQuery(user_id="u0", filter={"field": "price", "gt": 1e9})).items == []
    stranger = answers.recommend(RecommendQuery(user_id="stranger", k=5, explain=True)).items
    assert len(stranger) == 5
    assert all(item.source == "popular" and item.chances is None for item in stranger)
    journal.put_items([Item(item_id="fresh", title="waterproof hiking boots", categories=["boots"])])
    journal.append([Event(user_id="u0", item_id="only-an-event", event_id="z")])
    assert len(answers.recommend(RecommendQuery(user_id="u0", k=60)).items) > 40
    order = answers.rank(RankQuery(user_id="u0", items=["coffee-1", "fresh", "boots-2", "nothing"])).items
    assert {item.item_id for item in order} == {"coffee-1", "fresh", "boots-2"}
    for place in range(len(answers.live.state.rows)):
        answers.live.state.bar(place)
    assert answers.recommend(RecommendQuery(user_id="u0", k=60)).items == []


def test_batches_are_the_same_lists(space: Path) -> None:
    live = opened(space, None)
    recommender = Recommender.load(live.bundle.path)
    table = recommender.recommend(["u0", "u1", "stranger"], k=8)
    assert table.filter(pl.col("user_id") == "u0")["item_id"].to_list() == [
        live.state.rows[place]["item_id"] for place in asked(live, k=8).items
    ]
    weighed = Recommender.load(live.bundle.path, service=Settings(ranker=RankerSettings(weights={"view": -1.0}))).recommend(
        ["u0"], k=8
    )
    assert weighed["item_id"].to_list() != table.filter(pl.col("user_id") == "u0")["item_id"].to_list()


@pytest.mark.parametrize("count", [14, 40])
def test_vectors_that_the_channels_have_read_are_those_that_are_looked_up(space: Path, count: int) -> None:
    live = opened(space, None)
    assert live.ranker is not None
    state = live.query(live.state.history("u0"), Asker("u0", 1.7e9))
    found = part(live.channels.candidates([state], 60)[0], np.arange(count))
    assert found.vectors is None
    vectors, random = live.channels.items.rows(found.items), np.random.default_rng(0)
    of_item = random.standard_normal((vectors.shape[1], 3), dtype=np.float32)
    asks = replace(live.ranker.list, given=replace(live.ranker.list.given, of_user=of_item, of_item=of_item))
    scores = live.road.fusion.score(found, len(state.history))
    first = asks.first(scores)
    assert (count == 14) == (count <= MORE * len(first)), "all of them are multiplied, or those that are looked at"
    looked_up, read = (
        asks.read([Asked(one, scores, state, first, None)]) for one in (found, msgspec.structs.replace(found, vectors=vectors))
    )
    np.testing.assert_allclose(read.dense.table(), looked_up.dense.table(), atol=1e-5)
    np.testing.assert_allclose(looked_up.dense.theirs, live.channels.items.rows(found.items[first]) @ of_item, atol=1e-5)
    assert np.ptp(looked_up.dense.theirs) > 0
