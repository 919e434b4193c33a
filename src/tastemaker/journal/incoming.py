"""What a sender's row becomes: an event that can be stored, or a reason why not. The same for HTTP and for a log of events."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.schema.free_json import check_json, check_text
from tastemaker.schema.queries import IncomingEvent

_decode = msgspec.json.Decoder(IncomingEvent).decode


def event_of(row: Any, now: float) -> Event:
    """The event of a decoded row; one without a time happened `now` (epoch seconds).

    Raises:
        msgspec.ValidationError: a field is missing, unknown or of another kind. InputError: a value can't be stored.
    """
    return _stored(msgspec.convert(row, IncomingEvent), now)


def event_from(body: bytes, now: float) -> Event:
    """The event of a row as JSON. Raises as `event_of`.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    return _stored(_decode(body), now)


def _stored(event: IncomingEvent, now: float) -> Event:
    for text in (event.user_id, event.item_id, event.event_type, event.event_id, event.request_id, event.session_id):
        if text is not None and not text.isascii():
            check_text(text)
    if event.context is not None:
        check_json(event.context)
    if event.position is not None:
        check_json(event.position)
    for name, number in (("timestamp", event.timestamp), ("value", event.value), ("propensity", event.propensity)):
        if number is not None and not math.isfinite(number):
            raise InputError(f"{name} is {number}; expected a finite number.")
    return Event(
        user_id=event.user_id,
        item_id=event.item_id,
        event_type=event.event_type,
        timestamp=now if event.timestamp is None else event.timestamp,
        value=event.value,
        event_id=event.event_id or "",
        request_id=event.request_id,
        session_id=event.session_id,
        position=event.position,
        propensity=event.propensity,
        context=event.context,
    )
