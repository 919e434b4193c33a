"""Fields of all items as they are now: those of the bundle, and over them what was put since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from tastemaker.bundle.catalogue import Catalogue

Row = dict[str, Any]


class ItemRows(Sequence[Row]):
    """Rows in index order, of which some are changed and more are added.

    Args:
        base: the bundle's.

    Attributes:
        index_of: item id to item index.
    """

    def __init__(self, base: Catalogue) -> None:
        self.base, self._count = base, len(base)
        self._changed: dict[int, Row] = {}
        self._later: list[Row] = []
        self.index_of = _IndexOf(base.index_of)

    def __len__(self) -> int:
        return len(self.base) + len(self._later)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        changed = self._changed.get(place)
        if changed is not None:
            return changed
        return self.base[place] if place < self._count else self._later[place - self._count]

    def __iter__(self) -> Iterator[Row]:
        return (self[place] for place in range(len(self)))

    def put(self, place: int, row: Row) -> None:
        """Gives an item other fields."""
        if place < len(self.base):
            self._changed[place] = row
        else:
            self._later[place - len(self.base)] = row

    def add(self, row: Row) -> int:
        """Adds an item; gives its index."""
        self.index_of.later[row["item_id"]] = place = len(self)
        self._later.append(row)
        return place

    def item_id(self, place: int) -> str:
        """The id of an item."""
        found: str = self.base.item_id(place) if place < len(self.base) else self._later[place - len(self.base)]["item_id"]
        return found


class _IndexOf(Mapping[str, int]):
    """Item id to item index: what was added later beside what the bundle has."""

    def __init__(self, base: Mapping[str, int]) -> None:
        self._base = base
        self.later: dict[str, int] = {}

    def __getitem__(self, item_id: str) -> int:
        place: int | None = self.get(item_id)
        if place is None:
            raise KeyError(item_id)
        return place

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.later or item_id in self._base

    def get(self, item_id: str, default: Any = None) -> Any:
        """The index, or what is given instead."""
        place = self.later.get(item_id)
        return self._base.get(item_id, default) if place is None else place

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from self.later

    def __len__(self) -> int:
        return len(self._base) + len(self.later)
