"""The signals of new items besides their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import xxhash

from tastemaker.schema.graph import ENTITY, ITEM
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray

_LOOKED_AT = 1_000
_MOST_WORDS = 200
_NOTHING = 1e-6


class SignalReader(Protocol):
    """Gives the vectors of one signal. `slow`: it may wait for a file or a network, or compute for long."""

    slow: bool

    version: str
    """Changes with whatever makes the vectors."""

    def vectors(self, items: Sequence[Item]) -> FloatArray:
        """One row an item, float32 [n, W]; zeros where an item lacks the signal."""


class KeptSignal:
    """A signal that an item does not carry with it, such as its place in a graph: known items keep the vector of the training, new ones lack it.

    Args:
        path: the bundle's vectors, float32 [N, W].
        index_of: item id to row.
        later: ids of items that the catalogue did not hold, whose rows stand behind the others.
    """

    slow = False

    def __init__(self, path: Path, index_of: Mapping[str, int], later: Sequence[str] = ()) -> None:
        self._rows: FloatArray = np.load(path, mmap_mode="r", allow_pickle=False)
        begin = len(self._rows) - len(later)
        self._index_of, self._later = index_of, {item: begin + place for place, item in enumerate(later)}
        some = self._rows[:: max(len(self._rows) // _LOOKED_AT, 1)]  # another training gives another space
        self.version = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(some).tobytes())

    def vectors(self, items: Sequence[Item]) -> FloatArray:
        """One row an item, float32 [n, W]."""
        found = np.zeros((len(items), self._rows.shape[1]), dtype=np.float32)
        for row, item in enumerate(items):
            place = self._later.get(item.item_id, self._index_of.get(item.item_id))
            if place is not None:
                found[row] = self._rows[place]
        return found


class GraphSignal(KeptSignal):
    """The place of items in a graph. An item that no edge named has the sum of the entities that its categories and further columns call by name or id: a
    new film with `"director": "Hayao Miyazaki"` stands where his films stand.

    Args:
        path, index_of, later: as of `KeptSignal`.
        nodes: the graph's names and labels, Parquet; their vectors lie beside `path`.
    """

    def __init__(self, path: Path, index_of: Mapping[str, int], later: Sequence[str], nodes: Path) -> None:
        super().__init__(path, index_of, later)
        self._entities: FloatArray = np.load(path.with_name("graph_entities.npy"), mmap_mode="r", allow_pickle=False)
        self._nodes = nodes
        self._named: dict[str, list[int]] | None = None

    def vectors(self, items: Sequence[Item]) -> FloatArray:
        """One row an item, float32 [n, W]; unit rows or zero."""
        found = super().vectors(items)
        for row in np.flatnonzero(~found.any(axis=1)).tolist():
            named = self._named_by(items[row])
            if named:
                total = self._entities[named].sum(axis=0)
                length = float(np.linalg.norm(total))
                found[row] = total / length if length > _NOTHING else 0.0
        return found

    def _named_by(self, item: Item) -> list[int]:
        """Entities that an item's attributes name."""
        if self._named is None:
            table, self._named = pl.read_parquet(self._nodes), {}
            for place, (name, label) in enumerate(table.iter_rows()):
                if not name.startswith(ITEM):
                    for word in {name.casefold(), name.removeprefix(ENTITY).casefold(), label.casefold()} - {""}:
                        self._named.setdefault(word, []).append(place)
        words = dict.fromkeys(word.strip().casefold() for word in [*item.categories, *_words(item.extra)][:_MOST_WORDS])
        return list(dict.fromkeys(place for word in words for place in self._named.get(word, ())))


def _words(extra: Mapping[str, Any]) -> list[str]:
    """Texts among an item's further columns, and in lists among them."""
    values = [value for given in extra.values() for value in (given if isinstance(given, list) else [given])]
    return [value for value in values if isinstance(value, str)]
