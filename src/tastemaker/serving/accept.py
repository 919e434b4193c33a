"""Connections that wait to be accepted: each worker takes its share, who holds more than another leaves them to that one, and how long each has waited is known.

A loop's own server accepts one connection a turn, and a turn lasts as long as an answer: under overload by new connections the queue stood in the kernel, where nobody saw
how long it was; requests waited for many seconds that the ladder was never told of, and none was refused. And who is quick to accept is so at random: of sixteen kept-alive
connections one of two workers held eleven, whose requests waited twice as long as the others'.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, MutableSequence
from contextlib import suppress

MOST = 64
"""Connections that are let in in one turn."""
PATIENCE = 0.002
"""Seconds that connections are left to workers who hold fewer; then one looks again, and after as long a time they are accepted all the same, as these may be busy or gone.
With one look only, of two workers who both paused the one whose pause ended first would accept, whoever held more by then."""
LOOKS = 2
"""How often that is."""
_QUEUED = struct.Struct("=24xI")  # struct tcp_info of Linux: of a listening socket `tcpi_unacked` is the length of its queue
Make = Callable[[float], asyncio.Protocol]
"""Makes a connection's protocol; is told since when it has waited, seconds of `time.monotonic`."""
Refuse = Callable[[socket.socket, float], bool]
"""Is shown a connection that was accepted and the seconds that it has waited, before anything is made of it; True: it is answered and done with."""


class Holdings:
    """How many connections each worker holds, and how many it has accepted, known to all of them.

    Args:
        counts: two numbers for each worker, in memory that they share: first of all what they hold, then what they have accepted. worker: whose own are told here.
    """

    def __init__(self, counts: MutableSequence[int] | None = None, worker: int = 0) -> None:
        self._counts: MutableSequence[int] = [0, 0] if counts is None else counts
        self._worker = worker

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._counts) // 2

    def tell(self, count: int) -> None:
        """So many are held here now."""
        self._counts[self._worker] = count

    def took(self) -> None:
        """One more was accepted here."""
        self._counts[self.workers + self._worker] += 1

    def taken(self) -> int:
        """How many were accepted by all."""
        return sum(self._counts[self.workers :])

    def more_than_another(self) -> bool:
        """Whether some worker holds fewer."""
        return self._counts[self._worker] > min(self._counts[: self.workers])


class Waits:
    """Since when connections have waited in a queue that tells its length alone: who was the last of seven when five had been accepted is the twelfth, and has been there
    since then at least."""

    def __init__(self) -> None:
        self._last_at: deque[tuple[int, float]] = deque()

    def seen(self, taken: int, queued: int, now: float) -> None:
        """So many wait after so many were accepted."""
        if not queued:
            self._last_at.clear()
        elif not self._last_at or taken + queued > self._last_at[-1][0]:
            self._last_at.append((taken + queued, now))

    def since(self, number: int, now: float) -> float:
        """Since when the connection of this number has waited at least, the first one being 1; numbers grow from call to call."""
        while self._last_at and self._last_at[0][0] < number:
            self._last_at.popleft()
        return self._last_at[0][1] if self._last_at else now


class Acceptor:
    """Accepts the connections of a worker.

    Args:
        sock: listens, shared with the other workers. make: makes a connection's protocol.
        holdings: of all workers. held: how many connections this one holds. refuse: answers those for which it is too late; None: it never is.
    """

    def __init__(
        self, sock: socket.socket, make: Make, holdings: Holdings, held: Callable[[], int], refuse: Refuse | None = None
    ) -> None:
        self._sock, self._make, self._holdings, self._held, self._refuse = sock.dup(), make, holdings, held, refuse
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._coming = set[asyncio.Task[object]]()
        self._later: asyncio.TimerHandle | None = None
        self._looks = 0  # at what waits, since it was last accepted here
        self._waits = Waits()
        self.tell()
        self._loop.add_reader(self._sock.fileno(), self._look)

    def tell(self) -> None:
        """Lets the other workers know how many connections are held here."""
        self._holdings.tell(self._held() + len(self._coming))

    def watch(self) -> None:
        """Looks at how many wait, also where others accept them; from time to time."""
        self.tell()
        self._count()

    def close(self) -> None:
        """Accepts no more."""
        if self._later is not None:
            self._later.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _count(self) -> int:
        taken = self._holdings.taken()  # asked before: what others accept meanwhile makes waits look shorter, not longer
        count = queued(self._sock)
        self._waits.seen(taken, count, time.monotonic())
        return count

    def _look(self) -> None:
        self.tell()
        self._looks += 1
        count = self._count()
        if self._looks <= LOOKS and self._holdings.more_than_another():
            if self._later is None:
                self._loop.remove_reader(self._sock.fileno())
            self._later = self._loop.call_later(PATIENCE, self._look)
            return
        if self._later is not None:
            self._later = None
            self._loop.add_reader(self._sock.fileno(), self._look)
        self._looks = 0
        self._accept(count)

    def _accept(self, count: int) -> None:
        """Takes this worker's share of so many that wait."""
        let_in = 0
        for _ in range(max(count // self._holdings.workers, 1)):
            if let_in == MOST:
                return
            try:
                connection, _ = self._sock.accept()
            except OSError:  # another worker was quicker, or the client has gone
                return
            self._holdings.took()
            connection.setblocking(False)
            now = time.monotonic()
            since = self._waits.since(self._holdings.taken(), now)
            if self._refuse is not None and self._refuse(connection, now - since):
                continue
            let_in += 1
            task: asyncio.Task[object] = self._loop.create_task(self._connect(connection, since))
            self._coming.add(task)
            task.add_done_callback(self._came)
            self.tell()

    def _came(self, task: asyncio.Task[object]) -> None:
        self._coming.discard(task)
        self.tell()

    async def _connect(self, connection: socket.socket, since: float) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: self._make(since), connection)


def queued(sock: socket.socket) -> int:
    """Connections that wait in a listening socket's queue; 0 where the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        return int(_QUEUED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size))[0])
    except (OSError, struct.error):
        return 0
