"""What is asked of the service and what it answers: the REST contract, version 1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tastemaker.schema.rules import Cap, Caps, DiversityBy, Identifier, Pins, Shifts

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


LEVELS = ("full", "fewer candidates", "no ranker", "precomputed", "popular")
"""The ladder: how far an answer may be from the best that the bundle can give. A rung includes those above it."""
FULL, FEWER, NO_RANKER, PRECOMPUTED, POPULAR = range(len(LEVELS))


class Body(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request body; an unknown field is an error, not a silent nothing."""


class SessionEvent(Body, kw_only=True, frozen=True):
    """One event of an anonymous session."""

    item_id: Identifier
    event_type: str = "event"
    timestamp: float | None = None


class RecommendQuery(Body, kw_only=True, frozen=True):
    """Ask for a list: for a known user, for a session of events, or for nobody in particular.

    The rules from `diversity` to `same_title` come on top of those of the service (section `lists` of the settings). With the same `request_id`,
    which a client may choose, chance decides the same. With `target` `users` people are asked for whom the user might know: `exclude` then holds users,
    and rules about items are refused.
    """

    user_id: Identifier | None = None
    session: list[SessionEvent] | None = None
    target: Literal["items", "users"] = "items"
    k: Count = 10
    filter: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    exclude: list[Identifier] = []
    diversity: Share | None = None
    diversity_by: DiversityBy | None = None
    pinned: Pins = []
    boost: Shifts = []
    bury: Shifts = []
    max_per: Cap | Caps = []
    near_duplicates: Share | None = None
    same_title: bool | None = None
    explain: bool = False
    request_id: Identifier | None = None


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
    """Ask why an item is, or is not, in a user's list; with a `request_id` in the list of that request.

    `question` is what the list was asked with (k, filter, rules, session …); its user is `user_id`.
    """

    user_id: Identifier
    item_id: Identifier
    request_id: Identifier | None = None
    question: RecommendQuery | None = None


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


class Move(msgspec.Struct, frozen=True):
    """What a rule did to an item: its place before and after, 1 is the top."""

    rule: str
    before: int
    after: int


class Recommended(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of a list.

    Attributes:
        propensity: the chance that this item stood in the list, where chance took part in it; it would for certain where there is none.
        chances: with `explain`: of each label, where a ranker was learned.
        moves: with `explain`: the rules that moved the item, in order.
    """

    item_id: str
    score: float
    source: str
    reason: str | None = None
    title: str | None = None
    propensity: float | None = None
    chances: dict[str, float] | None = None
    moves: list[Move] | None = None


class LeftOut(msgspec.Struct, frozen=True):
    """An item that would stand in the list by its score, and the rule that left it out."""

    item_id: str
    rule: str
    before: int


class RecommendedUser(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of a list of people."""

    user_id: str
    score: float
    source: str
    reason: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of recommend, rank, search and similar.

    Attributes:
        degraded: what load or a fault took away, as in `source text: late`. level: the rung of the ladder: 0 full, 1 fewer candidates, 2 no ranker,
            3 a list made before, 4 what is popular. notes: rules that were relaxed or could not be kept, in plain words.
        left_out: with `explain`: items of the first places that rules left out.
        users: where people were asked for, best first; `items` is empty then.
    """

    request_id: str
    model_version: str
    items: list[Recommended]
    variant: str = "live"
    degraded: list[str] | None = None
    level: int = 0
    notes: list[str] | None = None
    left_out: list[LeftOut] | None = None
    users: list[RecommendedUser] | None = None


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
