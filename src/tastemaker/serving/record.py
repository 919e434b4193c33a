"""A record of every request: its id, given back in `X-Request-ID`, and a line of JSON in the access log.

A line names the route and never the address: paths, queries, headers and bodies may hold ids of people, or keys.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_encode = msgspec.json.Encoder().encode
_numbers = random.Random()  # seeded by the system in each process; an id of a request is no secret


def new_id() -> str:
    """An id for a request that brought none."""
    return f"{_numbers.getrandbits(64):016x}"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request. `time` is in epoch seconds and says when it came, `ms` how long it took, `bytes` the size of the answer's body."""

    time: float
    request_id: str
    method: str
    route: str
    status: int
    ms: float
    bytes: int
    key: str | None
    client: str | None
    worker: int


FLUSH_SECONDS = 0.1
"""Lines wait so long for others: one write for many of them."""


class AccessLog:
    """Appends lines to a file, whole ones whoever else appends to it; what can't be written is left out.

    Args:
        target: a file, or `-` for the standard output.
    """

    def __init__(self, target: str | Path) -> None:
        if str(target) == "-":
            self._file = sys.stdout.fileno()
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._worker, self._lines = os.getpid(), bytearray()

    def write(self, scope: Mapping[str, Any], began: float, status: int, seconds: float, size: int, request_id: str) -> None:
        """Appends the line of a request that has been answered, in a moment."""
        client = scope.get("client")
        line = Line(
            round(began, 3),
            request_id,
            scope["method"],
            scope.get("route_name", "none"),
            status,
            round(1e3 * seconds, 3),
            size,
            scope.get("key_id"),
            client[0] if client else None,
            self._worker,
        )
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._lines += _encode(line) + b"\n"

    def flush(self) -> None:
        """Writes the lines that wait."""
        lines, self._lines = self._lines, bytearray()
        try:
            if lines:
                os.write(self._file, lines)
        except OSError:
            return  # a full disk takes the log, not the answer


class Recorded:
    """An application whose requests have ids, and lines in a log where there is one.

    Handlers tell who and what by `scope["route_name"]`, `scope["key_id"]` and, where an answer has its own id, `scope["request_id"]`.
    """

    def __init__(self, app: ASGIApp, log: AccessLog | None) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            if self._log is not None:
                self._log.flush()  # the end of the service
            return
        began = time.perf_counter()
        status, size = 500, 0
        given = _given(scope["headers"])
        request_id = given or ""

        async def noted(message: Message) -> None:
            nonlocal status, size, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = given or scope.get("request_id") or new_id()
                message["headers"].append((b"x-request-id", request_id.encode()))
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if self._log is not None:
                seconds = time.perf_counter() - began
                self._log.write(scope, time.time() - seconds, status, seconds, size, request_id)


def _given(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The id that the client gave, if it is one."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE.fullmatch(value):
            return value.decode()
    return None


def log_of(target: str, workspace: Path) -> AccessLog | None:
    """The access log of the setting: empty: none; `-`: standard output; else a file, in the workspace unless its path is absolute."""
    if not target:
        return None
    return AccessLog(target if target == "-" else workspace / target)
