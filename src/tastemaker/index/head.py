"""The first items of an order of all items, made once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.exact import top
from tastemaker.index.open_items import Open
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.unwritten import FILTERS, OfLatest

HEAD = 4_096
"""Items of an order that is made once."""
_NONE = np.zeros(0, dtype=np.int64)


class Head:
    """The first items of an order that hardly ever changes."""

    def __init__(self) -> None:
        self._first, self._of = _NONE, -1
        self._of_filter = OfLatest(self._best_of, FILTERS)
        self._values: Callable[[], FloatArray] = lambda: np.zeros(0, np.float32)

    def _best_of(self, listed: NDArray[np.int64]) -> NDArray[np.int64]:
        best: NDArray[np.int64] = listed[top(self._values()[listed][None], HEAD)[0]]
        return best

    def best(self, n: int, values: Callable[[], FloatArray], lane: int, open_: Open, depth: int) -> NDArray[np.int64]:
        """The `depth` items with the largest values that a query may find, as keys; `values` gives those of all `n` items."""
        if open_.listed is not None:
            self._values = values
            first = self._of_filter(open_.listed)
            found = open_.first(lane, first[: depth + len(open_.away[lane])], depth)
            return found if len(found) == depth or len(first) == len(open_.listed) else open_.best(lane, values(), depth)
        if self._of < 0 or (self._of != n and len(self._first) < HEAD):
            self._first, self._of = top(values()[None], HEAD)[0], n
        enough = depth + len(open_.away[lane]) if open_.allowed is None else len(self._first)
        found = open_.first(lane, self._first[:enough], depth)
        return found if len(found) == depth else open_.best(lane, values(), depth)
