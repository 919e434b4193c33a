"""Names as numbers that a ranker has vectors for: of an item its category, brand or any field, of the asker user and device. Hashed, so that a name
that training never saw has a number too; the same lines offline and online."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from tastemaker.features.facts import BRAND_FIELDS, device_of
from tastemaker.schema.columns import Columns

OF_ASKER = ("user_id", "device")
Codes = NDArray[np.int64]


class Categories(msgspec.Struct, frozen=True):
    """Which names are read, and into how many numbers each is hashed.

    Attributes:
        fields: `category` (the first), `brand`, `item_id`, `user_id`, `device`, or a column of the catalogue or of its `extra`.
        buckets: numbers run from 1 to this; 0 stands for no name.
    """

    fields: tuple[str, ...]
    buckets: int

    def of_items(self, rows: Sequence[Mapping[str, Any]]) -> Codes:
        """The numbers of items, int64 [n, fields]; 0 in the columns of the asker.

        Args:
            rows: fields of each item; `extra` is a mapping or JSON text.
        """
        found = np.zeros((len(rows), len(self.fields)), dtype=np.int64)
        of_items = [(place, field) for place, field in enumerate(self.fields) if field not in OF_ASKER]
        for number, row in enumerate(rows if of_items else ()):
            for place, field in of_items:
                found[number, place] = self._code(field, _value(row, field))
        return found

    def of_asker(self, user_id: str, context: Mapping[str, Any] | None) -> Codes:
        """The numbers of one asker, int64 [fields]; 0 in the columns of items. Add them to those of items."""
        known = {"user_id": user_id or None, "device": device_of(context)}
        codes = [self._code(field, known[field]) if field in OF_ASKER else 0 for field in self.fields]
        return np.array(codes, dtype=np.int64)

    def _code(self, field: str, value: str | None) -> int:
        return 0 if value is None else 1 + xxhash.xxh32_intdigest(f"{field}={value}".encode("utf-8", "replace")) % self.buckets


def _value(row: Mapping[str, Any], field: str) -> str | None:
    if field == "category":
        categories = row.get(Columns.CATEGORIES)
        return str(categories[0]) if categories else None
    extra = row.get("extra")
    if isinstance(extra, str):
        try:
            extra = msgspec.json.decode(extra)
        except msgspec.DecodeError:
            extra = None
    extra = extra if isinstance(extra, Mapping) else {}
    if field == "brand":
        return next((str(extra[name]).strip() for name in BRAND_FIELDS if extra.get(name)), None)
    value = row.get(field, extra.get(field))
    return None if value in (None, "", []) else str(value)
