"""How many requests are under way in a process whose one thread answers them, on average over time.

A look from inside the same thread comes only between two answers, when nothing is under way: it saw 0 where eight clients were waiting. So the time that
each request waits and is answered is added up as it passes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Ongoing:
    """An application that counts. Requests that came together are all counted before the first of them is answered.

    Args:
        app: what answers. clock: seconds.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._count, self._sum = 0, 0.0
        self._since = self._changed = clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("arrived", time.monotonic())  # by which the ladder knows how long it waited
        self._change(1)
        try:
            await asyncio.sleep(0)
            await self._app(scope, receive, send)
        finally:
            self._change(-1)

    def mean(self) -> float:
        """Requests under way since the last call, averaged over time."""
        self._change(0)
        now, passed = self._changed, self._changed - self._since
        found = self._sum / passed if passed > 0 else float(self._count)
        self._sum, self._since = 0.0, now
        return found

    def _change(self, by: int) -> None:
        now = self._clock()
        self._sum += self._count * (now - self._changed)
        self._count += by
        self._changed = now
