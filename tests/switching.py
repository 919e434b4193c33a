"""Threads that change places as often as Python lets them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(call: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
    """What each call gives, three at a time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(call, arguments))
    finally:
        sys.setswitchinterval(before)
