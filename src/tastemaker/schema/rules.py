"""What people may ask of a list besides relevance, in requests and in settings alike. `pipeline.rules` turns it into arrays."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Identifier = Annotated[str, Meta(min_length=1, max_length=512)]
DiversityBy = Literal["mmr", "dpp"]


class Rule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A rule; an unknown field is an error, not a silent nothing."""


class Pin(Rule, kw_only=True, frozen=True):
    """An item that stands at a place whatever its score.

    Attributes:
        item_id: which. place: 1 is the top; None: the first place that no other pin has.
    """

    item_id: Identifier
    place: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Shift(Rule, kw_only=True, frozen=True):
    """Items that stand higher (`boost`) or lower (`bury`) than their scores say.

    Attributes:
        filter: which items. places: how many places; None: all the way.
    """

    filter: dict[str, Any]
    places: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Cap(Rule, kw_only=True, frozen=True):
    """At most `count` items of a list share a value of a field; one with several values counts for each of them."""

    field: Annotated[str, Meta(min_length=1, max_length=512)]
    count: Annotated[int, Meta(ge=1, le=1_000_000)]


Shifts = Annotated[list[Shift], Meta(max_length=100)]
Caps = Annotated[list[Cap], Meta(max_length=20)]
Pins = Annotated[list[Pin], Meta(max_length=1_000)]
