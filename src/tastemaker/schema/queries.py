"""What is asked of the service and what it answers: the REST contract, version 1."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Identifier = Annotated[str, Meta(min_length=1, max_length=512)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]


class Body(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request body; an unknown field is an error, not a silent nothing."""


class SessionEvent(Body, kw_only=True, frozen=True):
    """One event of an anonymous session."""

    item_id: Identifier
    event_type: str = "event"
    timestamp: float | None = None


class RecommendQuery(Body, kw_only=True, frozen=True):
    """Ask for a list: for a known user, for a session of events, or for nobody in particular."""

    user_id: Identifier | None = None
    session: list[SessionEvent] | None = None
    k: Count = 10
    filter: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    exclude: list[Identifier] = []
    diversity: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    explain: bool = False


class RankQuery(Body, kw_only=True, frozen=True):
    """Ask for an order of given items."""

    user_id: Identifier | None = None
    items: list[Identifier]


class SearchQuery(Body, kw_only=True, frozen=True):
    """Ask by words."""

    query: Annotated[str, Meta(max_length=10_000)]
    k: Count = 10
    user_id: Identifier | None = None


class ExplainQuery(Body, kw_only=True, frozen=True):
    """Ask why an item is, or is not, in a user's list."""

    user_id: Identifier
    item_id: Identifier


class IncomingEvent(Body, kw_only=True, frozen=True):
    """One event as a client sends it."""

    user_id: Identifier
    item_id: Identifier
    event_type: Annotated[str, Meta(min_length=1, max_length=128)] = "event"
    timestamp: float | None = None
    value: float | None = None
    event_id: Identifier | None = None
    request_id: str | None = None
    session_id: str | None = None
    position: int | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None


class EventsQuery(Body, kw_only=True, frozen=True):
    """A batch of events. Rows are checked one by one: bad rows are answered with a reason, good rows are kept."""

    events: list[dict[str, Any]]


class ItemBody(Body, kw_only=True, frozen=True):
    """An item as a client writes it."""

    title: str | None = None
    text: str | None = None
    categories: list[str] = []
    image: str | None = None
    audio: str | None = None
    price: float | None = None
    created_at: float | None = None
    hidden: bool = False
    extra: dict[str, Any] = {}


class Recommended(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of a list."""

    item_id: str
    score: float
    source: str
    reason: str | None = None
    title: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of recommend, rank, search and similar."""

    request_id: str
    model_version: str
    items: list[Recommended]
    variant: str = "live"
    degraded: list[str] | None = None


class Rejected(msgspec.Struct, frozen=True):
    """One event that was not accepted."""

    index: int
    reason: str


class EventsAnswer(msgspec.Struct, frozen=True):
    """What became of a batch of events."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, as RFC 9457 has it (`application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
