"""A connection that can't be held for nothing: caps on the size and the time of a request's head, and on the time of all of it.

uvicorn's fast parser has none of them: a head that never ends grew without limit, and one that never came was waited for for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
REQUEST_SECONDS = 45.0
"""Head and body together; the handlers give up a body sooner, with an answer."""
ANSWER_SECONDS = 30.0
"""A client that does not read its answer is waited for so long."""
AT_ONCE = 0.25
"""A first request that is read so many seconds after its connection was accepted came with it, and has waited in the queue, too."""
_LOOK_SECONDS = 2.5
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Corked:
    """A transport that holds the head of an answer until its body comes, so that both leave in one call to the kernel.

    It is quicker, and a balancer that has passed on a head can't ask another machine for the body: a machine that dies between the two would cost an answer.
    """

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._held = transport, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends, or holds a head; `100 Continue` is none."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._held = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Sends what is held: the answer has no body."""
        if self._held:
            self.write(b"")

    def close(self) -> None:
        """Sends what is held, then closes."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which is closed when its client is too slow, in asking or in reading, or its head too long.

    `_since` is when the request under way began to come, None between requests; `_in_head` says that its head is not whole yet;
    `_unread_since` when the answer began to wait for its reader, None while none waits.
    """

    came: float | None = None
    """Since when it had waited to be accepted; None: nobody knows, or its first request has come."""
    _made = 0.0
    _since: float | None = None
    _in_head = True
    _head_bytes = 0
    _unread_since: float | None = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that says nothing at all is given the time of a head."""
        super().connection_made(transport)
        self.transport = Corked(transport)  # type: ignore[assignment]
        self._since = self._made = self.loop.time()
        self._look = self.loop.call_later(_LOOK_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a head or a body."""
        super().data_received(data)
        if self._in_head and self._since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._since, self._in_head, self._head_bytes = self.loop.time(), True, 0
        came, self.came = self.came, None
        queued = max(self._made - came, 0.0) if came is not None and self._since - self._made < AT_ONCE else 0.0
        self.scope["arrived"] = self._since - queued  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._since = None
        self.scope["whole"] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is whole."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def _check(self) -> None:
        if self._unread():
            self.transport.abort()
        elif self._since is not None and self.loop.time() - self._since > (HEAD_SECONDS if self._in_head else REQUEST_SECONDS):
            self._refuse(_TOO_SLOW if self._in_head else b"")
        else:
            self._look = self.loop.call_later(_LOOK_SECONDS, self._check)

    def _unread(self) -> bool:
        """Whether an answer has waited for its reader too long; a reader that takes a byte now and then is not waited for either."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = self.loop.time()
        return self._unread_since is not None and self.loop.time() - self._unread_since > ANSWER_SECONDS

    def _refuse(self, answer: bytes) -> None:
        self._since = None
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
