"""How an item becomes text. Standard library only: the same lines run in training and behind the service."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLACE = re.compile(r"\{(\w+)\}")
_SEPARATORS = " \t\n.,;:|/-"


def fill(template: str, title: str | None = None, text: str | None = None, categories: Iterable[str | None] | None = None) -> str:
    """The template with an item's words in it; empty parts are left out together with the separator that follows them.

    Args:
        template: places `{title}`, `{categories}` and `{text}` with anything between them; other places stay empty.
        title, text: plain words or None.
        categories: written with commas between.

    Returns:
        The text with runs of blanks closed; empty when all parts are.
    """
    words = {
        "title": title or "",
        "text": text or "",
        "categories": ", ".join(name for name in categories or () if name),
    }
    pieces = _PLACE.split(template)
    made = pieces[0]
    for place, after in zip(pieces[1::2], pieces[2::2], strict=True):
        part = " ".join(words.get(place, "").split())
        if part:
            made += part.rstrip(". ") + after if after.startswith(".") else part + after
    return made.strip(_SEPARATORS) if any(words.values()) else ""
