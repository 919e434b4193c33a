"""Closed by default: keys, scopes, rates, ids of requests, the access log, and connections that can't be held for nothing."""

from __future__ import annotations

import hmac
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from live_service import JSON, Service, serving
from tastemaker.cli.app import call
from tastemaker.schema.errors import InputError
from tastemaker.serving import connection
from tastemaker.serving.admission import WINDOW, Admission, TooMany, share
from tastemaker.serving.auth import SCOPES, KeyFile, Keyring, NoKey, NotAllowed, check_own, is_loopback, token_of
from tastemaker.serving.routes import TABLE
from toy_bundle import write_workspace

BODIES = {
    "recommend": {"k": 2},
    "rank": {"items": ["boots-1"]},
    "search": {"query": "boots"},
    "explain": {"user_id": "u0", "item_id": "boots-1"},
    "events": {"events": []},
    "put_items": {"items": []},
    "put_users": {"users": []},
    "put_edges": {"edges": []},
    "release": {"version": "none"},
}


def test_a_key_is_known_by_its_hash_and_kept_nowhere(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, text = file.add("shop", ["read"])
    assert text not in file.path.read_text()
    assert text.split("_", 2)[2] not in file.path.read_text()
    assert file.path.stat().st_mode & 0o077 == 0
    ring = Keyring(file)
    assert ring.enter(text.encode(), "read") == key
    for wrong in (None, b"", b"tm__", text.encode()[:-1], text.encode() + b"a", b"tm_00000000_" + b"x" * 43, b"\xff_\xff_\xff"):
        with pytest.raises(NoKey):
            ring.enter(wrong, "read")
    with pytest.raises(NotAllowed, match=r"may read; this needs write"):
        ring.enter(text.encode(), "write")
    _, everything = file.add("me", ["admin"])
    assert all(Keyring(file).enter(everything.encode(), scope) for scope in SCOPES)


def test_every_comparison_is_of_two_hashes_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, text = file.add("", ["read"])
    ring, seen = Keyring(file), []
    plain = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: seen.append((len(one), len(other))) or plain(one, other))
    tokens = [text, text[:-1] + "~", "tm_ffffffff_x", "x"]
    for token in tokens:
        try:
            ring.enter(token.encode(), "read")
        except NoKey:
            continue
    assert seen == [(64, 64)] * len(tokens)


def test_a_closed_service_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.serving.auth.REFRESH_SECONDS", 0.0)
    file = KeyFile(tmp_path / "keys.json")
    ring = Keyring(file)
    assert ring.enter(None, "admin") is None
    key, text = file.add("", ["read"])
    assert ring.enter(text.encode(), "read") == key
    file.revoke(key.key_id)
    with pytest.raises(NoKey):
        ring.enter(text.encode(), "read")
    file.path.unlink()
    with pytest.raises(NoKey):
        ring.enter(None, "read")
    with pytest.raises(NoKey):
        Keyring(file, closed=True).enter(None, "read")
    file.path.write_text("[{")
    with pytest.raises(NoKey):
        Keyring(file).enter(None, "read")
    with pytest.raises(InputError, match="damaged"):
        file.read()


