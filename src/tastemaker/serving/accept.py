"""Connections that wait to be accepted: a busy worker takes its share of all of them in a turn.

libuv accepts one connection a turn of its loop, and a turn lasts as long as an answer. So under overload by new connections the queue stood in the kernel, where nobody
saw how long it was: requests waited for many seconds that the ladder was never told of, and none was refused.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

MOST = 64
"""Connections that are accepted in one turn."""
_QUEUED = struct.Struct("=24xI")  # struct tcp_info of Linux: of a listening socket `tcpi_unacked` is the length of its queue


class Acceptor:
    """Accepts beside a server of the loop's own.

    Args:
        sock: listens, shared with the server and with the other workers. make: makes a connection's protocol. workers: that share the socket.
    """

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], workers: int) -> None:
        self._sock, self._make, self._workers = sock.dup(), make, workers
        self._loop = asyncio.get_running_loop()
        self._under_way = set[asyncio.Task[object]]()
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Accepts no more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(min(queued(self._sock) // self._workers, MOST)):
            try:
                connection, _ = self._sock.accept()
            except OSError:  # another worker was quicker, or the client has gone
                return
            connection.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(self._connect(connection))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

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
