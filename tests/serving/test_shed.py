"""Under overload those who have waited too long are refused before anything is made of them, and nobody else is."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from live_service import serving
from tastemaker.monitoring.metrics import Metrics
from tastemaker.serving.ladder import Ladder
from tastemaker.serving.shed import Shed, whole
from toy_bundle import write_workspace

BODY = b'{"user_id":"u0","k":3}'


def request(path: str = "/v1/recommend", method: str = "POST", body: bytes = BODY, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\nX-Api-Key: k\r\n\r\n".encode() + body


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.setblocking(False)
    client.settimeout(5)
    return client, accepted


def answer(client: socket.socket) -> bytes:
    found = b""
    while part := client.recv(65_536):
        found += part
    return found


def test_who_has_waited_too_long_gets_a_whole_answer_and_is_counted() -> None:
    ladder, metrics = Ladder(0.1), Metrics()
    shed = Shed(ladder, metrics)
    client, accepted = pair()
    client.sendall(request())
    assert not shed.refuse(accepted, 0.34)
    assert shed.refuse(accepted, 0.36)
    head, body = answer(client).split(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 429 too many requests"
    assert {b"retry-after: 1", b"connection: close", f"content-length: {len(body)}".encode()} <= set(lines)
    assert "has waited 360 ms" in json.loads(body)["detail"]
    assert ladder.level > 0, "the ladder was told of the wait"
    told = metrics.text().decode()
    assert 'tastemaker_requests_rejected_total{reason="busy"} 1.0' in told
    assert 'tastemaker_requests_total{route="recommend",status="429"} 1.0' in told
    client.close()


@pytest.mark.parametrize(
    "asked",
    [
        request("/v1/events"), request("/healthz", "GET"), request("/v1/recommend/more"), request("/v1/recommend", "PUT"), request(length=99), request(length=3),
        request()[:40], b"",
    ],
)  # fmt: skip
def test_what_is_no_whole_request_for_a_list_goes_the_usual_way_unread(asked: bytes) -> None:
    client, accepted = pair()
    client.sendall(asked)
    assert not Shed(Ladder(0.1), Metrics()).refuse(accepted, 60.0)
    if asked:
        assert accepted.recv(65_536) == asked, "nothing of it was taken away"
    client.close()
    accepted.close()


def test_without_a_limit_nobody_is_refused_and_a_client_that_has_gone_is_no_fault() -> None:
    client, accepted = pair()
    client.sendall(request())
    assert not Shed(Ladder(0.0), Metrics()).refuse(accepted, 60.0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # by a reset
    refused = Shed(Ladder(0.1), Metrics()).refuse(accepted, 60.0)
    assert refused == (accepted.fileno() == -1), "closed here, or left to the usual way"
    accepted.close()


def test_a_length_may_be_written_in_any_case_and_only_in_the_head() -> None:
    assert whole(b"POST /v1/recommend HTTP/1.1\r\ncOnTent-lEngth:2\r\n\r\n{}")
    assert whole(b"POST /v1/recommend HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}")
    assert not whole(b"POST /v1/recommend HTTP/1.1\r\nhost: a\r\n\r\n\r\ncontent-length: 2\r\n{}")
    assert not whole(b"POST /v1/recommend HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")


def test_a_crowd_is_answered_or_refused_and_every_one_is_in_the_log(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    count = 500
    with serving(tmp_path, "--set", "serving.busy_ms=10", "--set", "serving.access_log=access.jsonl") as service:
        clients = [socket.create_connection(("127.0.0.1", service.port), timeout=20) for _ in range(count)]
        for client in clients:
            client.sendall(request().replace(b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nConnection: close"))
        found = [answer(client) for client in clients]
        statuses = [one.split(b" ")[1] for one in found]
        assert b"429" in statuses
        assert set(statuses) <= {b"200", b"429"}
        assert all((b"retry-after" in one.lower()) == (status == b"429") for one, status in zip(found, statuses, strict=True))
        told = service.raw("GET", "/metrics")[2].decode()
        refused = statuses.count(b"429")
        time.sleep(1.1)
        service.recommend(user_id="u0")  # back at once
        assert f'tastemaker_requests_rejected_total{{reason="busy"}} {refused}.0' in told
        for client in clients:
            client.close()
    lines = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    mine = [line for line in lines if line["route"] == "recommend"]
    assert [line["status"] for line in mine].count(429) == refused
    assert len(mine) == count + 1
    assert len({line["request_id"] for line in mine}) == count + 1
