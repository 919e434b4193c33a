"""What was computed of an array that nobody can write to, kept for as long as the same array is asked about."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
FILTERS = 4
"""Filters of requests whose looks at the whole catalogue are kept: the same ones come again and again."""
KEPT_BYTES = 1 << 26
"""Bytes of arrays as long as the catalogue that are kept of one kind, in a process, as far as four of them fit."""


def unwritten(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which nobody can write to from now on."""
    array.flags.writeable = False
    return array


class OfLatest(Generic[T]):
    """Computes something of an array, or of several, and not again while the same ones are given and can't be written to: a look at a whole catalogue is made once, not
    once a request.

    Args:
        compute: called with the arrays. kept: for so many different ones what was found is kept, those that were asked about last.
    """

    def __init__(self, compute: Callable[..., T], kept: int = 1) -> None:
        self._compute = compute
        self._kept = kept
        self._latest: tuple[tuple[tuple[NDArray[Any], ...], T], ...] = ()  # replaced in one go, as threads ask side by side

    def __call__(self, *arrays: NDArray[Any]) -> T:
        """What is computed of these."""
        latest = self._latest
        for place, (known, found) in enumerate(latest):
            if known[0] is arrays[0] and all(map(is_, known, arrays)):
                if place:
                    self._latest = (latest[place], *latest[:place], *latest[place + 1 :])
                return found
        found = self._compute(*arrays)
        if not any(array.flags.writeable for array in arrays):
            self._latest = ((arrays, found), *self._latest[: self._kept - 1])
        return found


def kept_of(size: int) -> int:
    """How many arrays of so many bytes are kept: those that `KEPT_BYTES` hold, but at least 4 and at most 64."""
    return min(max(KEPT_BYTES // max(size, 1), 4), 64)


def any_of(array: NDArray[np.bool_]) -> bool:
    """Whether something is true."""
    return bool(array.any())
