"""Head and body of an answer go out as one, so that a machine that dies between the two can't have sent a half."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tastemaker.serving import connection


class Recorder:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written, self.closing = list[bytes](), False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


def test_writes_of_one_turn_are_one() -> None:
    async def turns() -> list[bytes]:
        recorder = Recorder()
        joined = connection.Joined(recorder, asyncio.get_running_loop())  # type: ignore[arg-type]
        joined.write(b"head ")
        joined.write(b"body")
        assert recorder.written == []
        await asyncio.sleep(0)
        joined.write(b"last")
        joined.close()
        assert recorder.closing
        joined.write(b"too late")
        await asyncio.sleep(0)
        return recorder.written

    assert asyncio.run(turns()) == [b"head body", b"last"]


def test_an_answer_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    class Told(connection.Joined):
        def _flush(self) -> None:
            if self._parts:
                written.append(b"".join(self._parts))
            super()._flush()

    monkeypatch.setattr(connection, "Joined", Told)

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
