"""A worker that is busy takes its share of the connections that wait, so that what they wait for is seen."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest
import uvloop

from tastemaker.serving.accept import Acceptor, queued
from tastemaker.serving.workers import listen

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the length of the queue")


class Counted(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_turn_takes_the_share_of_this_worker(workers: int) -> None:
    async def taken(sock: socket.socket, beside: bool) -> int:
        Counted.made = 0
        server = await asyncio.get_running_loop().create_server(Counted, sock=sock.dup())
        acceptor = Acceptor(sock, Counted, workers) if beside else None
        for _ in range(4):  # turns that take as long as some answers
            await asyncio.sleep(0)
            time.sleep(0.01)
        if acceptor is not None:
            acceptor.close()
            acceptor.close()
        server.close()
        return Counted.made

    found = []
    for beside in (True, False):
        sock = listen("127.0.0.1", 0)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(24)]
        assert queued(sock) == 24
        found.append(uvloop.run(taken(sock, beside)))
        for one in (*clients, sock):
            one.close()
    assert found[0] >= 24 / workers
    assert found[1] <= 4, "the loop's own server takes one a turn"


@pytest.mark.parametrize(("workers", "left"), [(1, 0), (3, 4), (8, 6)])
def test_the_other_workers_get_theirs(workers: int, left: int) -> None:
    async def once(sock: socket.socket) -> int:
        acceptor = Acceptor(sock, Counted, workers)
        acceptor._accept()
        acceptor.close()
        return queued(sock)

    with listen("127.0.0.1", 0) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(6)]
        assert uvloop.run(once(sock)) == left
        for one in clients:
            one.close()


def test_a_socket_that_does_not_listen_has_no_queue() -> None:
    one, other = socket.socketpair()
    assert queued(one) == 0
    one.close()
    other.close()
