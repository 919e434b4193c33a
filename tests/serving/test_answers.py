"""What the service answers, over real HTTP, from two workers."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from live_service import Service, ids, serving
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import BundleError
from tastemaker.serving.wire import open_live
from toy_bundle import PER_KIND, items, write_workspace


def test_people_get_their_own_kind(service: Service) -> None:
    for user, kind in (("u0", "boots"), ("u1", "coffee"), ("u2", "guitar")):
        answer = service.ask("POST", "/v1/recommend", {"user_id": user, "k": 8, "explain": True})
        assert len(answer["items"]) == 8
        assert all(item.startswith(kind) for item in ids(answer)), answer
        assert all(item["reason"] and item["source"] for item in answer["items"])
        assert answer["request_id"]
        assert answer["model_version"]
    page = {"content-type": "text/plain", "Origin": "http://evil.example"}  # what a browser sends for a page of another site
    assert service.raw("POST", "/v1/events", '{"events":[]}', page)[0] == 403
    status, headers, text = service.raw("POST", "/v1/recommend", '{"k":1}')
    assert (status, headers["x-request-id"]) == (200, json.loads(text)["request_id"])


def test_an_acknowledged_event_is_in_the_next_answer_of_every_worker(service: Service) -> None:
    assert {item["source"] for item in service.ask("POST", "/v1/recommend", {"user_id": "new-1"})["items"]} == {"popular"}
    for number in range(3):
        item = f"guitar-{number}"
        said = service.ask("POST", "/v1/events", {"events": [{"user_id": "new-1", "item_id": item}]}, status=202)
        assert said == {"accepted": 1, "duplicates": 0, "rejected": []}
        for _ in range(8):
            found = service.recommend(user_id="new-1", k=10)
            assert item not in found
            assert all(one.startswith("guitar") for one in found), found


def test_events_are_taken_once_and_bad_rows_are_told(service: Service) -> None:
    rows = [
        {"event_id": "e-1", "user_id": "n2", "item_id": "boots-1"},
        {"event_id": "e-1", "user_id": "n2", "item_id": "boots-1"},
        {"user_id": "n2"},
        {"user_id": "n2", "item_id": "boots-2", "value": "much"},
        {"user_id": "", "item_id": "boots-2"},
        {"user_id": "n2", "item_id": "boots-2", "colour": 1},
        7,
    ]
    good = service.ask("POST", "/v1/events", {"events": rows[:6]}, status=202)
    assert (good["accepted"], good["duplicates"]) == (1, 1)
    assert [bad["index"] for bad in good["rejected"]] == [2, 3, 4, 5]
    assert all(bad["reason"] for bad in good["rejected"])
    again = service.ask("POST", "/v1/events", {"events": rows[:1]}, status=202)
    assert (again["accepted"], again["duplicates"]) == (0, 1)


def test_a_new_item_with_only_a_title_reaches_the_right_people_at_once(service: Service) -> None:
    service.ask("PUT", "/v1/items/fresh%2F1", {"title": "Kestrel waterproof hiking boots"})
    for _ in range(6):
        assert "fresh/1" in service.search("kestrel")
        assert service.search("waterproof hiking boots", 60).count("fresh/1") == 1
        assert "fresh/1" in service.recommend(user_id="u0", k=10)
        assert "fresh/1" not in service.recommend(user_id="u1", k=10)
        assert "fresh/1" in ids(service.ask("GET", "/v1/items/boots-0/similar?k=20"))
        assert all(one.startswith("boots") for one in ids(service.ask("GET", "/v1/items/fresh%2F1/similar?k=5")))
    service.ask("PATCH", "/v1/items/fresh%2F1", {"hidden": True})
    assert "fresh/1" not in service.search("kestrel")
    service.ask("PATCH", "/v1/items/fresh%2F1", {"hidden": False, "price": 3})
    assert service.ask("GET", "/v1/items/fresh%2F1")["price"] == 3
    service.ask("DELETE", "/v1/items/fresh%2F1")
    for _ in range(6):
        assert "fresh/1" not in service.search("kestrel")
        assert "fresh/1" not in service.recommend(user_id="u0", k=100)
        service.ask("GET", "/v1/items/fresh%2F1/similar", status=404)
    service.ask("DELETE", "/v1/items/fresh%2F1", status=404)
    service.ask("GET", "/v1/items/fresh%2F1", status=404)


def test_filters_exclusions_and_lengths(service: Service) -> None:
    spec = {"all": [{"field": "categories", "any_of": ["coffee", "guitar"]}, {"field": "price", "lte": 15}]}
    found = service.recommend(user_id="u0", k=100, filter=spec)
    assert len(found) == 12
    assert all(one.split("-")[0] in ("coffee", "guitar") and int(one.split("-")[1]) <= 5 for one in found)
    assert "coffee-1" not in service.recommend(user_id="u0", k=100, filter=spec, exclude=["coffee-1", "no such item"])
    assert service.recommend(user_id="u0", k=100, filter={"field": "price", "lt": 0}) == []
    assert service.recommend(user_id="u0", k=0) == []
    everything = service.recommend(user_id="u0", k=1_000_000)
    assert len(everything) == len(set(everything)) >= 3 * PER_KIND - 8
    service.ask("POST", "/v1/recommend", {"filter": {"field": "price", "like": 1}}, status=422)


def test_sessions_ranks_and_explanations(service: Service) -> None:
    found = service.recommend(session=[{"item_id": "coffee-1"}, {"item_id": "unknown"}], k=5)
    assert all(one.startswith("coffee") for one in found)
    assert "coffee-1" not in found
    ranked = ids(service.ask("POST", "/v1/rank", {"user_id": "u0", "items": ["coffee-3", "boots-3", "coffee-3", "nothing"]}))
    assert sorted(ranked) == ["boots-3", "coffee-3"]
    assert ids(service.ask("POST", "/v1/rank", {"user_id": "u1", "items": ["boots-3", "coffee-3"]}))[0] == "coffee-3"
    why = service.ask("POST", "/v1/explain", {"user_id": "u0", "item_id": "coffee-3"})
    assert set(why["channels"]) >= {"sequence", "text", "popular"}
    service.ask("POST", "/v1/explain", {"user_id": "u0", "item_id": "nothing"}, status=404)


def test_a_varied_list_is_less_alike(service: Service) -> None:
    plain = service.recommend(user_id="new-2", session=[{"item_id": "boots-1"}, {"item_id": "guitar-1"}], k=10)
    varied = service.recommend(user_id="new-2", session=[{"item_id": "boots-1"}, {"item_id": "guitar-1"}], k=10, diversity=0.9)
    assert len(varied) == len(plain) == 10
    assert len({one.split("-")[0] for one in varied}) >= len({one.split("-")[0] for one in plain})


def test_users_and_their_history(service: Service) -> None:
    names = [user["user_id"] for user in service.ask("GET", "/v1/users?limit=5")["users"]]
    assert len(names) == 5
    service.ask("PUT", "/v1/users/u0", {"extra": {"city": "Graz"}})
    service.ask("PATCH", "/v1/users/u0", {"extra": {"age": 30}})
    service.ask("POST", "/v1/events", {"events": [{"user_id": "u0", "item_id": "coffee-9"}]})
    user = service.ask("GET", "/v1/users/u0")
    assert user["extra"] == {"city": "Graz", "age": 30}
    assert user["history"][0]["item_id"] == "coffee-9"
    service.ask("DELETE", "/v1/users/u0")
    service.ask("GET", "/v1/users/nobody", status=404)
    assert service.ask("POST", "/v1/users:batch", {"users": [{"user_id": "a"}, {"user_id": "b", "x": 1}]}) == {"stored": 2}


def test_connections_are_stored_by_the_rules_of_a_file(service: Service) -> None:
    friends = [{"head": "user:u0", "relation": "friend", "tail": f"user:u{other}"} for other in (1, 2)]
    assert service.ask("POST", "/v1/edges:batch", {"edges": friends}) == {"stored": 2}
    assert service.ask("POST", "/v1/edges:batch", {"edges": [{**friends[0], "weight": 0}, {**friends[1], "weight": 2.5}]}) == {
        "stored": 2
    }
    for wrong in ({"tail": "user:u0"}, {"weight": -1}, {"weight": "heavy"}, {"relation": ""}, {"wieght": 1}):
        told = service.ask("POST", "/v1/edges:batch", {"edges": [{**friends[0], "weight": 9}, friends[0] | wrong]}, status=422)
        assert "edges[1]" in json.dumps(told)
    with contextlib.closing(Journal.open(service.log.parent / "journal")) as journal:
        assert journal.edges().rows() == [("user:u0", "friend", "user:u2", 2.5)]


def test_figures_pages_and_documents(service: Service) -> None:
    service.ask("POST", "/v1/recommend", {"k": "many"}, status=422)
    text = service.raw("GET", "/metrics")[2].decode()
    assert 'tastemaker_request_seconds_count{route="recommend",status="2xx"}' in text
    assert 'tastemaker_requests_total{route="recommend",status="422"}' in text
    assert "boots-1" not in text
    assert service.ask("GET", "/openapi.json")["openapi"].startswith("3.1")
    for page in ("/", "/docs"):
        status, headers, body = service.raw("GET", page)
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        assert b'src="http' not in body


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_catalogue_and_a_single_item(tmp_path: Path, count: int) -> None:
    write_workspace(tmp_path / "space", items()[:count], users=0)
    with serving(tmp_path / "space") as service:
        assert len(service.recommend(user_id="u", k=5)) == count
        assert len(service.recommend(user_id="u", k=5, diversity=0.5)) == count
        assert len(service.recommend(session=[{"item_id": "boots-0"}], k=5)) == 0
        assert len(service.search("boots")) == count
        service.ask("POST", "/v1/events", {"events": [{"user_id": "u", "item_id": "boots-0"}]})
        assert service.recommend(user_id="u", k=5) == []
        service.ask("PUT", "/v1/items/two", {"title": "hiking boots"})
        assert service.recommend(user_id="u", k=5) == ["two"]


def test_a_user_with_a_hundred_thousand_events(service: Service) -> None:
    for begin in range(0, 100_000, 10_000):
        rows = [
            {"user_id": "busy", "item_id": f"boots-{number % 10}", "timestamp": number} for number in range(begin, begin + 10_000)
        ]
        service.ask("POST", "/v1/events", {"events": rows}, status=202)
    service.recommend(user_id="busy")
    found = [service.recommend(user_id="busy", k=10) for _ in range(10)]
    assert all(one.startswith("boots") and int(one.split("-")[1]) >= 10 for one in found[-1])


def test_a_service_that_starts_with_a_spoiled_live_bundle_answers_with_the_previous_one(tmp_path: Path) -> None:
    good = write_workspace(tmp_path)
    bundles = tmp_path / "bundles"
    shutil.copytree(bundles / good, bundles / "spoiled")
    (bundles / "spoiled" / "fusion.json").write_text("{}")
    (bundles / "registry.json").write_text(json.dumps({"live": "spoiled", "previous": good}))
    assert open_live(bundles, None).version == good
    (bundles / "registry.json").write_text(json.dumps({"live": "spoiled"}))
    with pytest.raises(BundleError, match=r"fusion.json"):
        open_live(bundles, None)


def test_people_are_not_recommended_where_nobody_knows_anybody(service: Service) -> None:
    told = service.ask("POST", "/v1/recommend", {"user_id": "u0", "target": "users"}, 422)
    assert "no connections between users" in told["detail"]
    assert "--edges" in told["detail"]
    wrong = {"user_id": "u0", "target": "users", "filter": {"field": "price", "lte": 3}, "diversity": 0.5}
    assert "filter, diversity is about items" in service.ask("POST", "/v1/recommend", wrong, 422)["detail"]
    service.ask("POST", "/v1/recommend", {"target": "shops"}, 422)


def test_search_forgives_mistakes_reads_chinese_and_knows_whom_it_answers(service: Service) -> None:
    assert service.search("espreso machne", 1)[0].startswith("coffee")
    assert service.search("gitar strngs", 1)[0].startswith("guitar")
    service.ask("PUT", "/v1/items/cn-1", {"title": "防水登山鞋 男款"})
    for _ in range(4):
        assert service.search("登山鞋男款", 1) == ["cn-1"]
        assert service.search("防水登山靴", 1) == ["cn-1"]
    service.ask("DELETE", "/v1/items/cn-1")
    for _ in range(4):
        assert "cn-1" not in service.search("登山鞋男款", 100)
    nobody = {one["item_id"]: one["score"] for one in service.ask("POST", "/v1/search", {"query": "brand3", "k": 3})["items"]}
    assert sorted(nobody) == ["boots-3", "coffee-3", "guitar-3"]
    for user, kind in (("u0", "boots"), ("u1", "coffee"), ("u2", "guitar")):
        answer = service.ask("POST", "/v1/search", {"query": "brand3", "k": 3, "user_id": user})
        gains = {one["item_id"]: one["score"] / nobody[one["item_id"]] for one in answer["items"]}
        assert max(gains, key=gains.__getitem__) == f"{kind}-3", (user, gains)
        assert 1 < gains[f"{kind}-3"] <= 1.151
        named = ids(service.ask("POST", "/v1/search", {"query": "brand3 espresso coffee machine", "k": 1, "user_id": user}))
        assert named == ["coffee-3"], "who names a thing gets it, whoever asks"
    stranger = service.ask("POST", "/v1/search", {"query": "brand3", "k": 3, "user_id": "never seen"})
    assert {one["item_id"]: one["score"] for one in stranger["items"]} == nobody
