"""A worker that is busy takes its share of the connections that wait, so that what they wait for is seen."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable

import pytest
import uvloop

from tastemaker.serving import accept
from tastemaker.serving.accept import Acceptor, Holdings, Waits, queued
from tastemaker.serving.workers import listen, shared_counts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the length of the queue")


class Counted(asyncio.Protocol):
    made = 0

    def __init__(self, since: float = 0.0) -> None:
        self.since = since

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1


def counts(workers: int, *held: int) -> Holdings:
    return Holdings([*held, *[0] * (2 * workers - len(held))], 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_turn_takes_the_share_of_this_worker(workers: int) -> None:
    async def taken(sock: socket.socket, own: bool) -> int:
        Counted.made = 0
        server = None if own else await asyncio.get_running_loop().create_server(Counted, sock=sock.dup())
        acceptor = Acceptor(sock, Counted, counts(workers), lambda: 0) if own else None
        for _ in range(4):  # turns that take as long as some answers
            await asyncio.sleep(0)
            time.sleep(0.01)
        if acceptor is not None:
            acceptor.close()
            acceptor.close()
        if server is not None:
            server.close()
        return Counted.made

    found = []
    for own in (True, False):
        sock = listen("127.0.0.1", 0)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(24)]
        assert queued(sock) == 24
        found.append(uvloop.run(taken(sock, own)))
        for one in (*clients, sock):
            one.close()
    assert found[0] >= 24 / workers
    assert found[1] <= 4, "the loop's own server takes one a turn"


@pytest.mark.parametrize(("workers", "left"), [(1, 0), (3, 4), (8, 5)])
def test_the_other_workers_get_theirs(workers: int, left: int) -> None:
    async def once(sock: socket.socket) -> int:
        acceptor = Acceptor(sock, Counted, counts(workers), lambda: 0)
        acceptor._accept(queued(sock))
        acceptor.close()
        return queued(sock)

    with listen("127.0.0.1", 0) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(6)]
        assert uvloop.run(once(sock)) == left
        for one in clients:
            one.close()


def test_who_holds_more_leaves_connections_to_the_others_for_a_moment_only() -> None:
    async def run(sock: socket.socket) -> tuple[int, int, int]:
        Counted.made = 0
        acceptor = Acceptor(sock, Counted, counts(2), lambda: 3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        at_once, left = Counted.made, queued(sock)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if Counted.made == 6:
                break
        acceptor.close()
        return at_once, left, Counted.made

    with listen("127.0.0.1", 0) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(6)]
        assert uvloop.run(run(sock)) == (0, 6, 6), "nobody else came for them"
        for one in clients:
            one.close()


def test_two_workers_hold_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "PATIENCE", 0.1)  # on a busy core 2 ms may pass before the other one is asked at all
    held = shared_counts(4)

    async def run(sock: socket.socket) -> tuple[list[int], list[int]]:
        made: list[list[asyncio.Protocol]] = [[], []]

        def maker(place: int) -> Callable[[float], asyncio.Protocol]:
            def make(since: float) -> asyncio.Protocol:
                made[place].append(Counted())
                return made[place][-1]

            return make

        acceptors = [Acceptor(sock, maker(place), Holdings(held, place), lambda place=place: len(made[place])) for place in (0, 1)]  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        clients = [await loop.create_connection(asyncio.Protocol, *sock.getsockname()) for _ in range(12)]
        for _ in range(200):
            await asyncio.sleep(0.01)
            if sum(len(one) for one in made) == len(clients):
                break
        after = [len(one) for one in made]
        for transport, _ in clients:
            transport.close()
        for acceptor in acceptors:
            acceptor.close()
        return after, list(held)

    with listen("127.0.0.1", 0) as sock:
        after, told = uvloop.run(run(sock))
    assert after == told[:2] == told[2:] == [6, 6]


def test_a_socket_that_does_not_listen_has_no_queue() -> None:
    one, other = socket.socketpair()
    assert queued(one) == 0
    one.close()
    other.close()


def test_since_when_a_connection_has_waited_follows_from_the_lengths_of_the_queue() -> None:
    waits = Waits()
    waits.seen(taken=0, queued=3, now=10.0)
    assert [waits.since(number, 11.0) for number in (1, 2)] == [10.0, 10.0]
    waits.seen(taken=2, queued=4, now=12.0)  # the third one was there before, three came since
    assert [waits.since(number, 13.0) for number in (3, 4, 6)] == [10.0, 12.0, 12.0]
    assert waits.since(7, 14.0) == 14.0, "nobody saw it wait"
    waits.seen(taken=7, queued=2, now=15.0)
    waits.seen(taken=7, queued=0, now=16.0)  # others were told of them and have not counted them yet
    waits.seen(taken=7, queued=1, now=99.0)
    assert waits.since(8, 99.5) == 99.0, "an empty queue holds nobody of before"


def test_who_waited_in_the_queue_is_shown_with_that_before_anything_is_made() -> None:
    async def run(sock: socket.socket, refused: list[float]) -> list[float]:
        made: list[Counted] = []

        def make(since: float) -> asyncio.Protocol:
            made.append(Counted(since))
            return made[-1]

        def refuse(connection: socket.socket, waited: float) -> bool:
            refused.append(waited)
            if len(refused) <= 2:
                connection.close()
            return len(refused) <= 2

        acceptor = Acceptor(sock, make, counts(1), lambda: len(made), refuse)
        acceptor.watch()
        time.sleep(0.2)  # an answer that takes long
        began = time.monotonic()
        while len(made) < 3:
            await asyncio.sleep(0)
        acceptor.close()
        return [began - one.since for one in made]

    refused: list[float] = []
    with listen("127.0.0.1", 0) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(5)]
        waited = uvloop.run(run(sock, refused))
        for one in clients:
            one.close()
    assert len(refused) == 5
    assert min(refused) >= 0.2
    assert min(waited) >= 0.19, "those that are let in bring what they have waited"


def test_a_turn_lets_so_many_in_and_refuses_all_it_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MOST", 3)

    def late(connection: socket.socket, waited: float) -> bool:
        seen.append(waited)
        if len(seen) <= 9:
            connection.close()
        return len(seen) <= 9

    async def once(sock: socket.socket) -> int:
        acceptor = Acceptor(sock, Counted, counts(1), lambda: 0, late)
        acceptor._accept(queued(sock))
        acceptor.close()
        return queued(sock)

    seen: list[float] = []
    with listen("127.0.0.1", 0) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(20)]
        assert uvloop.run(once(sock)) == 8
        assert len(seen) == 12
        for one in clients:
            one.close()