def test_a_key_comes_in_any_of_three_headers() -> None:
    assert token_of([(b"host", b"a"), (b"x-api-key", b"tm_1_a")]) == b"tm_1_a"
    assert token_of([(b"authorization", b"bearer tm_1_a")]) == b"tm_1_a"
    signed = b"AWS4-HMAC-SHA256 Credential=tm_1_a-_/20261126/eu-west-1/personalize/aws4_request, SignedHeaders=host, Signature=00"
    assert token_of([(b"authorization", signed)]) == b"tm_1_a-_"
    assert token_of([(b"authorization", b"Basic dG1fMV9h")]) is None


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_which_addresses_are_this_machine_s_own(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize("name", [b"host", b"origin"])
def test_an_open_service_answers_its_own_machine_alone(name: bytes) -> None:
    scheme = b"http://" if name == b"origin" else b""
    for host in (b"127.0.0.1:8000", b"localhost:8000", b"[::1]:8000", b"shop.localhost", b"127.0.0.1"):
        check_own([(b"accept", b"evil.example"), (name, scheme + host)])
    for host in (b"evil.example", b"127.0.0.1.evil.example:8000", b"localhost.evil.example", b"10.0.0.1:8000", b"\xff"):
        with pytest.raises(NotAllowed, match="own machine alone"):
            check_own([(name, scheme + host)])


def test_serving_other_machines_without_a_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_workspace(tmp_path)
    with socket.create_server(("0.0.0.0", 0)) as taken:  # so that it could not serve, even if it tried
        assert call(["serve", str(tmp_path), "--host", "0.0.0.0", "--port", str(taken.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert "can be reached from other machines" in said
    assert f"tastemaker keys add {tmp_path} --scope read" in said


def test_the_verb_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tastemaker.toml").touch()
    assert call(["keys", "list", str(tmp_path)]) == 0
    assert call(["keys", "add", str(tmp_path), "--scope", "write", "--name", "shop", "--rate", "5", "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert re.fullmatch(r"tm_[0-9a-f]{8}_[\w-]{43}", made["key"])
    assert call(["keys", "list", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(key["id"], key["name"], key["scopes"], key["rate"]) for key in listed] == [(made["id"], "shop", ["write"], 5.0)]
    assert call(["keys", "add", str(tmp_path), "--scope", "all"]) == 2
    assert call(["keys", "revoke", str(tmp_path), made["id"]]) == 0
    assert call(["keys", "revoke", str(tmp_path), made["id"]]) == 2


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1)), max_size=60),
    st.sampled_from([0.05, 0.4, 1.0]),
)
def test_law_of_the_sliding_window(steps: list[tuple[float, int]], rate: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = share(Path(folder) / "counters", 2)
        workers = [Admission(file, number, rate) for number in range(2)]
        now, passed, limit = 1_000_000.0, [], max(rate * WINDOW, 1.0)
        for wait, worker in steps:
            now += wait / 10
            try:
                workers[worker].take(3, now=now)
                passed.append(now)
            except TooMany as error:
                workers[1 - worker].take(3, now=now + error.wait + 1e-3)  # whoever waits as told is let in, by any worker
                now += error.wait + 1e-3
                passed.append(now)
        for number in range(math.floor(1_000_000 / WINDOW), math.floor(now / WINDOW) + 1):
            assert sum(number * WINDOW <= moment < (number + 1) * WINDOW for moment in passed) <= limit
        workers[0].take(4, now=now)  # another key is not touched
        Admission(None, 0, 0.0).take(3)


def test_what_was_spent_fades_over_the_next_window() -> None:
    counters, begin = Admission(None, 0, 1.0), 1_000 * WINDOW
    for place in range(10):
        counters.take(1, now=begin + 9 + place / 100)
    with pytest.raises(TooMany) as late:
        counters.take(1, now=begin + 10.1)
    assert late.value.wait == 1
    counters.take(1, now=begin + 11.2)
    with pytest.raises(TooMany):
        counters.take(1, now=begin + 11.3)
    assert [counters.take(1, now=begin + 25 + place / 100) for place in range(9)] == [None] * 9


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("closed") / "space"
    write_workspace(folder)
    file = KeyFile(folder / "keys.json")
    texts = {scope: file.add(scope, [scope])[1] for scope in SCOPES}
    texts["slow"] = file.add("slow", ["read"], rate=0.3)[1]
    with serving(folder, "--workers", "2", "--set", "serving.access_log=runs/access.jsonl") as service:
        yield service, folder, texts


def _with(key: str) -> dict[str, str]:
    return JSON | {"Authorization": f"Bearer {key}"}


def test_every_route_needs_its_scope(closed: tuple[Service, Path, dict[str, str]]) -> None:
    service, _, keys = closed
    for row in TABLE:
        path = re.sub(r"{\w+:path}", "none", row.path)
        body = json.dumps(BODIES.get(row.name, {})) if row.body is not None else None
        assert service.raw(row.method, path, body)[0] == 401, row.name
        for scope in SCOPES:
            status = service.raw(row.method, path, body, _with(keys[scope]))[0]
            if scope in (row.scope, "admin"):
                assert status in (200, 202, 404, 409), (row.name, scope, status)
            else:
                assert status == 403, (row.name, scope)
    assert service.raw("GET", "/metrics")[0] == 401
    assert service.raw("GET", "/metrics", headers=_with(keys["read"]))[0] == 200
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/"):
        assert service.raw("GET", path)[0] == 200
    status, headers, text = service.raw("GET", "/v1/items", headers={"X-API-Key": "tm_00000000_x"})
    assert (status, headers["www-authenticate"], headers["content-type"]) == (401, "Bearer", "application/problem+json")
    assert json.loads(text)["status"] == 401


def test_keys_are_taken_and_revoked_while_it_runs(closed: tuple[Service, Path, dict[str, str]]) -> None:
    service, folder, _ = closed
    file = KeyFile(folder / "keys.json")
    key, text = file.add("late", ["read"])
    time.sleep(0.7)
    assert {service.raw("GET", "/v1/items", headers=_with(text))[0] for _ in range(8)} == {200}
    file.revoke(key.key_id)
    time.sleep(0.7)
    assert {service.raw("GET", "/v1/items", headers=_with(text))[0] for _ in range(8)} == {401}


def test_a_key_that_asks_too_often_waits_whichever_worker_it_meets(closed: tuple[Service, Path, dict[str, str]]) -> None:
    service, _, keys = closed
    found = [service.raw("GET", "/v1/items", headers=_with(keys["slow"])) for _ in range(12)]
    assert 3 <= sum(status == 200 for status, _, _ in found) <= 6  # 3 in ten seconds, twice that where a window ends between
    late = [headers for status, headers, _ in found if status == 429]
    assert late
    assert all(1 <= int(headers["retry-after"]) <= 2 * WINDOW for headers in late)
    assert service.raw("GET", "/v1/items", headers=_with(keys["read"]))[0] == 200


def test_requests_have_ids_and_lines_in_the_log_and_no_secret_is_anywhere(
    closed: tuple[Service, Path, dict[str, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    service, folder, keys = closed
    key, canary = keys["admin"], "CANARY-" + "7" * 20
    said = service.raw("POST", "/v1/recommend", '{"k":1}', _with(key) | {"X-Request-ID": "mine-1"})
    assert said[1]["x-request-id"] == "mine-1"
    said = service.raw("POST", "/v1/recommend", '{"k":1}', _with(key))
    assert said[1]["x-request-id"] == json.loads(said[2])["request_id"]
    odd = service.raw(
        "GET", f"/v1/users/{canary}?api_key={canary}", headers=_with(key) | {"X-Request-ID": f"{canary} x", "Cookie": canary}
    )
    assert re.fullmatch(r"[0-9a-f]{16}", odd[1]["x-request-id"])
    for header in ("Authorization", "X-API-Key", "Cookie"):
        for value in (canary, f"Bearer {canary}", f"AWS4-HMAC-SHA256 Credential={canary}/x"):
            assert service.raw("GET", f"/{canary}?key={canary}", headers={header: value})[0] == 404
            assert service.raw("POST", "/v1/recommend", canary, JSON | {header: value})[0] == 401
    assert service.raw("POST", "/v1/recommend", f'{{"{canary}":1}}', _with(key))[0] == 422
    assert service.raw("POST", "/v1/search", f'{{"query":"{canary}"}}', _with(key))[0] == 200
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(f"GET /{canary} HTTP/1.1\r\n{canary}\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    time.sleep(0.3)
    lines = [json.loads(line) for line in (folder / "runs" / "access.jsonl").read_text().splitlines()]
    assert {line["worker"] for line in lines} <= set(service.workers())
    assert any(line["request_id"] == "mine-1" and line["route"] == "recommend" and line["status"] == 200 for line in lines)
    assert {"metrics", "recommend", "none"} <= {line["route"] for line in lines}
    assert all((line["ms"] > 0 and line["key"] is None) or len(line["key"]) == 8 for line in lines)
    secrets = [canary, *(text.split("_", 2)[2] for text in keys.values())]
    for path in (path for path in folder.rglob("*") if path.is_file()):
        held = path.read_bytes()
        assert not any(secret.encode() in held for secret in secrets), path


@pytest.fixture
def small_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of this process with our connections and short times."""
    for name, seconds in (("HEAD_SECONDS", 0.3), ("REQUEST_SECONDS", 0.6), ("_LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(connection, name, seconds)

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=connection.Connection, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(5)


def _said(port: int, *parts: bytes, gap: float = 0.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=3) as client:
        found = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(gap)
            while piece := client.recv(65_536):
                found += piece
                if found.endswith(b"ok"):
                    break
        except ConnectionError:
            pass
        return found


def test_a_connection_can_not_be_held_for_nothing(small_server: int) -> None:
    good = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n"
    assert _said(small_server, good, b"abc").endswith(b"ok")
    assert _said(small_server, b"").startswith(b"HTTP/1.1 408")
    assert _said(small_server, b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 2, gap=0.1).startswith(b"HTTP/1.1 408")
    assert _said(small_server, good, b"a") == b""
    whole = b"GET / HTTP/1.1\r\na: b\r\n"
    assert _said(small_server, whole, b"\r\n").endswith(b"ok")
    for long in (b"a: " + b"b" * 100_000, b"a: b\r\n" * 17_000):  # the answer may be lost where the client goes on sending
        assert _said(small_server, whole, long, b"\r\n\r\n") == b"" or _said(small_server, whole, long).startswith(b"HTTP/1.1 431")
