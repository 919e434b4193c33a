"""What was computed of an array that nobody can write to, kept for as long as the same array is asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def unwritten(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, which nobody can write to from now on."""
    array.flags.writeable = False
    return array


class OfLatest(Generic[T]):
    """Computes something of an array, and not again while the same one is given and can't be written to: a look at a whole catalogue is made once, not once a request.

    Args:
        compute: called with an array.
    """

    def __init__(self, compute: Callable[[NDArray[Any]], T]) -> None:
        self._compute = compute
        self._latest: tuple[NDArray[Any], T] | None = None

    def __call__(self, array: NDArray[Any]) -> T:
        """What is computed of this one."""
        latest = self._latest
        if latest is not None and latest[0] is array:
            return latest[1]
        found = self._compute(array)
        if not array.flags.writeable:
            self._latest = array, found
        return found


def any_of(array: NDArray[np.bool_]) -> bool:
    """Whether something is true."""
    return bool(array.any())


def all_of(array: NDArray[np.bool_]) -> bool:
    """Whether everything is true."""
    return bool(array.all())
