"""HTTP: one table of routes, read by the router and by the OpenAPI document alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import polars as pl
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tastemaker.journal.catalogue import EDGE_SCHEMA
from tastemaker.journal.erase import Erased
from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.events import AppendResult
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.graph import SELF_LOOP
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
from tastemaker.serving.answers import Answers, NotFound, item_of
from tastemaker.serving.compat.door import Door
from tastemaker.serving.erasing import erase_now
from tastemaker.serving.exchange import JSON, Exchange
from tastemaker.serving.express import Express
from tastemaker.serving.openapi import document
from tastemaker.serving.page import Page
from tastemaker.serving.problems import problem
from tastemaker.serving.record import AccessLog, Recorded
from tastemaker.serving.releases import ReleaseBody, Releases
from tastemaker.serving.routes import TABLE, EdgesBatch, ItemPatch, ItemsBatch, Stored, UserBody, UsersBatch
from tastemaker.serving.together import Turns
from tastemaker.serving.watching import trained_of
from tastemaker.serving.writer import Crowded, Writer


class Api:
    """The handlers, one method a row of the table."""

    def __init__(self, answers: Answers, writer: Writer, exchange: Exchange, releases: Releases) -> None:
        self.answers, self.writer, self.metrics, self.kept = answers, writer, exchange.metrics, releases
        self._turns = Turns(
            answers.recommend_many, exchange.settings.together, exchange.ladder.take, exchange.settings.together_ms / 1e3
        )

    async def recommend(self, request: Request, query: RecommendQuery) -> Answer:
        """A list for a user or a session; those who ask at the same time are answered together."""
        scope = request.scope
        return await self._turns.ask(query, scope.get("arrived") or time.monotonic(), scope.get("client"))

    async def rank(self, query: RankQuery) -> Answer:
        """Given items in order."""
        return self.answers.rank(query)

    async def search(self, query: SearchQuery) -> Answer:
        """Items by words and by meaning."""
        return self.answers.search(query, await self.answers.meaning(query))

    async def explain(self, query: ExplainQuery) -> dict[str, Any]:
        """Why an item stands where it does."""
        return self.answers.explain(query)

    async def similar(self, item_id: str, k: int) -> Answer:
        """Items like an item."""
        return self.answers.similar(item_id, k)

    async def events(self, query: EventsQuery) -> EventsAnswer:
        """Stores events; many requests share one flush to disk."""
        good, rejected = self.answers.checked(query.events)
        began = time.perf_counter()
        try:
            done = await self.writer.append(good) if good else AppendResult(0, 0)
        except Crowded:
            self.metrics.rejected("crowded")
            raise
        except TastemakerError:
            self.metrics.commit_failed()
            raise
        if good:
            self.metrics.commit(time.perf_counter() - began, self.answers.clock())
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
        await self.writer.put_items(items, self.answers.contents)

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

    async def put_edges(self, body: EdgesBatch) -> Stored:
        """Stores connections by the rules of an edge file."""
        for place, edge in enumerate(body.edges):
            for text in (edge.head, edge.relation, edge.tail):
                check_text(text)
            if edge.head == edge.tail:
                raise InputError(f"edges[{place}]: {SELF_LOOP}; nothing of this batch was stored.")
        table = pl.DataFrame([msgspec.structs.asdict(edge) for edge in body.edges], schema=EDGE_SCHEMA)
        await self.writer.do(self.writer.journal.put_edges, table)
        return Stored(len(body.edges))

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

    async def delete_user(self, user_id: str) -> Erased:
        """Erases a user."""
        kept = self.kept
        found = await asyncio.to_thread(erase_now, self.writer.journal.path, user_id, kept.folder, kept.registry.bundles)
        if found == Erased():
            raise NotFound(f"Nothing of user {user_id!r} is stored.")
        return found

    async def users(self, limit: int) -> dict[str, Any]:
        """Some users."""
        return self.answers.users(min(limit, 1_000))

    async def items(self, limit: int) -> dict[str, Any]:
        """Some items."""
        return self.answers.items(min(limit, 1_000))

    async def audience(self, item_id: str, k: int) -> dict[str, Any]:
        """Whom an item would be shown to."""
        return await self.answers.audience(item_id, k)

    async def bundles(self) -> dict[str, Any]:
        """Bundles with their stages and figures."""
        return await asyncio.to_thread(self.kept.bundles)

    async def release(self, request: Request, body: ReleaseBody) -> dict[str, Any]:
        """Makes a bundle live."""
        return await self.kept.release(body, _who(request))

    async def rollback(self, request: Request) -> dict[str, Any]:
        """Makes the previous bundle live."""
        return await self.kept.rollback(_who(request))

    async def reports(self) -> dict[str, Any]:
        """Names of the reports."""
        return self.kept.reports()

    async def report(self, name: str) -> dict[str, Any]:
        """A report as an HTML page."""
        return await asyncio.to_thread(self.kept.report, name)


def make_app(
    answers: Answers,
    writer: Writer,
    exchange: Exchange,
    log: AccessLog | None,
    pages: Mapping[str, Page],
    releases: Releases,
    doors: Sequence[Door] = (),
    follow: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
) -> ASGIApp:
    """The application.

    Args:
        answers: what answers. writer: what stores. exchange: lets requests in and counts them. log: a line for each.
        pages: what a browser is given, by path. releases: bundles and reports. doors: routes for the clients of other services.
        follow: tasks that run beside, such as the watch for a new live bundle.
    """
    metrics = exchange.metrics
    spec = msgspec.json.encode(document(TABLE))

    async def openapi(request: Request) -> Response:
        return Response(spec, media_type=JSON)

    async def healthz(request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type=JSON)

    async def readyz(request: Request) -> Response:
        return Response(msgspec.json.encode({"status": "ready", "model_version": answers.live.version}), media_type=JSON)

    async def scrape(request: Request) -> Response:
        metrics.model(answers.live.version, answers.live.channels.n_items, trained_of(answers.live))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one()) for one in follow]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()

    routes = exchange.routes(TABLE, Api(answers, writer, exchange, releases))
    for door in doors:
        routes += exchange.routes(door.table, door.make(answers, writer), door.show)
    routes += [Route("/openapi.json", openapi), Route("/healthz", healthz), Route("/readyz", readyz)]
    routes += [Route("/metrics", exchange.guarded("metrics", "read", scrape))]
    routes += [Route(path, page.show) for path, page in pages.items()]
    handlers: dict[Any, Any] = {HTTPException: _http_error, Exception: _crash, ClientDisconnect: _gone}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    return Recorded(Express(app, routes, _gone, _crash), log)


def _who(request: Request) -> str:
    key = request.scope.get("key_id")
    return f"key {key}" if key else "console"


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
