"""The routes of Amazon Personalize's runtime and events APIs, so that `boto3` works with `endpoint_url`: `serve --compat personalize`.

ARNs and tracking ids are read and ignored: a workspace is one campaign. A signature can't be checked against a hash, so the access key id is the
API key and the secret is not used. Filters by ARN, promotions, and PutActions are refused: nothing that was asked for is left out silently.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from tastemaker.schema.columns import ITEM_ALIASES, Columns, alias_key
from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.items import Item, User
from tastemaker.schema.queries import Answer, ItemBody, RankQuery, RecommendQuery
from tastemaker.schema.rules import Identifier
from tastemaker.serving.answers import Answers, item_of
from tastemaker.serving.compat.door import Door
from tastemaker.serving.openapi import Operation
from tastemaker.serving.writer import Writer

MOST = 500
IMPRESSION = "impression"


class _Asked(msgspec.Struct, rename="camel", kw_only=True):
    campaign_arn: str | None = None
    context: dict[str, str] | None = None
    filter_arn: str | None = None
    filter_values: dict[str, str] | None = None
    metadata_columns: dict[str, list[str]] | None = None


class GetRecommendations(_Asked, rename="camel", kw_only=True):
    """Ask for a list: for a user, or for items like an item."""

    user_id: Identifier | None = None
    item_id: Identifier | None = None
    num_results: Annotated[int, Meta(ge=0)] = 25
    recommender_arn: str | None = None
    promotions: list[Any] | None = None


class GetPersonalizedRanking(_Asked, rename="camel", kw_only=True):
    """Ask for an order of given items."""

    user_id: Identifier
    input_list: list[Identifier]


class PutEvent(msgspec.Struct, rename="camel", kw_only=True):
    """One event."""

    event_type: Annotated[str, Meta(min_length=1, max_length=128)]
    sent_at: float
    event_id: Identifier | None = None
    event_value: float | None = None
    item_id: Identifier | None = None
    properties: Any = None
    recommendation_id: str | None = None
    impression: list[Identifier] | None = None
    metric_attribution: Any = None


class PutEvents(msgspec.Struct, rename="camel", kw_only=True):
    """Events of one session."""

    tracking_id: str
    session_id: Identifier
    event_list: list[PutEvent]
    user_id: Identifier | None = None


class Row(msgspec.Struct, rename="camel", kw_only=True):
    """An item or a user with its properties as JSON text."""

    item_id: Identifier | None = None
    user_id: Identifier | None = None
    properties: Any = None


class PutItems(msgspec.Struct, rename="camel", kw_only=True):
    """Items to be stored."""

    dataset_arn: str
    items: list[Row]


class PutUsers(msgspec.Struct, rename="camel", kw_only=True):
    """Users to be stored."""

    dataset_arn: str
    users: list[Row]


def _op(path: str, name: str, body: Any, scope: Any = "read") -> Operation:
    return Operation("POST", path, name, f"Personalize: {name}.", body, scope=scope)


TABLE: tuple[Operation, ...] = (
    _op("/recommendations", "get_recommendations", GetRecommendations),
    _op("/personalize-ranking", "get_personalized_ranking", GetPersonalizedRanking),
    _op("/events", "put_events", PutEvents, "write"),
    _op("/items", "put_items", PutItems, "write"),
    _op("/users", "put_users", PutUsers, "write"),
)


class Personalize:
    """The handlers, one method a name of the table.

    Args:
        answers: what answers. writer: what stores.
    """

    def __init__(self, answers: Answers, writer: Writer) -> None:
        self.answers, self.writer = answers, writer

    async def get_recommendations(self, query: GetRecommendations) -> dict[str, Any]:
        """A list for a user, or of items like an item."""
        _no_filter(query)
        if query.promotions:
            raise InputError("promotions are not there. Leave them out.")
        k = min(query.num_results, MOST)
        if query.item_id is not None:
            answer = self.answers.similar(query.item_id, k)
        elif query.user_id is not None:
            answer = self.answers.recommend(RecommendQuery(user_id=query.user_id, k=k))
        else:
            raise InputError("Give a userId for recommendations, or an itemId for items like it.")
        return {"itemList": self._items(answer, query), "recommendationId": answer.request_id}

    async def get_personalized_ranking(self, query: GetPersonalizedRanking) -> dict[str, Any]:
        """The given items in the order in which they suit a user; unknown ones at the end."""
        _no_filter(query)
        answer = self.answers.rank(RankQuery(user_id=query.user_id, items=query.input_list))
        ranked = self._items(answer, query)
        known = {one["itemId"] for one in ranked}
        ranked += [{"itemId": item, "score": 0.0} for item in dict.fromkeys(query.input_list) if item not in known]
        return {"personalizedRanking": ranked, "recommendationId": answer.request_id}

    async def put_events(self, query: PutEvents) -> dict[str, Any]:
        """Stores events. What was shown beside an item is stored as impressions, where the settings say what counts as positive."""
        shown = bool(self.answers.live.settings.data.positive)
        events = [event for one in query.event_list for event in events_of(query, one, shown)]
        if events:
            await self.writer.append(events)
        return {}

    async def put_items(self, query: PutItems) -> dict[str, Any]:
        """Adds or replaces items."""
        items = [_item(row) for row in query.items]
        await self.writer.put_items(items, self.answers.contents)
        return {}

    async def put_users(self, query: PutUsers) -> dict[str, Any]:
        """Adds or replaces users."""
        users = []
        for row in query.users:
            extra = _properties(row.properties)
            check_text(row.user_id)
            users.append(User(user_id=_needed(row.user_id, "userId"), extra=extra))
        await self.writer.do(self.writer.journal.put_users, users)
        return {}

    def _items(self, answer: Answer, query: _Asked) -> list[dict[str, Any]]:
        columns = [name for names in (query.metadata_columns or {}).values() for name in names]
        state = self.answers.live.state
        found: list[dict[str, Any]] = []
        for one in answer.items:
            shown: dict[str, Any] = {"itemId": one.item_id, "score": one.score}
            if columns:
                row = state.rows[state.index_of[one.item_id]]
                shown["metadata"] = {name: text for name in columns if (text := _metadata(row, name)) is not None}
            found.append(shown)
        return found


_ERRORS = {404: ("ResourceNotFoundException", 404), 401: ("UnrecognizedClientException", 403), 403: ("AccessDeniedException", 403)}
_ERRORS |= {429: ("ThrottlingException", 429), 503: ("ServiceUnavailableException", 503), 507: ("ServiceUnavailableException", 503)}


def show(response: Response) -> Response:
    """A refusal as AWS writes it."""
    detail = msgspec.json.decode(response.body).get("detail", "")
    name, status = _ERRORS.get(response.status_code, ("InvalidInputException", 400))
    kept = {key: value for key, value in response.headers.items() if key not in ("content-length", "content-type")}
    body = msgspec.json.encode({"__type": name, "message": detail})
    return Response(body, status, {**kept, "x-amzn-ErrorType": name}, "application/json")


def _no_filter(query: _Asked) -> None:
    if query.filter_arn or query.filter_values:
        raise InputError("Filters by ARN are not there. Ask POST /v1/recommend with a filter in JSON, or leave filterArn out.")


def _needed(value: str | None, name: str) -> str:
    if value is None:
        raise InputError(f"{name} is missing.")
    return value


def _properties(value: Any) -> dict[str, Any]:
    """Properties, which come as JSON text, of some clients as JSON text of JSON text."""
    for _ in range(3):
        if not isinstance(value, str):
            break
        value = msgspec.json.decode(value) if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"properties hold {str(value)[:40]!r}; expected an object as JSON text.")
    check_json(value)
    return value


def events_of(query: PutEvents, one: PutEvent, shown: bool) -> list[Event]:
    """What one event of a session is in the journal; with `shown` also an event for each item of its impression."""
    properties = _properties(one.properties)
    item_id = one.item_id or properties.pop("itemId", None)
    user_id = query.user_id or query.session_id
    for text in (user_id, item_id, one.event_type, one.event_id, one.recommendation_id, query.session_id, *(one.impression or [])):
        check_text(text)
    for number in (one.sent_at, one.event_value):
        check_json(number)
    common: dict[str, Any] = {
        "user_id": user_id,
        "timestamp": one.sent_at,
        "session_id": query.session_id,
        "request_id": one.recommendation_id,
    }
    found = []
    if shown and one.event_type != IMPRESSION:
        for place, item in enumerate(one.impression or []):
            name = f"{one.event_id}-{IMPRESSION}-{place}" if one.event_id else ""
            found.append(Event(item_id=item, event_type=IMPRESSION, position=place, event_id=name, **common))
    if isinstance(item_id, str) and item_id:
        value = one.event_value if one.event_value is not None else _number(properties.get("eventValue", properties.get("value")))
        event_id = one.event_id or ""
        context = properties or None
        found.append(Event(item_id=item_id, event_type=one.event_type, value=value, event_id=event_id, context=context, **common))
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _item(row: Row) -> Item:
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in _properties(row.properties).items():
        column = ITEM_ALIASES.get(alias_key(name))
        if column is None or column == Columns.ITEM_ID or column in known:
            extra[name] = value
        else:
            known[column] = _field(column, value)
    body = msgspec.convert({**known, "extra": extra}, ItemBody, strict=False)
    return item_of(_needed(row.item_id, "itemId"), body)


def _field(column: str, value: Any) -> Any:
    if column == Columns.CATEGORIES:
        return [part.strip() for part in value.split("|") if part.strip()] if isinstance(value, str) else value
    if column in (Columns.TITLE, Columns.TEXT, Columns.IMAGE):
        return value if value is None or isinstance(value, str) else str(value)
    return value


def _metadata(row: dict[str, Any], name: str) -> str | None:
    """A column of an item as text, as the schema of Personalize names it."""
    wanted = alias_key(name)
    value = row.get(ITEM_ALIASES.get(wanted, ""))
    if value is None:
        value = next((held for key, held in row.get("extra", {}).items() if alias_key(key) == wanted), None)
    if value is None:
        return None
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


DOOR = Door(TABLE, Personalize, show)
