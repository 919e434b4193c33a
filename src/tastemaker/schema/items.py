"""What can be recommended."""

from __future__ import annotations

from typing import Any

import msgspec


class Item(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One item of the catalogue. Columns that the project does not know are kept in `extra`."""

    item_id: str
    title: str | None = None
    text: str | None = None
    categories: list[str] = []
    image: str | None = None
    audio: str | None = None
    price: float | None = None
    created_at: float | None = None
    hidden: bool = False
    extra: dict[str, Any] = {}


class ItemChange(msgspec.Struct, frozen=True):
    """One change of the catalogue, in the order of `change`. `item` is None for a deletion.

    `vector` is the item's content (float32 bytes): its text vector and those of other signals, as `vector_version` (the bundle's encoders) computed it,
    if any.
    """

    change: int
    item_id: str
    item: Item | None
    vector: bytes | None = None
    vector_version: str | None = None


class User(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One user's own attributes."""

    user_id: str
    extra: dict[str, Any] = {}
