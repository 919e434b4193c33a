"""Fields in which a client may write any JSON: what of it can be stored."""

from __future__ import annotations

from typing import Any

from tastemaker.schema.errors import InputError

MAX_DEPTH = 32
_LARGEST = 2**63


def check_text(text: str | None) -> None:
    """Refuses text that no file can hold.

    Raises:
        InputError: it holds half of a surrogate pair.
    """
    if text is not None and not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("A text holds half of a surrogate pair, which is no valid Unicode. Send UTF-8.")


def check_json(value: Any, depth: int = 0) -> None:
    """Refuses free JSON that can't be stored or compared.

    Raises:
        InputError: it is nested too deep, or holds a number beyond 64 bits or a text that is no valid Unicode.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"A field is nested more than {MAX_DEPTH} deep. Send it flatter.")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            check_text(name)
            check_json(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner, depth + 1)
    elif isinstance(value, int | float) and not -_LARGEST <= value < _LARGEST:
        raise InputError("A field holds a number that needs more than 64 bits. Send it as text.")
