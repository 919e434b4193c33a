"""The short way of fixed routes, and heads that leave with their bodies: what a client sees is as before."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from live_service import Service
from tastemaker.serving.express import Express, fixed


def said(service: Service, request: bytes, parts: int = 1) -> list[bytes]:
    """What comes back, packet by packet, until so many came or nothing more does."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=3) as made:  # sooner than an idle connection is closed
        made.sendall(request)
        return [made.recv(65_536) for _ in range(parts)]


def test_an_answer_comes_in_one_packet_and_answers_without_a_body_come_too(service: Service) -> None:
    [whole] = said(service, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert whole.endswith(b'\r\n\r\n{"status":"ok"}')
    tag = service.raw("GET", "/")[1]["etag"]
    [unchanged] = said(service, f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {tag}\r\n\r\n".encode())
    assert unchanged.startswith(b"HTTP/1.1 304")
    [head] = said(service, b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")
    [two] = said(service, 2 * b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert two.startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_to_be_told_is_told_to_go_on(service: Service) -> None:
    body = json.dumps({"user_id": "u1", "k": 2}).encode()
    asked = b"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as made:
        made.sendall(asked % len(body))
        assert made.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(body)
        assert made.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_body_in_pieces_is_put_together(service: Service) -> None:
    body = json.dumps({"events": [{"event_id": "p", "user_id": "x", "item_id": "boots-1"}]}).encode()
    head = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as made:
        for piece in (head[:20], head[20:], body[:10], body[10:]):
            made.sendall(piece)
            time.sleep(0.05)
        answer = made.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 202")
    assert b'"accepted":1' in answer


def test_wrong_methods_and_paths_are_told_as_ever(service: Service) -> None:
    assert service.raw("GET", "/v1/recommend")[0] == 405
    assert service.raw("POST", "/v1/nothing", "{}")[0] == 404
    assert service.raw("POST", "/v1/recommend", "{")[0] == 400
    assert service.raw("POST", "/v1/recommend", "{}", {"content-type": "text/html"})[0] == 415


def test_only_fixed_paths_that_nothing_earlier_matches_are_short() -> None:
    async def one(request: Request) -> Response:
        return PlainTextResponse("one")

    async def two(request: Request) -> Response:
        return PlainTextResponse("two")

    routes = [Route("/a/{name}", one), Route("/a/b", two), Route("/c", two), Route("/c", one), Route("/d", one, methods=["POST"])]
    assert fixed(routes) == {("GET", "/c"): two, ("POST", "/d"): one}


def test_a_handler_that_fails_is_answered_and_told_to_the_server() -> None:
    async def broken(request: Request) -> Response:
        raise ValueError("a fault")

    async def told(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"told: {error}", 500)

    routes, sent = [Route("/x", broken)], list[Any]()
    app = Express(Starlette(routes=routes), routes, told, told)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(app({"type": "http", "method": "GET", "path": "/x", "headers": []}, receive, send))
    assert [message.get("status") for message in sent] == [500, None]
    assert sent[1]["body"] == b"told: a fault"
