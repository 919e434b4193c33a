"""The signals of new items besides their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash

from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray

_LOOKED_AT = 1_000


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
        self._index_of = {**index_of, **{item: begin + place for place, item in enumerate(later)}}
        some = self._rows[:: max(len(self._rows) // _LOOKED_AT, 1)]  # another training gives another space
        self.version = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(some).tobytes())

    def vectors(self, items: Sequence[Item]) -> FloatArray:
        """One row an item, float32 [n, W]."""
        found = np.zeros((len(items), self._rows.shape[1]), dtype=np.float32)
        for row, item in enumerate(items):
            place = self._index_of.get(item.item_id)
            if place is not None:
                found[row] = self._rows[place]
        return found
