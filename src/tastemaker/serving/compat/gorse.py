"""gorse's REST routes (version 0.5), so that its clients work unchanged: `serve --compat gorse`.

What differs. The journal keeps what happened: feedback can't be deleted or overwritten (501), and a repeat at another time is one more event.
`write-back-delay`, `/api/bulk/…` and neighbours of users are not there. An item's labels count as categories, too, so that the encoder reads them.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import polars as pl
import xxhash
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tastemaker.journal.append import Journal
from tastemaker.journal.erase import Erased
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.items import Item, User
from tastemaker.schema.queries import Answer, RecommendQuery, SearchQuery, SessionEvent
from tastemaker.schema.rules import Identifier
from tastemaker.serving.answers import Answers, NotFound
from tastemaker.serving.compat.door import Door, iso
from tastemaker.serving.erasing import erase_now
from tastemaker.serving.openapi import Operation
from tastemaker.serving.problems import Unsupported
from tastemaker.serving.writer import Writer

MOST = 1_000


class Feedback(msgspec.Struct, rename="pascal", kw_only=True, omit_defaults=True):
    """What a user did with an item."""

    feedback_type: Annotated[str, Meta(min_length=1, max_length=128)]
    user_id: Identifier
    item_id: Identifier
    value: float = 0.0
    timestamp: str | None = ""
    comment: str | None = ""


class GorseItem(msgspec.Struct, rename="pascal", kw_only=True):
    """An item."""

    item_id: Identifier
    is_hidden: bool | None = False
    categories: list[str] | None = None
    timestamp: str | None = ""
    labels: Any = None
    comment: str | None = ""


class GorseItemPatch(msgspec.Struct, rename="pascal", kw_only=True):
    """Fields of an item to be changed; null leaves one as it is."""

    is_hidden: bool | None = None
    categories: list[str] | None = None
    timestamp: str | None = None
    labels: Any = None
    comment: str | None = None


class GorseUser(msgspec.Struct, rename="pascal", kw_only=True):
    """A user."""

    user_id: Identifier
    labels: Any = None
    subscribe: list[str] | None = None
    comment: str | None = ""


class GorseUserPatch(msgspec.Struct, rename="pascal", kw_only=True):
    """Fields of a user to be changed."""

    labels: Any = None
    subscribe: list[str] | None = None
    comment: str | None = None


class Success(msgspec.Struct, rename="pascal"):
    """How many rows were written."""

    row_affected: int


class Score(msgspec.Struct, rename="pascal"):
    """One place of a list."""

    id: str
    score: float


_READ, _WRITE, _ADMIN = "read", "write", "admin"
_API = "/api"


def _op(method: str, path: str, name: str, body: Any = None, scope: Any = _READ, asks: bool = False, **more: Any) -> Operation:
    return Operation(method, _API + path, name, f"gorse: {name}.", body, scope=scope, asks=asks, **more)


_LIST: dict[str, Any] = {"query": (("n", 10), ("offset", 0)), "asks": True}
_PAGE: dict[str, Any] = {"query": (("n", 10),), "asks": True}
TABLE: tuple[Operation, ...] = (
    _op("GET", "/recommend/{user_id}", "recommend", **_LIST),
    _op("GET", "/recommend/{user_id}/", "recommend", **_LIST),
    _op("GET", "/recommend/{user_id}/{category}", "recommend_in", **_LIST),
    _op("POST", "/session/recommend", "session", list[Feedback], **_LIST),
    _op("POST", "/session/recommend/{category}", "session_in", list[Feedback], **_LIST),
    _op("GET", "/latest", "latest", **_LIST),
    _op("GET", "/popular", "popular", **_LIST),
    _op("GET", "/non-personalized/{name}", "non_personalized", **_LIST),
    _op("GET", "/item-to-item/{name}/{item_id}", "item_to_item", **_LIST),
    _op("GET", "/item/{item_id}/neighbors", "neighbors", **_LIST),
    _op("GET", "/item/{item_id}/neighbors/", "neighbors", **_LIST),
    _op("POST", "/feedback", "insert_feedback", list[Feedback], _WRITE),
    _op("PUT", "/feedback", "insert_feedback", list[Feedback], _WRITE),
    _op("GET", "/feedback", "feedback", scope=_ADMIN, **_PAGE),
    _op("GET", "/feedback/{user_id}/{item_id}", "feedback_between"),
    _op("DELETE", "/feedback/{user_id}/{item_id}", "delete_feedback", scope=_WRITE),
    _op("GET", "/user/{user_id}/feedback", "feedback_of"),
    _op("GET", "/user/{user_id}/feedback/{kind}", "feedback_of"),
    _op("POST", "/item", "insert_item", GorseItem, _WRITE),
    _op("POST", "/items", "insert_items", list[GorseItem], _WRITE),
    _op("GET", "/items", "items", **_PAGE),
    _op("GET", "/item/{item_id}", "get_item"),
    _op("PATCH", "/item/{item_id}", "patch_item", GorseItemPatch, _WRITE),
    _op("DELETE", "/item/{item_id}", "delete_item", scope=_WRITE),
    _op("POST", "/user", "insert_user", GorseUser, _WRITE),
    _op("POST", "/users", "insert_users", list[GorseUser], _WRITE),
    _op("GET", "/users", "users", scope=_ADMIN, **_PAGE),
    _op("GET", "/user/{user_id}", "get_user"),
    _op("PATCH", "/user/{user_id}", "patch_user", GorseUserPatch, _WRITE),
    _op("DELETE", "/user/{user_id}", "delete_user", scope=_ADMIN),
    _op("GET", "/health/live", "health", scope=None),
    _op("GET", "/health/ready", "health", scope=None),
)


class Gorse:
    """The handlers, one method a name of the table.

    Args:
        answers: what answers. writer: what stores.
    """

    def __init__(self, answers: Answers, writer: Writer) -> None:
        self.answers, self.writer = answers, writer
        self._past = Journal.open(writer.journal.path)  # long looks back have a connection of their own
        self._looking = asyncio.Lock()

    async def health(self) -> dict[str, bool]:
        """gorse's probe."""
        return {"Ready": True, "DataStoreConnected": True, "CacheStoreConnected": True}

    async def recommend(self, user_id: str, n: int, offset: int, request: Request) -> list[Any]:
        """A list for a user: ids, or with `X-API-Version: 2` ids with scores."""
        return await self._recommend(user_id, request.query_params.getlist("category"), n, offset, request)

    async def recommend_in(self, user_id: str, category: str, n: int, offset: int, request: Request) -> list[Any]:
        """The same, of one category."""
        return await self._recommend(user_id, [category], n, offset, request)

    async def session(self, n: int, offset: int, request: Request, feedback: list[Feedback]) -> list[Score]:
        """A list for an anonymous session."""
        return self._of_session(feedback, request.query_params.getlist("category"), n, offset)

    async def session_in(self, category: str, n: int, offset: int, request: Request, feedback: list[Feedback]) -> list[Score]:
        """The same, of one category."""
        return self._of_session(feedback, [category], n, offset)

    async def latest(self, n: int, offset: int, request: Request) -> list[Score]:
        """The newest items that have a time."""
        live, wanted = self.answers.live, set(_categories(request))
        live.poll()
        state = live.state
        rows = [row for place, row in enumerate(state.rows) if not state.barred[place] and row.get("created_at") is not None]
        if wanted:
            rows = [row for row in rows if wanted & set(row["categories"])]
        rows.sort(key=lambda row: -row["created_at"])
        return [Score(row["item_id"], row["created_at"]) for row in rows[offset : offset + n]]

    async def popular(self, n: int, offset: int, request: Request) -> list[Score]:
        """Popular items."""
        query = RecommendQuery(k=min(n + offset, MOST), filter=_filter(_categories(request)))
        return _scores(self.answers.recommend(query))[offset : offset + n]

    async def non_personalized(self, name: str, n: int, offset: int, request: Request) -> list[Score]:
        """A list by its name: `latest`, or any other name for what is popular."""
        return await (self.latest if name == "latest" else self.popular)(n, offset, request)

    async def item_to_item(self, name: str, item_id: str, n: int, offset: int, request: Request) -> list[Score]:
        """Items like an item, whatever the list is called."""
        return await self.neighbors(item_id, n, offset, request)

    async def neighbors(self, item_id: str, n: int, offset: int, request: Request) -> list[Score]:
        """Items like an item."""
        return _scores(self.answers.similar(item_id, min(n + offset, MOST)))[offset : offset + n]

    async def insert_feedback(self, feedback: list[Feedback]) -> Success:
        """Stores feedback; the same feedback with the same time is stored once."""
        events = [_event(one) for one in feedback]
        if events:
            await self.writer.append(events)
        return Success(len(events))

    async def feedback(self, n: int, request: Request) -> dict[str, Any]:
        """All feedback, page by page in the order in which it came."""
        cursor = request.query_params.get("cursor", "")
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
            raise InputError(f"cursor is {cursor[:40]!r}; expected what the page before gave, or nothing.")
        async with self._looking:
            found = await asyncio.to_thread(self._past.tail, int(cursor or 0), max(1, min(n, MOST)))
        rows = [_shown_event(stored.event) for stored in found]
        return {"Cursor": str(found[-1].seq) if len(found) == n else "", "Feedback": rows}

    async def feedback_of(self, user_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        """A user's feedback, of one type or of all."""
        return await self._events(user_id, kind=kind)

    async def feedback_between(self, user_id: str, item_id: str) -> list[dict[str, Any]]:
        """A user's feedback on an item."""
        return await self._events(user_id, item_id=item_id)

    async def delete_feedback(self, user_id: str, item_id: str) -> Success:
        """What happened can't be made not to have happened."""
        raise Unsupported("Feedback can't be deleted: the journal keeps what happened. Send feedback of another type instead.")

    async def insert_item(self, item: GorseItem) -> Success:
        """Adds or replaces an item."""
        return await self.insert_items([item])

    async def insert_items(self, items: list[GorseItem]) -> Success:
        """Adds or replaces items."""
        return await self._put([_item(item) for item in items])

    async def items(self, n: int, request: Request) -> dict[str, Any]:
        """Items page by page, in the order of their ids; with `q` those that a search finds."""
        sought = request.query_params.get("q")
        if sought is not None:
            found = self.answers.search(SearchQuery(query=sought[:10_000], k=min(n, MOST)))
            known = [self.answers.journal.item(one.item_id) for one in found.items]
            return {"Cursor": "", "Items": [_shown_item(item) for item in known if item is not None]}
        page = self.answers.journal.item_page(request.query_params.get("cursor", ""), max(1, min(n, MOST)))
        return {"Cursor": page[-1].item_id if len(page) == n else "", "Items": [_shown_item(item) for item in page]}

    async def get_item(self, item_id: str) -> dict[str, Any]:
        """An item."""
        return _shown_item(self._item(item_id))

    async def patch_item(self, item_id: str, patch: GorseItemPatch) -> Success:
        """Changes fields of an item."""
        now = _shown_item(self._item(item_id))
        changes = {name: value for name, value in msgspec.to_builtins(patch).items() if value is not None}
        return await self._put([_item(msgspec.convert(now | changes, GorseItem))])

    async def delete_item(self, item_id: str) -> Success:
        """Deletes an item."""
        return Success(await self.writer.do(self.writer.journal.delete_items, [item_id]))

    async def insert_user(self, user: GorseUser) -> Success:
        """Adds or replaces a user."""
        return await self.insert_users([user])

    async def insert_users(self, users: list[GorseUser]) -> Success:
        """Adds or replaces users."""
        await self.writer.do(self.writer.journal.put_users, [_user(user) for user in users])
        return Success(len(users))

    async def users(self, n: int, request: Request) -> dict[str, Any]:
        """Users page by page, in the order of their ids."""
        page = self.answers.journal.user_page(request.query_params.get("cursor", ""), max(1, min(n, MOST)))
        return {"Cursor": page[-1].user_id if len(page) == n else "", "Users": [_shown_user(user) for user in page]}

    async def get_user(self, user_id: str) -> dict[str, Any]:
        """A user."""
        return _shown_user(self._user(user_id))

    async def patch_user(self, user_id: str, patch: GorseUserPatch) -> Success:
        """Changes fields of a user."""
        now = _shown_user(self._user(user_id))
        changes = {name: value for name, value in msgspec.to_builtins(patch).items() if value is not None}
        return await self.insert_users([msgspec.convert(now | changes, GorseUser)])

    async def delete_user(self, user_id: str) -> Success:
        """Erases a user from the journal."""
        found = await asyncio.to_thread(erase_now, self.writer.journal.path, user_id)
        return Success(int(found != Erased()))

    async def _recommend(self, user_id: str, categories: Sequence[str], n: int, offset: int, request: Request) -> list[Any]:
        query = RecommendQuery(user_id=user_id, k=min(n + offset, MOST), filter=_filter(categories))
        answer = self.answers.recommend(query)
        request.scope["request_id"] = answer.request_id
        scores = _scores(answer)[offset : offset + n]
        kind = request.query_params.get("write-back-type")
        if kind and scores:
            check_text(kind)
            now = time.time()
            shown = [
                Event(
                    user_id=user_id, item_id=one.id, event_type=kind[:128], timestamp=now, request_id=answer.request_id, position=at
                )
                for at, one in enumerate(scores, offset)
            ]
            await self.writer.append(shown)
        return scores if request.headers.get("x-api-version") == "2" else [one.id for one in scores]

    def _of_session(self, feedback: list[Feedback], categories: Sequence[str], n: int, offset: int) -> list[Score]:
        events = [_event(one) for one in feedback]
        events.sort(key=lambda event: event.timestamp or 0.0)
        session = [SessionEvent(item_id=event.item_id, event_type=event.event_type) for event in events]
        query = RecommendQuery(session=session, k=min(n + offset, MOST), filter=_filter(categories))
        return _scores(self.answers.recommend(query))[offset : offset + n]

    async def _events(self, user_id: str, kind: str | None = None, item_id: str | None = None) -> list[dict[str, Any]]:
        wanted = pl.col(Columns.USER_ID) == user_id
        if kind is not None:
            wanted &= pl.col(Columns.EVENT_TYPE) == kind
        if item_id is not None:
            wanted &= pl.col(Columns.ITEM_ID) == item_id
        async with self._looking:
            table = await asyncio.to_thread(lambda: self._past.scan().filter(wanted).sort(Columns.SEQ).collect())
        names = (Columns.USER_ID, Columns.ITEM_ID, Columns.EVENT_TYPE, Columns.TIMESTAMP, Columns.VALUE)
        return [_shown_event(Event(**row)) for row in table.select(names).iter_rows(named=True)]

    async def _put(self, items: list[Item]) -> Success:
        await self.writer.put_items(items, self.answers.contents)
        return Success(len(items))

    def _item(self, item_id: str) -> Item:
        item = self.answers.journal.item(item_id)
        if item is None:
            raise NotFound(f"There is no item {item_id!r}.")
        return item

    def _user(self, user_id: str) -> User:
        user = self.answers.journal.user(user_id)
        if user is None:
            raise NotFound(f"There is no user {user_id!r}.")
        return user


def show(response: Response) -> Response:
    """A refusal as gorse writes it: the sentence as text, and 400 for input that makes no sense."""
    detail = msgspec.json.decode(response.body).get("detail", "")
    kept = {name: value for name, value in response.headers.items() if name not in ("content-length", "content-type")}
    return PlainTextResponse(detail, 400 if response.status_code == 422 else response.status_code, kept)


def _categories(request: Request) -> list[str]:
    return [name for name in request.query_params.getlist("category") if name]


def _filter(categories: Sequence[str]) -> dict[str, Any] | None:
    wanted = [name for name in categories if name]
    return {"field": "categories", "any_of": wanted} if wanted else None


def _scores(answer: Answer) -> list[Score]:
    return [Score(one.item_id, one.score) for one in answer.items]


def _seconds(text: str | None) -> float | None:
    """Epoch seconds of a time as gorse takes it: ISO 8601, or a number of seconds."""
    if not text or text.startswith("0001-"):
        return None
    try:
        if text.replace(".", "", 1).isdigit() and len(text) < 20 and "-" not in text:
            return float(text)
        found = datetime.datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InputError(f"Timestamp is {text[:40]!r}; expected a time such as 2022-02-24T13:55:27Z.") from None


def _event(feedback: Feedback) -> Event:
    seconds = _seconds(feedback.timestamp)
    for text in (feedback.feedback_type, feedback.user_id, feedback.item_id, feedback.comment):
        check_text(text)
    check_json(feedback.value)
    said = f"{feedback.feedback_type}\0{feedback.user_id}\0{feedback.item_id}\0{seconds}"
    return Event(
        user_id=feedback.user_id,
        item_id=feedback.item_id,
        event_type=feedback.feedback_type,
        timestamp=time.time() if seconds is None else seconds,
        value=feedback.value or None,  # its clients send 0 where none is given
        event_id="gorse-" + xxhash.xxh3_128_hexdigest(said.encode()),
        context={"comment": feedback.comment} if feedback.comment else None,
    )


def _words(labels: Any) -> list[str]:
    if isinstance(labels, str):
        return [labels]
    if isinstance(labels, dict):
        labels = list(labels.values())
    return [word for part in labels for word in _words(part)] if isinstance(labels, list) else []


def _item(item: GorseItem) -> Item:
    own = item.categories or []
    for text in (item.item_id, item.comment, *own):
        check_text(text)
    check_json(item.labels)
    return Item(
        item_id=item.item_id,
        text=item.comment or None,
        categories=list(dict.fromkeys([*own, *_words(item.labels)])),
        created_at=_seconds(item.timestamp),
        hidden=bool(item.is_hidden),
        extra={"Labels": item.labels, "Categories": own} if item.labels is not None else {},
    )


def _shown_item(item: Item) -> dict[str, Any]:
    return {
        "ItemId": item.item_id,
        "IsHidden": item.hidden,
        "Categories": item.extra.get("Categories", item.categories),
        "Timestamp": iso(item.created_at),
        "Labels": item.extra.get("Labels"),
        "Comment": item.text or item.title or "",
    }


def _user(user: GorseUser) -> User:
    check_text(user.user_id)
    fields = {"Labels": user.labels, "Subscribe": user.subscribe, "Comment": user.comment}
    check_json(fields)
    return User(user_id=user.user_id, extra={name: value for name, value in fields.items() if value})


def _shown_user(user: User) -> dict[str, Any]:
    rest = {name: value for name, value in user.extra.items() if name not in ("Labels", "Subscribe", "Comment")}
    labels = user.extra.get("Labels")
    return {
        "UserId": user.user_id,
        "Labels": labels if labels is not None or not rest else rest,
        "Subscribe": user.extra.get("Subscribe"),
        "Comment": user.extra.get("Comment", ""),
    }


def _shown_event(event: Event) -> dict[str, Any]:
    return {
        "FeedbackType": event.event_type,
        "UserId": event.user_id,
        "ItemId": event.item_id,
        "Value": event.value or 0.0,
        "Timestamp": iso(event.timestamp),
        "Comment": (event.context or {}).get("comment", ""),
    }


DOOR = Door(TABLE, Gorse, show)
