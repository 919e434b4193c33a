"""One request from its head to its answer: who asks and how often, the body, the call, the answer, the count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.queries import Answer
from tastemaker.schema.settings import ServingSettings
from tastemaker.serving.admission import Admission, TooMany
from tastemaker.serving.auth import Keyring, NoKey, NotAllowed, Scope, check_own, token_of
from tastemaker.serving.ladder import Busy, Ladder
from tastemaker.serving.openapi import Operation
from tastemaker.serving.problems import of_error, problem
from tastemaker.serving.shed import Shed

if TYPE_CHECKING:
    from tastemaker.monitoring._otel import Traces

JSON = "application/json"
BODY_SECONDS = 30.0
"""A body that takes longer to arrive is given up."""

REASONS: dict[type[TastemakerError], str] = {TooMany: "rate", NoKey: "no key", NotAllowed: "not allowed", Busy: "busy"}
Show = Callable[[Response], Response]


class Exchange:
    """What all routes have in common.

    Args:
        keys: who may enter. admission: how often. metrics: what counts. settings: limits.
    """

    def __init__(self, keys: Keyring, admission: Admission, metrics: Metrics, settings: ServingSettings) -> None:
        self.keys, self.admission, self.metrics, self.settings = keys, admission, metrics, settings
        self.ladder = Ladder(settings.busy_ms / 1e3)
        self.shed = Shed(self.ladder, metrics)
        self.traces: Traces | None = None
        self._encode = msgspec.json.Encoder().encode
        self._too_large = f"The body is larger than {settings.max_body:,} bytes. Send smaller batches."

    def routes(self, table: Iterable[Operation], handlers: object, show: Show | None = None) -> list[Route]:
        """Starlette routes of a table.

        Args:
            table: its rows. handlers: has a method for each row, of the row's name.
            show: changes a refusal into what the clients of these routes understand.
        """
        return [Route(row.path, self._handler(row, getattr(handlers, row.name), show), methods=[row.method]) for row in table]

    def guarded(
        self, name: str, scope: Scope, call: Callable[[Request], Awaitable[Response]]
    ) -> Callable[..., Awaitable[Response]]:
        """A handler of Starlette's that asks for a key first."""

        async def handle(request: Request) -> Response:
            try:
                self._enter(request, name, scope)
            except TastemakerError as error:
                return of_error(error)
            return await call(request)

        return handle

    def _handler(self, row: Operation, method: Any, show: Show | None) -> Callable[[Request], Awaitable[Response]]:
        limits = dict(row.query)
        decode = msgspec.json.Decoder(row.body).decode if row.body is not None else None

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            status = 500
            self.metrics.begins()
            try:
                if self.traces is None:
                    response = await self._response(row, method, limits, decode, request)
                else:
                    with self.traces.request(row.name, request.scope["headers"]) as span:
                        response = await self._response(row, method, limits, decode, request)
                        self.traces.ended(span, response.status_code)
                status = response.status_code
                return show(response) if show is not None and status >= 400 else response
            finally:
                self.metrics.ends()
                self.metrics.observe(row.name, status, time.perf_counter() - began)

        return handle

    async def _response(
        self, row: Operation, method: Any, limits: Mapping[str, int], decode: Callable[[bytes], Any] | None, request: Request
    ) -> Response:
        try:
            if row.scope is None:
                request.scope["route_name"] = row.name
            else:
                self._enter(request, row.name, row.scope, row.waits)
            arguments: list[Any] = [_path_id(value) for value in request.path_params.values()]
            arguments += [_integer(request, name, default) for name, default in limits.items()]
            if row.asks:
                arguments.append(request)
            if decode is not None:
                arguments.append(decode(await self._body(request)))
            answer = await method(*arguments)
            if isinstance(answer, Answer):
                request.scope["request_id"] = answer.request_id
                if answer.degraded:
                    self.metrics.degraded(answer.level, answer.degraded)
                self.metrics.answered([one.source for one in answer.items], [one.score for one in answer.items])
            return Response(self._encode(answer), row.status, media_type=JSON)
        except (TooMany, NoKey, NotAllowed, Busy) as error:
            self.metrics.rejected(REASONS[type(error)])
            return of_error(error)
        except TastemakerError as error:
            return of_error(error)
        except msgspec.ValidationError as error:
            return problem(422, str(error))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return problem(400, f"The body is no valid JSON: {error}")
        except _TooLarge as error:
            self.metrics.rejected("too large")
            return problem(413, str(error))
        except _WrongType as error:
            return problem(415, str(error))
        except TimeoutError:
            self.metrics.rejected("too slow")
            return problem(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.", {"Connection": "close"})

    def _enter(self, request: Request, name: str, scope: Scope, waits: bool = False) -> None:
        """Lets a request in, before any of its body is read; one that `waits` has its turn still before it.

        Raises:
            NoKey, NotAllowed, TooMany, Busy: it is not let in.
        """
        request.scope["route_name"] = name
        if not waits:
            now = time.monotonic()
            self.ladder.take(now - request.scope.get("arrived", now), now)
        key = self.keys.enter(token_of(request.scope["headers"]), scope)
        if key is None:
            check_own(request.scope["headers"])
            self.admission.take(0)
        else:
            request.scope["key_id"] = key.key_id
            self.admission.take(key.slot, key.rate)

    async def _body(self, request: Request) -> bytes:
        kind = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"").decode("latin-1")
        kind = kind.split(";")[0].strip().lower()
        if kind and not (kind.endswith("json") or kind in ("text/plain", "application/x-www-form-urlencoded")):
            raise _WrongType(f"The body is {kind}; send application/json.")
        if request.scope.get("whole"):  # it came with its head, as small ones do: nothing has to be waited for
            message = await request.receive()
            if (
                message["type"] == "http.request"
                and not message.get("more_body")
                and len(message["body"]) <= self.settings.max_body
            ):
                body: bytes = message["body"]
                return body
            raise _TooLarge(self._too_large) if message["type"] == "http.request" else ClientDisconnect
        parts, size = [], 0
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > self.settings.max_body:
                    raise _TooLarge(self._too_large)
                parts.append(part)
        return b"".join(parts)


class _TooLarge(Exception):
    pass


class _WrongType(Exception):
    pass


def _path_id(value: str) -> str:
    if not value or len(value) > 512:
        raise InputError(f"An id has 1 to 512 letters; found {len(value)}.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError("The id in the path is no valid UTF-8.")
    return value


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 7 or int(text) > 1_000_000:
        raise InputError(f"{name} is {text[:40]!r}; expected a whole number from 0 to 1,000,000.")
    return int(text)
