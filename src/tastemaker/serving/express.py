"""The short way to the routes whose path is fixed: they are found by one look into a table and pass no middleware.

A router tries one pattern after the other, and Starlette wraps every call six times; for one event that was a third of a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isfunction

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Failed = Callable[[Request, Exception], Awaitable[Response]]


class Express:
    """An application in front of another.

    Args:
        app: takes whatever has no short way. routes: of that application, in its order; those of a fixed path get one.
        gone, crashed: answer where the client went away, and where a handler failed.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route], gone: Failed, crashed: Failed) -> None:
        self._app, self._gone, self._crashed = app, gone, crashed
        self._table = fixed(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI has it."""
        handler = self._table.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except ClientDisconnect as error:
            response = await self._gone(request, error)
        except Exception as error:
            await (await self._crashed(request, error))(scope, receive, send)
            raise  # the server writes it into its log
        await response(scope, receive, send)


def fixed(routes: Sequence[Route]) -> dict[tuple[str, str], Handler]:
    """Handlers by method and path, of the routes whose path has no part that varies and that no earlier route matches."""
    found: dict[tuple[str, str], Handler] = {}
    for place, route in enumerate(routes):
        for method in route.methods or ():
            before = any(method in (one.methods or ()) and one.path_regex.match(route.path) for one in routes[:place])
            if "{" not in route.path and isfunction(route.endpoint) and method != "HEAD" and not before:
                found[method, route.path] = route.endpoint
    return found
