"""Connections that wait to be accepted: each worker takes its share, and who holds more than another leaves them to that one.

A loop's own server accepts one connection a turn, and a turn lasts as long as an answer: under overload by new connections the queue stood in the kernel, where nobody saw
how long it was; requests waited for many seconds that the ladder was never told of, and none was refused. And who is quick to accept is so at random: of sixteen kept-alive
connections one of two workers held eleven, whose requests waited twice as long as the others'.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, MutableSequence
from contextlib import suppress

MOST = 64
"""Connections that are accepted in one turn."""
PATIENCE = 0.002
"""Seconds that connections are left to workers who hold fewer; then one looks again, and after as long a time they are accepted all the same, as these may be busy or gone.
With one look only, of two workers who both paused the one whose pause ended first would accept, whoever held more by then."""
LOOKS = 2
"""How often that is."""
_QUEUED = struct.Struct("=24xI")  # struct tcp_info of Linux: of a listening socket `tcpi_unacked` is the length of its queue


class Holdings:
    """How many connections each worker holds, known to all of them.

    Args:
        counts: a number for each worker, in memory that they share. worker: whose own is told here.
    """

    def __init__(self, counts: MutableSequence[int] | None = None, worker: int = 0) -> None:
        self._counts: MutableSequence[int] = [0] if counts is None else counts
        self._worker = worker

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._counts)

    def tell(self, count: int) -> None:
        """So many are held here now."""
        self._counts[self._worker] = count

    def more_than_another(self) -> bool:
        """Whether some worker holds fewer."""
        return self._counts[self._worker] > min(self._counts)


class Acceptor:
    """Accepts the connections of a worker.

    Args:
        sock: listens, shared with the other workers. make: makes a connection's protocol.
        holdings: of all workers. held: how many connections this one holds.
    """

    def __init__(
        self, sock: socket.socket, make: Callable[[], asyncio.Protocol], holdings: Holdings, held: Callable[[], int]
    ) -> None:
        self._sock, self._make, self._holdings, self._held = sock.dup(), make, holdings, held
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._coming = set[asyncio.Task[object]]()
        self._later: asyncio.TimerHandle | None = None
        self._looks = 0  # at what waits, since it was last accepted here
        self.tell()
        self._loop.add_reader(self._sock.fileno(), self._look)

    def tell(self) -> None:
        """Lets the other workers know how many connections are held here."""
        self._holdings.tell(self._held() + len(self._coming))

    def close(self) -> None:
        """Accepts no more."""
        if self._later is not None:
            self._later.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _look(self) -> None:
        self.tell()
        self._looks += 1
        if self._looks <= LOOKS and self._holdings.more_than_another():
            if self._later is None:
                self._loop.remove_reader(self._sock.fileno())
            self._later = self._loop.call_later(PATIENCE, self._look)
            return
        if self._later is not None:
            self._later = None
            self._loop.add_reader(self._sock.fileno(), self._look)
        self._looks = 0
        self._accept()

    def _accept(self) -> None:
        for _ in range(min(max(queued(self._sock) // self._holdings.workers, 1), MOST)):
            try:
                connection, _ = self._sock.accept()
            except OSError:  # another worker was quicker, or the client has gone
                return
            connection.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(self._connect(connection))
            self._coming.add(task)
            task.add_done_callback(self._came)
            self.tell()

    def _came(self, task: asyncio.Task[object]) -> None:
        self._coming.discard(task)
        self.tell()

    async def _connect(self, connection: socket.socket) -> None:
        with suppress(OSError):
            await self._loop.connect_accepted_socket(self._make, connection)


def queued(sock: socket.socket) -> int:
    """Connections that wait in a listening socket's queue; 0 where the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        return int(_QUEUED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size))[0])
    except (OSError, struct.error):
        return 0
