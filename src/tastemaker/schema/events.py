"""What happened: one user met one item."""

from __future__ import annotations

from typing import Any

import msgspec

from tastemaker.schema.columns import DEFAULT_EVENT_TYPE


class Event(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One event as it is stored. Times are epoch seconds; ids are strings, always."""

    user_id: str
    item_id: str
    event_type: str = DEFAULT_EVENT_TYPE
    timestamp: float | None = None
    value: float | None = None
    event_id: str = ""
    request_id: str | None = None
    session_id: str | None = None
    position: int | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None


class StoredEvent(msgspec.Struct, frozen=True):
    """An event with its place in the journal."""

    seq: int
    event: Event


class AppendResult(msgspec.Struct, frozen=True):
    """What an append did: events newly stored, and events whose id was already there."""

    accepted: int
    duplicates: int
