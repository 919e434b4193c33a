"""HTTP: one table of routes, read by the router and by the OpenAPI document alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.events import AppendResult
from tastemaker.schema.items import Item, User
from tastemaker.schema.queries import (
    Answer,
    EventsAnswer,
    EventsQuery,
    ExplainQuery,
    ItemBody,
    RankQuery,
    RecommendQuery,
    SearchQuery,
)
from tastemaker.schema.rules import Identifier
from tastemaker.schema.settings import ServingSettings
from tastemaker.serving.answers import Answers, NotFound, item_of
from tastemaker.serving.free_json import check_json, check_text
from tastemaker.serving.openapi import Operation, document
from tastemaker.serving.problems import of_error, problem
from tastemaker.serving.routes import TABLE, ItemPatch, ItemsBatch, Stored, UserBody, UsersBatch
from tastemaker.serving.writer import Writer

JSON = "application/json"
BODY_SECONDS = 30.0
"""A body that takes longer to arrive is given up."""


class Api:
    """The handlers, one method a row of the table."""

    def __init__(self, answers: Answers, writer: Writer, metrics: Metrics, settings: ServingSettings) -> None:
        self.answers, self.writer, self.metrics, self.settings = answers, writer, metrics, settings
        self._decoders = {row.name: msgspec.json.Decoder(row.body) for row in TABLE if row.body is not None}
        self._encode = msgspec.json.Encoder().encode

    def routes(self) -> list[Route]:
        """Starlette routes of the table."""
        return [Route(row.path, self._handler(row), methods=[row.method]) for row in TABLE]

    def _handler(self, row: Operation) -> Callable[[Request], Awaitable[Response]]:
        method = getattr(self, row.name)
        limits = dict(row.query)

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            status = 500
            try:
                response = await self._response(row, method, limits, request)
                status = response.status_code
                return response
            finally:
                self.metrics.observe(row.name, status, time.perf_counter() - began)

        return handle

    async def _response(self, row: Operation, method: Any, limits: Mapping[str, int], request: Request) -> Response:
        try:
            arguments: list[Any] = [_path_id(value) for value in request.path_params.values()]
            arguments += [_integer(request, name, default) for name, default in limits.items()]
            if row.body is not None:
                arguments.append(self._decoders[row.name].decode(await self._body(request)))
            return Response(self._encode(await method(*arguments)), row.status, media_type=JSON)
        except TastemakerError as error:
            return of_error(error)
        except msgspec.ValidationError as error:
            return problem(422, str(error))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return problem(400, f"The body is no valid JSON: {error}")
        except _TooLarge as error:
            return problem(413, str(error))
        except _WrongType as error:
            return problem(415, str(error))
        except TimeoutError:
            return problem(408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.", {"Connection": "close"})

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", JSON).split(";")[0].strip().lower()
        if kind and not (kind.endswith("json") or kind in ("text/plain", "application/x-www-form-urlencoded")):
            raise _WrongType(f"The body is {kind}; send application/json.")
        parts, size = [], 0
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > self.settings.max_body:
                    raise _TooLarge(f"The body is larger than {self.settings.max_body:,} bytes. Send smaller batches.")
                parts.append(part)
        return b"".join(parts)

    async def recommend(self, query: RecommendQuery) -> Answer:
        """A list for a user or a session."""
        return self.answers.recommend(query)

    async def rank(self, query: RankQuery) -> Answer:
        """Given items in order."""
        return self.answers.rank(query)

    async def search(self, query: SearchQuery) -> Answer:
        """Items by words and by meaning."""
        return self.answers.search(query)

    async def explain(self, query: ExplainQuery) -> dict[str, Any]:
        """Why an item stands where it does."""
        return self.answers.explain(query)

    async def similar(self, item_id: str, k: int) -> Answer:
        """Items like an item."""
        return self.answers.similar(item_id, k)

    async def events(self, query: EventsQuery) -> EventsAnswer:
        """Stores events; many requests share one flush to disk."""
        good, rejected = self.answers.checked(query.events)
        done = await self.writer.append(good) if good else AppendResult(0, 0)
        answer = EventsAnswer(done.accepted, done.duplicates, rejected)
        self.metrics.events(answer.accepted, answer.duplicates, len(answer.rejected))
        return answer

    async def put_item(self, item_id: str, body: ItemBody) -> Stored:
        """Adds or replaces an item."""
        item = item_of(item_id, body)
        await self._put([item])
        return Stored(1)

    async def put_items(self, body: ItemsBatch) -> Stored:
        """Stores many items."""
        items = []
        for place, row in enumerate(body.items):
            try:
                item_id = msgspec.convert(row.get("item_id"), Identifier)
                rest = {name: value for name, value in row.items() if name != "item_id"}
                items.append(item_of(item_id, msgspec.convert(rest, ItemBody)))
            except msgspec.ValidationError as error:
                raise InputError(f"items[{place}]: {error}; nothing of this batch was stored.") from None
        await self._put(items)
        return Stored(len(items))

    async def patch_item(self, item_id: str, body: ItemPatch) -> Stored:
        """Changes fields of an item."""
        changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}
        await self._put([self.answers.patched(item_id, changes)])
        return Stored(1)

    async def _put(self, items: list[Item]) -> None:
        """Reads items, then stores them durably; while a picture is fetched, events are written all the same."""
        vectors, version = await self.writer.read(self.answers.contents, items)
        await self.writer.do(self.writer.journal.put_items, items, vectors, version)

    async def get_item(self, item_id: str) -> dict[str, Any]:
        """An item."""
        return self.answers.item(item_id)

    async def delete_item(self, item_id: str) -> Stored:
        """Deletes an item."""
        deleted = await self.writer.do(self.writer.journal.delete_items, [item_id])
        if not deleted:
            raise NotFound(f"There is no item {item_id!r}.")
        return Stored(1)

    async def put_user(self, user_id: str, body: UserBody) -> Stored:
        """Adds or replaces a user."""
        check_json(body.extra)
        await self.writer.do(self.writer.journal.put_users, [User(user_id=user_id, extra=body.extra)])
        return Stored(1)

    async def put_users(self, body: UsersBatch) -> Stored:
        """Stores many users."""
        try:
            users = [
                User(
                    user_id=msgspec.convert(row.get("user_id"), Identifier), extra={k: v for k, v in row.items() if k != "user_id"}
                )
                for row in body.users
            ]
        except msgspec.ValidationError as error:
            raise InputError(f"A user of the batch has no user_id: {error}; nothing was stored.") from None
        for user in users:
            check_text(user.user_id)
            check_json(user.extra)
        await self.writer.do(self.writer.journal.put_users, users)
        return Stored(len(users))

    async def patch_user(self, user_id: str, body: UserBody) -> Stored:
        """Changes attributes of a user."""
        stored = self.answers.journal.user(user_id)
        if stored is None:
            raise NotFound(f"No attributes of user {user_id!r} are stored.")
        check_json(body.extra)
        await self.writer.do(self.writer.journal.put_users, [User(user_id=user_id, extra=stored.extra | body.extra)])
        return Stored(1)

    async def get_user(self, user_id: str) -> dict[str, Any]:
        """A user with the latest events."""
        return self.answers.user(user_id)

    async def delete_user(self, user_id: str) -> Stored:
        """Deletes a user's attributes."""
        if not await self.writer.do(self.writer.journal.delete_user, user_id):
            raise NotFound(f"No attributes of user {user_id!r} are stored.")
        return Stored(1)

    async def users(self, limit: int) -> dict[str, Any]:
        """Some users."""
        return self.answers.users(min(limit, 1_000))

    async def items(self, limit: int) -> dict[str, Any]:
        """Some items."""
        return self.answers.items(min(limit, 1_000))


