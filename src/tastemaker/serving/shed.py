"""Connections that have waited so long that their clients have given up or soon will are refused before anything is made of them.

A refusal by way of the application costs a third of a millisecond: at four times what a worker can, telling people to come back took the time of those who could have been
answered. Here it is one look and one write. Only what the ladder protects, requests for lists, is met like that: checks of health, figures and events go the usual way.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress

import msgspec

from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.queries import Problem
from tastemaker.serving.ladder import AT_THE_DOOR, Busy, Ladder
from tastemaker.serving.problems import PROBLEM_JSON, TITLES
from tastemaker.serving.record import AccessLog, new_id

ROUTE, PATH, STATUS = "recommend", "/v1/recommend", 429
MOST_BYTES = 16_384
"""A larger request, or one that is not there as a whole, goes the usual way."""
_BEGIN = f"POST {PATH} HTTP/1.".encode()
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,5})\r\n", re.IGNORECASE)


class Shed:
    """Refuses what has waited too long.

    Args:
        ladder: tells what is too long, and is told of the waits. metrics: count.

    Attributes:
        log: a line for each refusal, where there is one.
    """

    def __init__(self, ladder: Ladder, metrics: Metrics) -> None:
        self._ladder, self._metrics = ladder, metrics
        self.log: AccessLog | None = None

    def refuse(self, connection: socket.socket, waited: float) -> bool:
        """Answers a connection, not blocking, that has waited too long (seconds) and has brought a request for a list; True: it is closed."""
        if not self._ladder.too_long(waited):
            return False
        try:
            asked = connection.recv(MOST_BYTES, socket.MSG_PEEK)
            if not whole(asked):
                return False
            connection.recv(MOST_BYTES)  # what is not read would be answered by a reset, which can take the answer away
        except OSError:
            return False
        now, number = time.monotonic(), new_id()
        try:
            self._ladder.take(waited, now, AT_THE_DOOR)
        except Busy as busy:
            client: tuple[str, int] | None = None
            with connection, suppress(OSError):  # a client that has gone needs no answer
                client = connection.getpeername()
                connection.send(_answer(busy, number))
                connection.shutdown(socket.SHUT_WR)
            self._note(waited, number, client)
            return True
        return False

    def _note(self, waited: float, number: str, client: tuple[str, int] | None) -> None:
        self._metrics.rejected("busy")
        self._metrics.observe(ROUTE, STATUS, waited)
        if self.log is not None:
            scope = {"method": "POST", "route_name": ROUTE, "client": client}
            self.log.write(scope, time.time() - waited, STATUS, waited, 0, number)


def whole(asked: bytes) -> bool:
    """Whether these bytes are one request for a list and nothing else."""
    if not asked.startswith(_BEGIN):
        return False
    end = asked.find(b"\r\n\r\n")
    length = _LENGTH.search(asked, 0, end + 2) if end >= 0 else None
    return length is not None and len(asked) == end + 4 + int(length[1])


def _answer(busy: Busy, number: str) -> bytes:
    body = msgspec.json.encode(Problem(title=TITLES[STATUS], status=STATUS, detail=str(busy)))
    head = (
        f"HTTP/1.1 {STATUS} Too Many Requests\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {len(body)}\r\nretry-after: {busy.wait}\r\n"
        f"x-request-id: {number}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
