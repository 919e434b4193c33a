"""What a door for another service's clients is made of."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from tastemaker.serving.answers import Answers
from tastemaker.serving.openapi import Operation
from tastemaker.serving.writer import Writer


@dataclass(frozen=True)
class Door:
    """A table of routes, who handles them, and how their clients want to be refused.

    Attributes:
        table: the routes. make: gives an object with a method for each. show: changes a problem document into what the clients read.
    """

    table: tuple[Operation, ...]
    make: Callable[[Answers, Writer], object]
    show: Callable[[Response], Response]


def iso(seconds: float | None) -> str:
    """Epoch seconds as RFC 3339; year 1 where they are not known, as Go writes it."""
    if seconds is None:
        return "0001-01-01T00:00:00Z"
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "0001-01-01T00:00:00Z"
