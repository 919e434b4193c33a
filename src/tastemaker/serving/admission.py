"""How often a key may ask: a sliding window over all workers, counted without locks.

Every worker has a row of its own in one small memory-mapped file and writes nowhere else; what a key has done is the sum over the
rows. A killed worker leaves no lock behind, and the one that takes its place takes its row.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path

from tastemaker.schema.errors import TastemakerError
from tastemaker.serving.auth import MOST_KEYS

WINDOW = 10.0
"""Seconds: a key may spend the rate of this time at once."""
_CELL = struct.Struct("qqq")  # number of the window, requests in it, requests in the one before
_ROW = MOST_KEYS * _CELL.size


class TooMany(TastemakerError):
    """A key asked more often than it may; `wait` is in seconds."""

    def __init__(self, wait: int, rate: float) -> None:
        super().__init__(f"More than {rate:g} requests per second were made with this key. Try again in {wait} s.")
        self.wait = wait


class Admission:
    """Counts requests by key.

    Args:
        path: the file that all workers share, made by `share`; None: this worker is alone.
        worker: the row of this one. rate: requests per second of keys that have no rate of their own; 0: no limit.
    """

    def __init__(self, path: Path | None = None, worker: int = 0, rate: float = 0.0) -> None:
        self._rate, self._begin = rate, worker * _ROW
        if path is None:
            self._cells = mmap.mmap(-1, _ROW)
        else:
            with path.open("r+b") as file:
                self._cells = mmap.mmap(file.fileno(), 0)
        self._workers = len(self._cells) // _ROW

    def take(self, slot: int, rate: float | None = None, now: float | None = None) -> None:
        """Counts one request.

        Args:
            slot: of the key; 0: nobody's. rate: the key's own, requests per second. now: epoch seconds.

        Raises:
            TooMany: it is one too many, and was not counted.
        """
        rate = self._rate if rate is None else rate
        if not rate:
            return
        window, share = divmod((time.time() if now is None else now) / WINDOW, 1.0)
        current, before = self._sums(slot, int(window))
        limit = max(rate * WINDOW, 1.0)
        if current + before * (1 - share) > limit - 1:
            raise TooMany(_wait(current, before, share, limit - 1), rate)
        at = self._begin + slot * _CELL.size
        cell = self._now(at, int(window))
        _CELL.pack_into(self._cells, at, int(window), cell[0] + 1, cell[1])

    def _sums(self, slot: int, window: int) -> tuple[int, int]:
        current = before = 0
        for worker in range(self._workers):
            cell = self._now(worker * _ROW + slot * _CELL.size, window)
            current, before = current + cell[0], before + cell[1]
        return current, before

    def _now(self, at: int, window: int) -> tuple[int, int]:
        """A cell as it is in a window: its requests and those of the window before."""
        number, current, before = _CELL.unpack_from(self._cells, at)
        if number == window:
            return current, before
        return 0, (current if number == window - 1 else 0)


def share(path: Path, workers: int) -> Path:
    """Makes the empty file that workers share; call it before they start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.truncate(workers * _ROW)
    return path


def share_here(path: Path, workers: int) -> Path:
    """The same file where a process may be the first one of its machine, or not: a replica on a cluster does not know."""
    if not path.is_file():
        made = share(path.with_name(f"{path.name}.{os.getpid()}"), workers)
        with suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
    return path


def _wait(current: int, before: int, share: float, most: float) -> int:
    """Whole seconds until a further request fits, if none comes until then."""
    if current > most:  # not in this window any more
        return max(1, math.ceil((2 - most / current - share) * WINDOW))
    faded = 1 - (most - current) / before  # the share of this window at which the one before counts little enough
    return max(1, math.ceil((faded - share) * WINDOW))
