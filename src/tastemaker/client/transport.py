"""Requests over kept connections, repeated within a budget."""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
from collections import deque
from urllib.parse import urlsplit

import msgspec

from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.queries import Problem

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Answers that say that the same request may do better later."""
ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
_LOST = (OSError, http.client.HTTPException)


class ServiceError(TastemakerError):
    """The service refused.

    Attributes:
        status: of HTTP. request_id: by which its log knows the request.
    """

    def __init__(self, status: int, detail: str, request_id: str | None) -> None:
        super().__init__(f"{status}: {detail}" + (f" (request {request_id})" if request_id else ""))
        self.status, self.request_id = status, request_id


class Unreachable(TastemakerError):
    """No answer came in time."""


class Budget:
    """How many requests may be repeated: a share of all, so that a service in distress is not asked three times as much (Finagle's RetryBudget).

    Args:
        share: of the requests that may be repeated. least: repeats that are always in hand at the start, and the most that can be saved up.
    """

    def __init__(self, share: float = 0.2, least: float = 10.0) -> None:
        self._share, self._most, self._left = share, least, least
        self._lock = threading.Lock()

    def asked(self) -> None:
        """Counts a first attempt."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Takes a repeat out; False where none is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Transport:
    """A pool of connections to one service, for any number of threads.

    Args:
        url: as in `https://recommend.example:8443`. key: an API key. timeout: seconds for a call with all its repeats. budget: of the repeats.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 5.0, budget: Budget | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no address of a service; expected one such as http://127.0.0.1:8000.")
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if key is not None:
            self._headers["x-api-key"] = key
        self.timeout, self._budget = timeout, budget or Budget()
        self._idle: deque[http.client.HTTPConnection] = deque()

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a good answer; a request that got none is repeated while time and budget last.

        Every call may be repeated: questions change nothing, and what is stored has an id.

        Raises:
            ServiceError: the service refused. Unreachable: no answer came in time.
        """
        end = time.monotonic() + self.timeout
        self._budget.asked()
        attempt = 0
        while True:
            attempt += 1
            lost: Exception
            try:
                status, headers, text = self._once(method, path, body, end)
            except _LOST as error:
                lost, wait = Unreachable(f"{self._host}: no answer to {method} {path} ({error or type(error).__name__})."), None
            else:
                if status < 400 or (status == 404 and method == "DELETE" and attempt > 1):
                    return text
                lost = ServiceError(status, _detail(text), headers.get("x-request-id"))
                if status not in AGAIN:
                    raise lost
                wait = headers.get("retry-after")
            pause = _pause(attempt, wait)
            if attempt == ATTEMPTS or time.monotonic() + pause >= end or not self._budget.spend():
                raise lost
            time.sleep(pause)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _once(self, method: str, path: str, body: bytes | None, end: float) -> tuple[int, dict[str, str], bytes]:
        """One attempt; a kept connection that the service has closed meanwhile is replaced without counting."""
        try:
            connection, kept = self._idle.pop(), True
        except IndexError:
            connection, kept = self._connect(end), False
        try:
            return self._exchange(connection, method, path, body, end)
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            if not kept:
                raise
        except _LOST:
            connection.close()
            raise
        connection = self._connect(end)
        try:
            return self._exchange(connection, method, path, body, end)
        except _LOST:
            connection.close()
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, end: float
    ) -> tuple[int, dict[str, str], bytes]:
        connection.sock.settimeout(max(0.001, end - time.monotonic()))
        connection.request(method, self._prefix + path, body, self._headers)
        answer = connection.getresponse()
        text = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer.status, headers, text

    def _connect(self, end: float) -> http.client.HTTPConnection:
        left = max(0.001, end - time.monotonic())
        made = (
            http.client.HTTPConnection(self._host, self._port, timeout=left)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=left, context=self._tls)
        )
        made.connect()
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


def _pause(attempt: int, told: str | None) -> float:
    """Seconds before the next attempt: as told, else at random up to a bound that doubles."""
    if told is not None and told.isascii() and told.isdigit():
        return float(told)
    return random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**attempt))


def _detail(text: bytes) -> str:
    try:
        return msgspec.json.decode(text, type=Problem).detail
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return text[:200].decode("utf-8", "replace")
