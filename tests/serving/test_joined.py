"""Head and body of an answer go out as one, so that a machine that dies between the two can't have sent a half."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tastemaker.serving import connection


class Recorder:
    """Stands before a transport and notes what is written."""

    def __init__(self, transport: Any, written: list[bytes]) -> None:
        self._transport, self._written = transport, written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)


def test_an_answer_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    class Told(connection.Corked):
        def __init__(self, transport: asyncio.Transport) -> None:
            super().__init__(Recorder(transport, written))  # type: ignore[arg-type]

    monkeypatch.setattr(connection, "Corked", Told)

    async def answer(request: Request) -> Response:
        return PlainTextResponse("everything")

    app = Starlette(routes=[Route("/", answer)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=connection.Connection, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        client = http.client.HTTPConnection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1], timeout=5)
        for _ in range(3):
            client.request("GET", "/")
            assert client.getresponse().read() == b"everything"
        client.close()
    finally:
        server.should_exit = True
        thread.join(10)
    assert len(written) == 3
    assert all(one.startswith(b"HTTP/1.1 200") and one.endswith(b"everything") for one in written)
