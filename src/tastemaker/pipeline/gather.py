"""Calls side by side with a common deadline: what is late or fails is left out, and said so.

Calls run in threads that wait for work all the time. As long as all goes well few threads do everything, one call after the other; when half of the
time has gone, every call that still waits gets a thread of its own, so that it does not fall with a slow one. A call that was late is not made again
before it has come back: a hanging source costs one thread, not one a request.

Waking a thread and a core costs 50 to 100 microseconds, a tenth of a whole answer. Calls that only compute over memory can't hang, so they may earn trust:
after some quick calls in a row they are made where they are asked for, until one is slow.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
QUICK, TRUSTED = 0.1, 50
"""Share of the deadline within which a call is quick, and how many quick ones in a row make it trusted."""
LATE, FAILED = "late", "failed"
_TOLD_SECONDS = 10.0
"""A fault is written to the log at most once in so many seconds."""
_told: dict[str, float] = {}


class Gatherer:
    """Makes calls by name.

    Args:
        seconds: what they have together; 0: as long as they need, one after the other.
        lanes: threads that share the calls from the start; more than one is worth it where cores are idle and calls are long.
        memory: all calls compute over memory alone, and may earn trust.

    Attributes:
        spent: seconds of the processor that calls took in other threads than the caller's, since the beginning.
    """

    def __init__(self, seconds: float, lanes: int = 1, memory: bool = False) -> None:
        self.seconds, self._lanes, self._memory = seconds, lanes, memory
        self._quick: dict[str, int] = {}
        self.spent = 0.0
        self._lock, self._out = threading.Lock(), set[str]()

    def run(self, calls: Mapping[str, Callable[[], T]]) -> tuple[dict[str, T], dict[str, str]]:
        """What came back in time, and for each other call `late` or `failed`."""
        if self.seconds <= 0:
            return _in_turn(calls)
        if self._memory and self._lanes == 1:
            quick = self._quick
            for name in calls:
                if quick.get(name, 0) < TRUSTED:
                    return self._handed(calls)
            return _in_turn(calls, self._timed)
        return self._handed(calls)

    def _worked(self, seconds: float) -> None:
        self.spent += seconds

    def _timed(self, name: str, seconds: float) -> None:
        self._quick[name] = self._quick.get(name, 0) + 1 if seconds < QUICK * self.seconds else 0

    def _handed(self, calls: Mapping[str, Callable[[], T]]) -> tuple[dict[str, T], dict[str, str]]:
        batch = _Batch({name: call for name, call in calls.items() if name not in self._out}, self._back, self._timed, self._worked)
        if batch.total:
            for _ in range(min(self._lanes, batch.total)):
                _lane().put(batch)
            if not batch.wait(self.seconds / 2):
                for _ in range(len(batch.waiting)):
                    _lane().put(batch)
                batch.wait(self.seconds / 2)
        missing = dict.fromkeys(batch.failed, FAILED)
        if len(batch.done) + len(batch.failed) < len(calls):
            with self._lock:
                batch.closed = True
                missing = dict.fromkeys(batch.failed, FAILED)
                self._out.update(name for name in batch.under_way if name not in batch.done and name not in batch.failed)
            missing |= {name: LATE for name in calls if name not in batch.done and name not in missing}
        for name in missing:
            tell(name, missing[name], batch.failed.get(name))
        return {name: batch.done[name] for name in calls if name in batch.done and name not in missing}, missing

    def one(self, name: str, call: Callable[[], T]) -> tuple[T | None, str | None]:
        """What a single call gives, or None and why."""
        if self.seconds > 0 and not (self._memory and self._lanes == 1 and self._quick.get(name, 0) >= TRUSTED):
            done, missing = self._handed({name: call})
            return done.get(name), missing.get(name)
        began, found, why = time.perf_counter(), None, None
        try:
            found = call()
        except Exception as error:
            why = FAILED
            tell(name, FAILED, error)
        if self.seconds > 0:
            self._timed(name, time.perf_counter() - began)
        return found, why

    def _back(self, name: str) -> None:
        with self._lock:
            self._out.discard(name)


class _Batch(Generic[T]):
    """Calls under way. `closed`: nobody waits for them any more."""

    def __init__(
        self,
        calls: Mapping[str, Callable[[], T]],
        back: Callable[[str], None],
        timed: Callable[[str, float], None],
        worked: Callable[[float], None],
    ) -> None:
        self.waiting, self.total, self._back, self._timed, self._worked = deque(calls.items()), len(calls), back, timed, worked
        self.done: dict[str, T] = {}
        self.failed: dict[str, Exception] = {}
        self.under_way: list[str] = []
        self.closed, self._all = False, SimpleQueue[None]()

    def work(self) -> None:
        """Takes calls until none waits."""
        while not self.closed:
            try:
                name, call = self.waiting.popleft()
            except IndexError:
                return
            self.under_way.append(name)
            began, busy = time.perf_counter(), time.thread_time()
            try:
                self.done[name] = call()
            except Exception as error:  # a source that breaks takes nobody along
                self.failed[name] = error
            self._worked(time.thread_time() - busy)
            self._timed(name, time.perf_counter() - began)
            if self.closed:
                self._back(name)
            elif len(self.done) + len(self.failed) == self.total:
                self._all.put(None)

    def wait(self, seconds: float) -> bool:
        """Whether all calls have come back."""
        try:
            self._all.get(timeout=seconds)
        except Empty:
            return False
        return True


class _Lane:
    """A thread that waits for work."""

    def __init__(self) -> None:
        self._inbox = SimpleQueue[_Batch[object]]()
        threading.Thread(target=self._loop, name="road", daemon=True).start()

    def put(self, batch: _Batch[T]) -> None:
        """Work on this."""
        self._inbox.put(batch)  # type: ignore[arg-type]

    def _loop(self) -> None:
        while True:
            self._inbox.get().work()
            _idle.append(self)


_idle: deque[_Lane] = deque()


def _lane() -> _Lane:
    try:
        return _idle.pop()
    except IndexError:
        return _Lane()


def _in_turn(
    calls: Mapping[str, Callable[[], T]], timed: Callable[[str, float], None] = lambda name, seconds: None
) -> tuple[dict[str, T], dict[str, str]]:
    done: dict[str, T] = {}
    missing: dict[str, str] = {}
    began = time.perf_counter()
    for name, call in calls.items():
        try:
            done[name] = call()
        except Exception as error:
            missing[name] = FAILED
            tell(name, FAILED, error)
        ended = time.perf_counter()
        timed(name, ended - began)
        began = ended
    return done, missing


def tell(name: str, why: str, error: Exception | None) -> None:
    """Writes a fault to the standard error, now and then."""
    now = time.monotonic()
    if now - _told.get(name, -_TOLD_SECONDS) < _TOLD_SECONDS:
        return
    _told[name] = now
    detail = "" if error is None else ":\n" + "".join(traceback.format_exception(error)).rstrip()
    print(f"the request road goes on without {name!r}, which was {why}{detail}", file=sys.stderr, flush=True)
