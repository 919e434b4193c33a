"""Whatever is sent, the answer is never a 5xx."""

from __future__ import annotations

import json

import pytest

from live_service import Service

DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000 + "1" + "}" * 100_000
BODIES = {
    "nothing": "",
    "a word": "tastemaker",
    "null": "null",
    "NaN": '{"k": NaN}',
    "infinity": '{"events":[{"user_id":"u","item_id":"i","value":1e999}]}',
    "infinite price": '{"title":"a","price":1e999}',
    "huge number": '{"extra":{"a":' + "9" * 400 + '}, "title": "a"}',
    "endless number": '{"extra":{"a":' + "9" * 10_000 + "}}",
    "big whole number": '{"extra":{"a":123456789012345678901234567890}}',
    "huge k": '{"k": 1e300}',
    "negative k": '{"k": -1}',
    "fraction k": '{"k": 1.5}',
    "deep": DEEP,
    "deep object": DEEP_OBJECT,
    "deep filter": '{"filter":' + '{"not":' * 900 + '{"field":"price","lt":1}' + "}" * 901,
    "deep extra": '{"extra":{"a":' + "[" * 900 + "]" * 900 + "}}",
    "surrogate id": '{"user_id":"\\ud800","item_id":"\\udfff","query":"\\ud800"}',
    "surrogate events": '{"events":[{"user_id":"\\ud800","item_id":"i"}]}',
    "surrogate inside": '{"title":"a","extra":{"\\ud800":"\\udc00"}}',
    "surrogate context": '{"events":[{"user_id":"u","item_id":"i","context":{"a":"\\ud800"}}]}',
    "big context": '{"events":[{"user_id":"u","item_id":"i","context":{"a":123456789012345678901234567890}}]}',
    "big position": '{"events":[{"user_id":"u","item_id":"i","position":123456789012345678901234567890}]}',
    "big filter": '{"filter":{"field":"price","lt":' + "9" * 400 + "}}",
    "odd filter": '{"filter":{"field":"price","any_of":[null,true,{}]}}',
    "numeric extra": '{"filter":{"field":"title","lt":3}}',
    "zero bytes": '{"user_id":"a\\u0000b","query":"\\u0000","title":"\\u0000"}',
    "broken utf8": b'{"query":"\xff\xfe"}',
    "long id": json.dumps({"user_id": "x" * 100_000, "item_id": "y" * 600}),
    "long query": json.dumps({"query": "boots " * 3_000}),
    "right to left": json.dumps({"query": "\u202eboots", "title": "\u202e"}),
}
ROUTES = (
    ("POST", "/v1/recommend"),
    ("POST", "/v1/rank"),
    ("POST", "/v1/search"),
    ("POST", "/v1/events"),
    ("POST", "/v1/explain"),
    ("POST", "/v1/items:batch"),
    ("POST", "/v1/users:batch"),
    ("POST", "/v1/edges:batch"),
    ("PUT", "/v1/items/odd"),
    ("PATCH", "/v1/items/odd"),
    ("PUT", "/v1/users/odd"),
    ("PATCH", "/v1/users/odd"),
)


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies(service: Service, name: str) -> None:
    body = BODIES[name]
    data = body.encode() if isinstance(body, str) else body
    for method, path in ROUTES:
        status, headers, text = service.raw(method, path, data)
        assert status < 500, (method, path, status, text[:300])
        if status >= 400:
            assert headers["content-type"] == "application/problem+json", (method, path)
            assert json.loads(text)["status"] == status
        else:
            json.loads(text)
    assert service.raw("GET", "/v1/items/odd")[0] in (200, 404)
    assert len(service.recommend(user_id="u0", k=5)) == 5


def test_bodies_of_the_wrong_size_and_type(service: Service) -> None:
    huge = b'{"query":"' + b"a" * 11_000_000 + b'"}'
    assert service.raw("POST", "/v1/search", huge)[0] == 413
    assert service.raw("POST", "/v1/search", b"a=1", {"content-type": "image/png"})[0] == 415
    assert service.raw("POST", "/v1/search", '{"query":"boots"}', {})[0] == 200
    many = json.dumps({"events": [{"user_id": "u", "item_id": "i"}] * 10_001})
    assert service.raw("POST", "/v1/events", many)[0] == 422


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/recommend", 405),
        ("GET", "/v1/items/x/similar?k=-1", 422),
        ("GET", "/v1/items/boots-1/similar?k=x", 422),
        ("GET", "/v1/items/boots-1/similar?k=0", 200),
        ("GET", "/v1/items/" + "x" * 600, 422),
        ("GET", "/v1/items/%ff%fe", 404),
        ("GET", "/v1/items/%ed%a0%80", 404),
        ("GET", "/v1/items/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/users?limit=99999999", 422),
        ("DELETE", "/v1/users/no-such", 404),
    ],
)
def test_odd_addresses(service: Service, method: str, path: str, wanted: int) -> None:
    status, headers, _ = service.raw(method, path)
    assert status == wanted
    assert wanted == 200 or headers["content-type"] == "application/problem+json"
