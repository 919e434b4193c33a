"""Rules, the fresh slot and newcomers as the service answers them; mostly in process, as HTTP adds nothing to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from live_service import Service, ids
from tastemaker.bundle.registry import Registry
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog, read_served
from tastemaker.models.segments import Column, Segments
from tastemaker.pipeline.rules import Rules
from tastemaker.recommender import Recommender
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item, User
from tastemaker.schema.queries import Answer, ExplainQuery, RecommendQuery
from tastemaker.schema.settings import FreshSettings, ListSettings, ServingSettings, Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.house import House
from tastemaker.serving.wire import Live, open_live
from toy_bundle import write_workspace

Make = Callable[..., Answers]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    write_workspace(tmp_path)
    return Journal.open(tmp_path / "journal")


@pytest.fixture
def answers(journal: Journal, tmp_path: Path) -> Make:
    def make(serving: dict[str, Any] | None = None, fresh: dict[str, Any] | None = None, **lists: Any) -> Answers:
        rules = Settings(lists=msgspec.convert(lists, ListSettings), fresh=FreshSettings(**(fresh or {})))
        live = open_live(tmp_path / "bundles", journal, service=rules)
        return Answers(live, journal, ServingSettings(**(serving or {})), ServedLog(tmp_path / "served", 30))

    return make


def ask(answers: Answers, **query: Any) -> Answer:
    return answers.recommend(msgspec.convert(query, RecommendQuery))


def names(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_default_settings_give_the_list_of_the_scores(answers: Make) -> None:
    asked = answers()
    for user in ("u0", "u1", "nobody"):
        state = asked.live.query(asked.live.state.history(user))
        best = [asked.live.state.rows[item]["item_id"] for item in asked.live.best([state], 12)[0][0]]
        answer = ask(asked, user_id=user, k=12)
        assert names(answer) == best
        assert answer.notes is None
        assert all(item.propensity is None and item.moves is None for item in answer.items)
    assert not (asked.served.folder if asked.served else Path()).exists(), "without chance nothing is kept"


def test_rules_of_a_request(answers: Make) -> None:
    asked = answers()
    plain = names(ask(asked, user_id="u0", k=10))
    cap = ask(asked, user_id="u0", k=9, max_per={"field": "categories", "count": 3}, explain=True)
    kinds = [name.split("-")[0] for name in names(cap)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"boots": 3, "coffee": 3, "guitar": 3}
    assert names(cap)[:3] == plain[:3]
    assert cap.left_out is not None
    assert cap.left_out[0].item_id == plain[3]
    assert "max_per categories" in cap.left_out[0].rule
    four = ask(asked, user_id="u0", k=10, max_per=[{"field": "categories", "count": 3}])
    assert len(four.items) == 10
    assert four.notes == ["max_per was raised (categories 3 to 4): too few other candidates."]
    pins = ask(
        asked,
        user_id="u0",
        k=5,
        pinned=[
            {"item_id": "guitar-3", "place": 2},
            {"item_id": "no such"},
            {"item_id": "guitar-3"},
            {"item_id": "coffee-2", "place": 9},
        ],
        explain=True,
    )
    assert names(pins)[1] == "guitar-3"
    assert pins.items[1].moves is not None
    assert (pins.items[1].moves[-1].rule, pins.items[1].moves[-1].after) == ("pinned", 2)
    assert pins.notes is not None
    assert sorted(note.split(": ")[1] for note in pins.notes) == [
        "it is pinned twice.",
        "place 9 is below the end of the list.",
        "there is no such item.",
    ]
    boost = ask(asked, user_id="u0", k=3, boost=[{"filter": {"field": "categories", "eq": "coffee"}}])
    assert all(name.startswith("coffee") for name in names(boost))
    bury = ask(asked, user_id="u0", k=3, bury=[{"filter": {"field": "categories", "eq": "boots"}}])
    assert not any(name.startswith("boots") for name in names(bury))
    varied = [names(ask(asked, user_id="u0", k=10, diversity=0.6, diversity_by=by)) for by in ("mmr", "dpp")]
    assert varied[0] != plain != varied[1]
    assert all(len(set(found)) == 10 for found in varied)


def test_contradictions_and_nothing_left(answers: Make) -> None:
    asked = answers()
    seen = asked.live.state.rows[int(asked.live.state.history("u0")[0])]["item_id"]
    answer = ask(
        asked,
        user_id="u0",
        k=4,
        exclude=["guitar-3"],
        pinned=[
            {"item_id": "guitar-3"},
            {"item_id": seen},
            {"item_id": "coffee-1", "place": 1},
            {"item_id": "coffee-2", "place": 1},
        ],
    )
    assert names(answer)[0] == "coffee-1"
    assert [note.split(": ")[1] for note in answer.notes or []] == [
        "place 1 is taken by another pin.",
        "it is hidden, filtered or excluded.",
        "the user has met it.",
    ]
    nothing = ask(asked, user_id="u0", filter={"field": "price", "lt": 0}, pinned=[{"item_id": "coffee-1"}])
    assert nothing.items == []
    assert nothing.notes is not None
    assert nothing.notes[-1] == "Nothing may be shown: every item is hidden, filtered or excluded."
    whole = ask(asked, user_id="u0", k=100_000, near_duplicates=0.2, same_title=True, max_per={"field": "categories", "count": 1})
    assert len(whole.items) == len(set(names(whole))) == 60 - 8


def test_rules_of_the_service(answers: Make, journal: Journal) -> None:
    asked = answers(
        filter={"field": "price", "lt": 20},
        pinned=[{"item_id": "guitar-2", "place": 1}],
        boost=[{"filter": {"field": "categories", "eq": "coffee"}, "places": 40}],
        max_per=[{"field": "categories", "count": 2}],
        diversity=0.3,
        same_title=True,
    )
    answer = ask(asked, user_id="u0", k=6, explain=True)
    assert names(answer)[0] == "guitar-2"
    assert all(int(name.split("-")[1]) < 10 for name in names(answer)), "the filter of the service holds"
    assert [name.split("-")[0] for name in names(answer)].count("coffee") == 2
    assert any(move.rule == "service boost[0]" for item in answer.items for move in item.moves or [])
    assert "boots-15" not in [asked.live.state.rows[place]["item_id"] for place in asked.live.search("boots", 60)[0]]
    looser = ask(asked, user_id="u0", k=6, max_per={"field": "categories", "count": 4}, diversity=0.0)
    assert [name.split("-")[0] for name in names(looser)].count("coffee") == 4, "the request's cap stands"
    journal.put_items(
        [Item(item_id="dear", title="hiking boots", price=90.0), Item(item_id="cheap", title="trail boots", price=5.0)]
    )
    found = names(ask(asked, user_id="u0", k=60))
    assert "cheap" in found
    assert "dear" not in found
    with pytest.raises(InputError, match=r"service bury\[0\]"):
        answers(bury=[{"filter": {"colour": 1}}])


def test_batch_lists_obey_the_house_too(answers: Make) -> None:
    asked = answers(
        pinned=[{"item_id": "guitar-2", "place": 1}],
        max_per=[{"field": "categories", "count": 2}],
        filter={"field": "price", "lt": 20},
    )
    batch = Recommender()
    batch._live = asked.live
    found = batch.recommend(["u0", "u1"], k=6)
    for user in ("u0", "u1"):
        live = names(ask(asked, user_id=user, k=6))
        assert found.filter(pl.col("user_id") == user)["item_id"].to_list() == live
        assert (live[0], len(live)) == ("guitar-2", 6)


def put_fresh(journal: Journal, count: int = 3) -> None:
    journal.put_items(
        [Item(item_id=f"new-{number}", title=f"brand{number} waterproof hiking boots trail") for number in range(count)]
    )


def test_the_fresh_slot_over_many_requests(answers: Make, journal: Journal) -> None:
    asked = answers(fresh={"temperature": 2.0})
    put_fresh(journal)
    base = names(ask(asked, user_id="u0", k=8, filter={"field": "item_id", "none_of": ["new-0", "new-1", "new-2"]}))
    counts: dict[str, int] = {}
    told: dict[str, float] = {}
    for number in range(80):
        answer = ask(asked, user_id="u0", k=8, request_id=f"r{number}")
        again = ask(asked, user_id="u0", k=8, request_id=f"r{number}")
        assert names(answer) == names(again), "the same request is answered alike"
        for item in answer.items:
            counts[item.item_id] = counts.get(item.item_id, 0) + 1
            assert item.propensity is not None
            assert told.setdefault(item.item_id, item.propensity) == pytest.approx(item.propensity)
        assert sum(item.source == "fresh slot" for item in answer.items) <= 1
    for name, times in counts.items():
        assert times / 80 == pytest.approx(told[name], abs=0.15)
    inside = [name for name in counts if name.startswith("new-")]
    assert len(inside) > 1
    assert sum(told[name] for name in inside if name not in base) <= 0.8 + 1e-6 + sum(name in base for name in inside)
    kept = read_served(asked.served.folder) if asked.served else pl.DataFrame()
    assert kept.height == 160 * 8
    assert kept.filter(pl.col("request_id") == "r3")["item_id"].to_list()[:8] == names(
        ask(asked, user_id="u0", k=8, request_id="r3")
    )
    assert dict(kept.select("item_id", "propensity").unique().iter_rows()) == pytest.approx(told)
    slots = {item.item_id: item for item in ask(asked, user_id="u0", k=10, request_id="r3").items if item.source == "fresh slot"}
    assert len(slots) == 1
    why = asked.explain(ExplainQuery(user_id="u0", item_id=next(iter(slots)), request_id="r3"))
    assert why["fresh"] == "fresh"
    assert (why["list"]["place"], why["list"]["source"]) == (10, "fresh slot")
    assert why["list"]["propensity"] == next(iter(slots.values())).propensity
    assert why["list"]["moves"][-1].rule == "fresh slot"
    assert not any(item.source == "fresh slot" for item in ask(answers(serving={"fresh_slots": 0}), user_id="u0", k=8).items)


def test_an_item_graduates_by_events_and_by_age(answers: Make, journal: Journal) -> None:
    asked = answers(fresh={"graduate_taken": 2, "graduate_shown": 3, "graduate_days": 7.0})
    put_fresh(journal)
    journal.put_items(
        [
            Item(item_id="old", title="hiking boots", created_at=time.time() - 8 * 86_400),
            Item(item_id="young", title="boots", created_at=time.time()),
        ]
    )
    asked.live.poll()
    state = asked.live.state

    def fresh() -> set[str]:
        asked.live.poll()
        return {state.rows[place]["item_id"] for place in state.fresh.now(time.time()).tolist()}

    assert fresh() == {"new-0", "new-1", "new-2", "young"}
    assert state.fresh.why_not(state.index_of["old"], time.time()) == "8 days old"
    journal.append([Event(user_id=f"x{number}", item_id="new-0") for number in range(2)])
    assert fresh() == {"new-1", "new-2", "young"}
    journal.append([Event(user_id=f"y{number}", item_id="new-1", event_type="impression") for number in range(3)])
    assert fresh() == {"new-2", "young"}
    assert state.fresh.why_not(state.index_of["new-1"], time.time()) == "shown 3 times"
    assert asked.explain(ExplainQuery(user_id="u0", item_id="new-0"))["fresh"] == "taken 2 times"
    assert asked.explain(ExplainQuery(user_id="u0", item_id="boots-1"))["fresh"] == "the bundle knows it"
    later = time.time() + 8 * 86_400
    assert {state.rows[place]["item_id"] for place in state.fresh.now(later).tolist()} == {"new-2"}, "what has no date does not age"
    journal.put_items([Item(item_id="boots-1", title="boots", created_at=time.time())])
    assert "boots-1" not in fresh(), (
        "taken often enough when the bundle was made" if state._trained[state.index_of["boots-1"]] >= 2 else True
    )
    again = answers(fresh={"graduate_taken": 2, "graduate_shown": 3, "graduate_days": 7.0}).live.state
    assert {again.rows[place]["item_id"] for place in again.fresh.now(time.time()).tolist()} == fresh(), "a restart knows the same"


def with_segments(workspace: Path) -> Segments:
    """Popularity by `kind`: of the people who say so, coffee; of the others, guitars."""
    registry = Registry(workspace / "bundles")
    folder = registry.live()
    n = 60
    lifts = np.zeros((2, n), np.float32)
    lifts[0, 20:40], lifts[1, 40:60] = 3.0, 3.0
    segments = Segments(
        np.full(n, -4.0, np.float32),
        [Column("kind", 1.0, values=["drinker", "player"])],
        [np.zeros(2, np.float32)],
        [sp.csr_matrix(lifts)],
    )
    segments.save(folder / "segments")
    return segments


def test_newcomers_are_known_by_their_attributes(tmp_path: Path, journal: Journal) -> None:
    with_segments(tmp_path)
    live = Live(Registry(tmp_path / "bundles").live(), journal, check=False)
    asked = Answers(live, journal, ServingSettings())
    assert {item.source for item in ask(asked, user_id="n1").items} == {"popular"}
    journal.put_users(
        [
            User(user_id="n1", extra={"kind": " Drinker"}),
            User(user_id="n2", extra={"kind": "player"}),
            User(user_id="n3", extra={"kind": 7}),
        ]
    )
    answer = ask(asked, user_id="n1", explain=True)
    assert all(name.startswith("coffee") for name in names(answer))
    assert {(item.source, item.reason) for item in answer.items} == {("segment", "popular with people like you (kind drinker)")}
    assert all(name.startswith("guitar") for name in names(ask(asked, user_id="n2")))
    assert {item.source for item in ask(asked, user_id="n3").items} == {"popular"}
    rows = Recommender()
    rows._live = live
    batch = rows.recommend(["n1", "n2"], k=5)
    assert all(name.startswith("coffee") for name in batch.filter(pl.col("user_id") == "n1")["item_id"])
    assert all(name.startswith("guitar") for name in batch.filter(pl.col("user_id") == "n2")["item_id"])
    assert {item.source for item in ask(asked, user_id="\ud800").items} == {"popular"}, "no name, no profile, no fault"
    journal.append([Event(user_id="n1", item_id="boots-1"), Event(user_id="n1", item_id="boots-2")])
    assert all(name.startswith("boots") for name in names(ask(asked, user_id="n1", k=5))), "the first events say more"


def test_over_http(service: Service) -> None:
    answer = service.ask(
        "POST", "/v1/recommend", {"user_id": "u0", "k": 4, "pinned": [{"item_id": "guitar-1"}, {"item_id": "?"}], "explain": True}
    )
    assert ids(answer)[0] == "guitar-1"
    assert answer["notes"] == ["Pinned item '?' was left out: there is no such item."]
    assert answer["items"][0]["moves"][-1]["rule"] == "pinned"
    assert service.ask("POST", "/v1/recommend", {"request_id": "mine", "k": 1})["request_id"] == "mine"
    for wrong in (
        {"diversity_by": "magic"},
        {"diversity": 1.5},
        {"max_per": {"field": "categories"}},
        {"max_per": {"field": "categories", "count": 0}},
        {"max_per": [{"field": "categories", "count": 1, "more": 1}]},
        {"pinned": [{"place": 1}]},
        {"pinned": [{"item_id": "x", "place": 0}]},
        {"boost": [{"filter": {"field": "price", "like": 1}}]},
        {"bury": [{"places": 1}]},
        {"near_duplicates": -0.1},
        {"request_id": ""},
    ):
        said = service.ask("POST", "/v1/recommend", {"user_id": "u0", **wrong}, status=422)
        assert len(said["detail"]) > 20
    why = service.ask("POST", "/v1/explain", {"user_id": "u0", "item_id": "guitar-1"})
    assert why["list"]["place"] is None
    assert why["fresh"] == "the bundle knows it"


def test_the_settings_of_lists_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tastemaker.toml"
    path.write_text(
        '[lists]\nmax_per = [{field = "categories", count = 3}]\npinned = [{item_id = "a"}]\nfilter = {field = "price", lt = 9}\n'
        'boost = [{filter = {field = "brand", eq = "ours"}, places = 5}]\n[fresh]\npage = 20\n'
    )
    found = load_settings(
        path, ['lists.bury=[{"filter": {"field": "price", "gt": 5}}]', 'lists.filter={"field": "price", "lt": 7}'], {}
    )
    assert (found.lists.max_per[0].count, found.lists.pinned[0].item_id, found.lists.boost[0].places) == (3, "a", 5)
    assert (found.lists.bury[0].filter, found.lists.filter, found.fresh.page) == (
        {"field": "price", "gt": 5},
        {"field": "price", "lt": 7},
        20,
    )
    for wrong in (
        'lists.max_per=[{"field": "a"}]',
        "lists.pinned=[{",
        'lists.max_per=[{"field": "a", "count": 1, "x": 2}]',
        "lists.diversity_by=magic",
    ):
        with pytest.raises(InputError):
            load_settings(None, [wrong], {})


@pytest.mark.parametrize(
    "asked",
    [
        {"diversity": 0.4}, {"diversity_by": "dpp"}, {"near_duplicates": 0.9}, {"same_title": True}, {"max_per": [{"field": "categories", "count": 1}]},
        {"pinned": [{"item_id": "a", "place": 1}]}, {"boost": [{"filter": {"field": "price", "lt": 2}, "places": 2}]},
        {"bury": [{"filter": {"field": "price", "lt": 2}, "places": 2}]},
    ],
    ids=lambda one: next(iter(one)),
)  # fmt: skip
def test_each_rule_of_a_request_is_heard_by_a_house_without_any(asked: dict[str, Any]) -> None:
    house, barred, nobody = House(ListSettings()), np.zeros(3, dtype=bool), np.zeros(0, dtype=np.int32)
    query = msgspec.convert({"k": 2, **asked}, RecommendQuery)
    assert house.rules({"a": 0}, 2, barred, nobody, query) != house.rules({"a": 0}, 2, barred, nobody) == Rules()
