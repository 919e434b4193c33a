"""Reasons in plain words, made of what each channel brought."""

from __future__ import annotations

from tastemaker.schema.protocols import FloatArray

SOURCES = {
    "sequence": "what people like you took next",
    "neighbours": "often met together with {near}",
    "together": "liked by people who also met {near}",
    "text": "reads like {near}",
    "taste": "fits your taste, as in {near}",
    "popular": "popular now",
    "precomputed": "chosen for you a while ago",
    "fresh": "new, and close to {near}",
    "fresh slot": "fresh slot: new, little is known of it yet, and close to {near}",
    "segment": "popular with people like you",
    "graph": "connected with {near}",
    "friends": "taken by friends of yours",
}

CONTENT_SOURCES = ("graph", "text", "taste")


def reason(source: str, near: str | None, segment: str = "") -> str:
    """The sentence for a source; `near` is the title of the event in the history that is closest, `segment` whose popularity it was, if any."""
    text = SOURCES.get(source, source)
    if source == "segment":
        return f"{text} ({segment})" if segment else text
    if "{near}" not in text:
        return text if near is None or source in ("popular", "precomputed", "friends") else f"{text} after {near}"
    return text.format(near=near) if near else text.split(" {near}")[0].rstrip(",") + " what you met"


def sources(parts: FloatArray, channels: tuple[str, ...]) -> list[str]:
    """The channel that brought most of each item's score, [M] from [M, C]."""
    if parts.size == 0:
        return []
    return [channels[place] for place in parts.argmax(axis=1).tolist()]


def with_connection(source: str, words: str, connection: str | None) -> str:
    """A reason and how the item is connected with what the user met; where the source looked at what the item is, the connection says it all."""
    if connection is None:
        return words
    return connection if source in CONTENT_SOURCES else f"{words}; {connection}"
