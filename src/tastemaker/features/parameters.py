"""Parameters of features as settings write them: `7d`, `purchase|like`, `.5`, `category`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from tastemaker.features.which import Which
from tastemaker.schema.errors import SettingsError

Seconds = Annotated[float, "seconds"]
"""A span, written as a number of seconds or with a unit: `90s`, `30m`, `12h`, `7d`, `2w`."""
Groups = Literal["category", "brand"]
"""By what items are taken together."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"^(\d+(?:\.\d*)?|\.\d+)\s*([smhdw]?)$")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."


def seconds(text: str) -> float:
    """Reads a span of time.

    Raises:
        SettingsError: the text is none, or no time at all.
    """
    match = _SPAN.match(text.strip())
    found = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0.0 < found < math.inf:
        raise SettingsError(f"{text!r} is no span of time. Expected a number above 0 with a unit, as in 90s, 30m, 12h, 7d or 2w.")
    return found


def value(text: str, kind: Any) -> Any:
    """Reads a parameter as the type that its field has.

    Raises:
        SettingsError: the text can't be read so.
    """
    if kind is Seconds:
        return seconds(text)
    if kind is Which:
        return Which.parse(text)
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise SettingsError(f"{text!r} is not possible here. {nearest(text, get_args(kind))}")
        return text
    try:
        found = kind(text)
    except ValueError:
        found = math.nan
    least = 1 if kind is int else 0
    if not least <= found < 1e9:
        expected = "a whole number of at least 1" if kind is int else "a number of at least 0"
        raise SettingsError(f"{text!r} is not possible here: expected {expected}.")
    return found