class _TooLarge(Exception):
    pass


class _WrongType(Exception):
    pass


def make_app(
    answers: Answers,
    writer: Writer,
    metrics: Metrics,
    pages: Mapping[str, str],
    follow: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Starlette:
    """The application.

    Args:
        answers: what answers. writer: what stores. metrics: what counts.
        pages: HTML by path.
        follow: a task that runs beside, such as the watch for a new live bundle.
    """
    api = Api(answers, writer, metrics, answers.settings)
    spec = msgspec.json.encode(document(TABLE))

    async def openapi(request: Request) -> Response:
        return Response(spec, media_type=JSON)

    async def healthz(request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type=JSON)

    async def readyz(request: Request) -> Response:
        return Response(msgspec.json.encode({"status": "ready", "model_version": answers.live.version}), media_type=JSON)

    async def scrape(request: Request) -> Response:
        metrics.model(answers.live.version, answers.live.channels.n_items)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(follow()) if follow is not None else None
        yield
        if task is not None:
            task.cancel()
        writer.close()

    plain = {"/openapi.json": openapi, "/healthz": healthz, "/readyz": readyz, "/metrics": scrape}
    routes = [*api.routes(), *(Route(path, handler) for path, handler in plain.items())]
    routes += [Route(path, _page(text)) for path, text in pages.items()]
    handlers: dict[Any, Any] = {HTTPException: _http_error, Exception: _crash, ClientDisconnect: _gone}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def _page(text: str) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        return HTMLResponse(text)

    return show


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {
        404: f"There is no {request.url.path}. See /docs.",
        405: f"{request.url.path} does not take {request.method}. See /docs.",
    }
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    return problem(status, words.get(status, str(error)), headers)


async def _crash(request: Request, error: Exception) -> Response:
    return problem(500, "A fault of the service; it was logged.")


async def _gone(request: Request, error: Exception) -> Response:
    return problem(400, "The client went away.")


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
