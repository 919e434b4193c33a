"""The official clients of other services, unchanged, against a served workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from live_service import Service, ids, serving
from tastemaker.cli.app import call
from tastemaker.serving.auth import KeyFile
from tastemaker.serving.compat.personalize import PutEvent, PutEvents, events_of
from toy_bundle import write_workspace

ARN = "arn:aws:personalize:eu-west-1:000000000000:campaign/shop"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str, Path]]:
    folder = tmp_path_factory.mktemp("compat") / "space"
    write_workspace(folder)
    _, key = KeyFile(folder / "keys.json").add("old client", ["admin"])
    with serving(folder, "--compat", "gorse", "--compat", "personalize") as service:
        yield service, key, folder


def _ask(service: Service, key: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body)
    status, _, text = service.raw(method, path, data, {"content-type": "application/json", "X-API-Key": key, **headers})
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode()


def test_gorse_s_own_client(space: tuple[Service, str, Path]) -> None:
    gorse = pytest.importorskip("gorse", reason="PyGorse is not installed: pip install 'tastemaker[compat]'")
    service, key, _ = space
    client = gorse.Gorse(service.url, key)
    stars = [
        {"FeedbackType": "star", "UserId": "bob", "ItemId": f"guitar-{number}", "Timestamp": f"2026-02-2{number}T10:00:00Z"}
        for number in range(3)
    ]
    assert client.insert_feedbacks(stars) == {"RowAffected": 3}
    assert client.insert_feedbacks(stars) == {"RowAffected": 3}
    assert client.insert_feedback("read", "bob", "guitar-4", "2026-02-25", value=2) == {"RowAffected": 1}
    told = client.list_feedbacks("star", "bob")
    assert [(one["ItemId"], one["Timestamp"]) for one in told] == [(one["ItemId"], one["Timestamp"]) for one in stars]
    assert client.list_feedbacks("read", "bob")[0]["Value"] == 2
    found = client.get_recommend("bob", n=5)
    assert len(found) == 5
    assert all(one.id.startswith("guitar") for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert [one.id for one in client.get_recommend("bob", n=3, offset=2)] == [one.id for one in found[2:]]
    assert all(one.id.startswith("coffee") for one in client.get_recommend("bob", category="coffee", n=4))
    shown = client.get_recommend("bob", n=2, write_back_type="read")
    assert not {one.id for one in shown} & {one.id for one in client.get_recommend("bob", n=10)}
    session = client.session_recommend([{"FeedbackType": "star", "UserId": "x", "ItemId": "boots-1", "Timestamp": "2026-02-24"}], 4)
    assert len(session) == 4
    assert all(one["Id"].startswith("boots") and one["Score"] for one in session)
    assert all(one["Id"].startswith("boots") for one in client.get_neighbors("boots-1", n=3))
    whole, cursor = client.get_feedbacks(3)
    rest, _ = client.get_feedbacks(100, cursor)
    assert len(whole) == 3
    assert cursor
    assert not {(one["ItemId"], one["FeedbackType"]) for one in whole} & {(one["ItemId"], one["FeedbackType"]) for one in rest}

    item = {
        "ItemId": "new-1",
        "IsHidden": False,
        "Labels": {"topics": ["waterproof", "trail"]},
        "Categories": ["boots"],
        "Timestamp": "2026-03-01T00:00:00Z",
        "Comment": "Kestrel hiking boots",
    }
    assert client.insert_item(item) == {"RowAffected": 1}
    assert client.get_item("new-1") == item
    assert [one["ItemId"] for one in client.search_items("kestrel", 1)] == ["new-1"]
    assert client.update_item("new-1", is_hidden=True) == {"RowAffected": 1}
    assert client.get_item("new-1") == {**item, "IsHidden": True}
    page, cursor = client.get_items(40)
    later, end = client.get_items(40, cursor)
    assert (len(page), len(later), end) == (40, 21, "")
    assert client.delete_item("new-1") == {"RowAffected": 1}
    with pytest.raises(gorse.GorseException) as refused:
        client.get_item("new-1")
    assert refused.value.status_code == 404
    user = {"UserId": "bob", "Labels": {"city": "Graz"}, "Subscribe": None, "Comment": "said"}
    assert client.insert_user(user) == {"RowAffected": 1}
    assert client.get_user("bob") == user
    assert client.insert_users([{"UserId": "a"}, {"UserId": "c"}]) == {"RowAffected": 2}
    assert [one["UserId"] for one in client.get_users(10)[0]] == ["a", "bob", "c"]
    assert client.delete_user("bob") == {"RowAffected": 1}
    with pytest.raises(gorse.GorseException) as refused:
        client.delete_feedback("bob", "guitar-1")
    assert (refused.value.status_code, "journal" in refused.value.message) == (501, True)
    with pytest.raises(gorse.GorseException) as refused:
        gorse.Gorse(service.url, "tm_00000000_wrong").get_recommend("bob")
    assert refused.value.status_code == 401


def test_gorse_s_routes(space: tuple[Service, str, Path]) -> None:
    service, key, _ = space
    feedback = [{"FeedbackType": "star", "UserId": "ann", "ItemId": "coffee-1", "Timestamp": "2026-02-24T10:00:00Z"}]
    assert _ask(service, key, "PUT", "/api/feedback", feedback) == (200, {"RowAffected": 1})
    assert _ask(service, key, "POST", "/api/feedback", feedback) == (200, {"RowAffected": 1})
    status, told = _ask(service, key, "GET", "/api/user/ann/feedback")
    assert (status, len(told)) == (200, 1), "the same feedback with the same time is one event"
    assert _ask(service, key, "GET", "/api/feedback/ann/coffee-1")[1] == told
    status, names = _ask(service, key, "GET", "/api/recommend/ann?n=4&category=coffee&category=boots")
    assert status == 200
    assert len(names) == 4
    assert all(isinstance(name, str) for name in names)
    assert _ask(service, key, "GET", "/api/recommend/ann/boots?n=2", None, **{"X-API-Version": "2"})[1][0]["Id"].startswith("boots")
    assert _ask(service, key, "POST", "/api/session/recommend/boots?n=2", feedback)[1][0]["Id"].startswith("boots")
    assert _ask(service, key, "POST", "/api/item", {"ItemId": "t1", "Timestamp": "2030-01-01", "Comment": "late"})[0] == 200
    assert [one["Id"] for one in _ask(service, key, "GET", "/api/latest?n=1")[1]] == ["t1"]
    assert _ask(service, key, "DELETE", "/api/item/t1") == (200, {"RowAffected": 1})
    assert len(_ask(service, key, "GET", "/api/non-personalized/popular?n=3&offset=1")[1]) == 3
    assert _ask(service, key, "GET", "/api/item-to-item/neighbors/boots-1?n=1")[1][0]["Id"].startswith("boots")
    assert service.raw("GET", "/api/health/ready")[0] == 200
    for bad in ([{"FeedbackType": "star"}], [{**feedback[0], "Timestamp": "soon"}], {"a": 1}):
        status, said = _ask(service, key, "POST", "/api/feedback", bad)
        assert status == 400
        assert isinstance(said, str)
    assert _ask(service, key, "GET", "/api/feedback?cursor=x")[0] == 400
    assert _ask(service, key, "GET", "/api/item/none")[0] == 404


@pytest.fixture
def aws(space: tuple[Service, str, Path]) -> Any:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'tastemaker[compat]'")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

    def client(name: str, key: str = space[1]) -> Any:
        return boto3.client(
            name, endpoint_url=space[0].url, region_name="eu-west-1", aws_access_key_id=key, aws_secret_access_key="not used"
        )

    return client


def test_personalize_s_own_client(space: tuple[Service, str, Path], aws: Any) -> None:
    service, _, _ = space
    runtime, events = aws("personalize-runtime"), aws("personalize-events")
    now = datetime.now(UTC)
    rows = [
        {"eventId": f"e{number}", "eventType": "click", "itemId": f"boots-{number}", "sentAt": now, "eventValue": 2.0}
        for number in range(3)
    ]
    rows[0]["impression"] = ["boots-9", "boots-0"]
    rows[0]["properties"] = json.dumps({"device": "phone"})
    for _ in range(2):
        events.put_events(trackingId="t", userId="eve", sessionId="s1", eventList=rows)
    told = service.raw("GET", "/api/user/eve/feedback", headers={"X-API-Key": space[1]})[2]
    assert [(one["ItemId"], one["FeedbackType"]) for one in json.loads(told)] == [
        ("boots-0", "click"),
        ("boots-1", "click"),
        ("boots-2", "click"),
    ]
    said = runtime.get_recommendations(campaignArn=ARN, userId="eve", numResults=5)
    found = [one["itemId"] for one in said["itemList"]]
    assert len(found) == 5
    assert all(item.startswith("boots") for item in found)
    assert not {"boots-0", "boots-1", "boots-2"} & set(found)
    assert said["recommendationId"]
    assert len(runtime.get_recommendations(campaignArn=ARN, userId="eve")["itemList"]) == 25
    alike = runtime.get_recommendations(
        campaignArn=ARN, itemId="guitar-1", numResults=3, metadataColumns={"ITEMS": ["TITLE", "PRICE"]}
    )
    assert all(one["itemId"].startswith("guitar") and one["metadata"]["PRICE"] for one in alike["itemList"])
    ranked = runtime.get_personalized_ranking(campaignArn=ARN, userId="eve", inputList=["coffee-3", "nothing", "boots-7"])
    assert [one["itemId"] for one in ranked["personalizedRanking"]] == ["boots-7", "coffee-3", "nothing"]
    properties = json.dumps(
        {"title": "Osprey grinder", "genres": "coffee|beans", "price": "12.5", "creationTimestamp": 1.7e9, "x": 1}
    )
    events.put_items(datasetArn=ARN, items=[{"itemId": "p1", "properties": properties}])
    item = json.loads(service.raw("GET", "/v1/items/p1", headers={"X-API-Key": space[1]})[2])
    assert (item["title"], item["categories"], item["price"], item["created_at"]) == (
        "Osprey grinder",
        ["coffee", "beans"],
        12.5,
        1.7e9,
    )
    assert item["extra"] == {"x": 1}
    events.put_users(datasetArn=ARN, users=[{"userId": "eve", "properties": json.dumps({"age": 30})}])
    assert json.loads(service.raw("GET", "/v1/users/eve", headers={"X-API-Key": space[1]})[2])["extra"] == {"age": 30}
    events.put_events(trackingId="t", sessionId="nobody", eventList=[{"eventType": "click", "sentAt": now, "itemId": "coffee-2"}])
    assert ids(json.loads(service.raw("POST", "/v1/recommend", '{"user_id":"nobody","k":1}', {"X-API-Key": space[1]})[2]))


def test_personalize_s_client_is_refused_in_its_own_words(space: tuple[Service, str, Path], aws: Any) -> None:
    runtime = aws("personalize-runtime")
    with pytest.raises(runtime.exceptions.InvalidInputException, match="filter"):
        runtime.get_recommendations(campaignArn=ARN, userId="eve", filterArn=ARN)
    with pytest.raises(runtime.exceptions.InvalidInputException, match="userId"):
        runtime.get_recommendations(campaignArn=ARN)
    with pytest.raises(runtime.exceptions.ResourceNotFoundException, match="no item"):
        runtime.get_recommendations(campaignArn=ARN, itemId="nothing")
    with pytest.raises(Exception, match="UnrecognizedClientException"):
        aws("personalize-runtime", "AKIAIOSFODNN7EXAMPLE").get_recommendations(campaignArn=ARN, userId="eve")


def test_personalize_s_routes(space: tuple[Service, str, Path]) -> None:
    service, key, _ = space
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={key}/20261126/eu-west-1/personalize/aws4_request, Signature=0"}
    status, _, text = service.raw("POST", "/recommendations", '{"userId":"u0","numResults":2}', signed)
    assert (status, len(json.loads(text)["itemList"])) == (200, 2)
    status, headers, text = service.raw("POST", "/events", '{"trackingId":"t"}', signed)
    assert (status, headers["x-amzn-errortype"], json.loads(text)["__type"]) == (
        400,
        "InvalidInputException",
        "InvalidInputException",
    )
    twice = json.dumps(json.dumps({"title": "twice"}))
    body = json.dumps({"datasetArn": ARN, "items": [{"itemId": "p2", "properties": twice}]})
    assert service.raw("POST", "/items", body, signed)[0] == 200
    assert _ask(service, key, "GET", "/v1/items/p2")[1]["title"] == "twice"


def test_impressions_are_events_where_they_can_not_be_taken_for_positive_ones() -> None:
    one = PutEvent(event_type="click", sent_at=5.0, event_id="e", item_id="b", impression=["a", "b"], recommendation_id="r")
    query = PutEvents(tracking_id="t", session_id="s", event_list=[one])
    told = [
        (event.user_id, event.item_id, event.event_type, event.position, event.request_id) for event in events_of(query, one, True)
    ]
    assert told == [("s", "a", "impression", 0, "r"), ("s", "b", "impression", 1, "r"), ("s", "b", "click", None, "r")]
    assert len({event.event_id for event in events_of(query, one, True)}) == 3
    assert [event.event_type for event in events_of(query, one, False)] == ["click"]


def test_an_unknown_door_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tastemaker.toml").touch()
    assert call(["serve", str(tmp_path), "--compat", "recombee"]) == 2
    assert "gorse, personalize" in capsys.readouterr().err
