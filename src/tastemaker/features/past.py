"""What memories tell of moments of the past, out of a whole log: the road of training rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.facts import Facts
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Memory, Told, moved
from tastemaker.features.memories.tally import Counted
from tastemaker.features.rows import Rows
from tastemaker.features.timeline import Asked, Clock, Timeline
from tastemaker.features.which import Which

Question = tuple[Key, Which, float]
"""What memories with one timeline have in common: key, events, step."""


class _Clocks:
    """Clocks of a log by step, each made once. Timelines hold these and not the log, which holds them: arrays in a ring are freed late."""

    def __init__(self, now: NDArray[np.float64]) -> None:
        self._now = now
        self._made: dict[float, Clock] = {}

    def of(self, step: float) -> Clock:
        """The log's clock of this step."""
        if step not in self._made:
            self._made[step] = Clock(self._now, step)
        return self._made[step]


class Log:
    """A whole log, sorted on demand by each key that a memory has.

    Args:
        in_time: whether, among events of any one key, the rows stand in order of time already.

    Attributes:
        orders: rows in the order of a key and time, for keys under which each row has one code; found once for all memories of the key.
    """

    def __init__(self, facts: Facts, events: Rows, in_time: bool = False) -> None:
        self.facts, self.rows, self._in_time = facts, events, in_time
        self.orders: dict[Key, NDArray[np.int64]] = {}
        self._lines: dict[Question, Timeline] = {}
        self._clocks = _Clocks(events.now)

    def line(self, memory: Memory[object]) -> Timeline:
        """The events that a memory takes, by its key, in order of time."""
        question = (memory.key, memory.which, memory.step)
        if question not in self._lines:
            codes, source = memory.key.codes(self.rows, self.facts)
            if memory.which.labels:
                taken = memory.which.mask(self.rows, self.facts.kind)
                taken = taken if source is None else taken[source]
                codes, source = codes[taken], np.flatnonzero(taken) if source is None else source[taken]
            order = None if memory.which.labels else self.orders.get(memory.key)
            place = self._sorted(source) if order is None else None
            line = Timeline(codes, source, self.rows, memory.step, partial(self._clocks.of, memory.step), place, order)
            self._lines[question] = line
            if source is None and len(line.entry) == len(codes):
                self.orders[memory.key] = line.entry
        return self._lines[question]

    @cached_property
    def _place(self) -> NDArray[np.int64] | None:
        """Place of each row in the order of (time, order); None where the rows stand so already."""
        now, order = self.rows.now, self.rows.order
        if self._in_time or ((now[1:] > now[:-1]) | ((now[1:] == now[:-1]) & (order[1:] >= order[:-1]))).all():
            return None
        place = np.empty(len(now), dtype=np.int64)
        place[np.lexsort((order, now))] = np.arange(len(now))
        return place

    def _sorted(self, source: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Places of entries, which are rows of the log, in order of time."""
        if self._place is None:
            return None
        return np.argsort(self._place if source is None else self._place[source], kind="stable")


class Past:
    """Answers of a log at the moments of some rows. One object for each batch of rows.

    Args:
        before: what each memory held before the log began, where the log goes on from another one.
    """

    def __init__(self, log: Log, before: Mapping[Memory[Any], Any] | None = None) -> None:
        self._log, self._before = log, before or {}
        self._asked: dict[Question, Asked] = {}

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What a memory knew of codes at moments, [m]."""
        question = (memory.key, memory.which, memory.step)
        if question not in self._asked:
            self._asked[question] = self._log.line(memory).ask(codes, now)
        return memory.as_of(self._asked[question], self._before.get(memory))


class OwnPast(Past):
    """Answers of a log at the moments of its own events: found in the order of each line, where memory is read in one direction, and put back."""

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What a memory knew of the log's codes at its moments, [m]."""
        line = self._log.line(memory)
        if memory.which.labels or len(line.entry) < len(codes):
            return super().tell(memory, codes, now)
        question = (memory.key, memory.which, memory.step)
        if question not in self._asked:
            self._asked[question] = line.ask_itself()
        told = memory.as_of(self._asked[question], self._before.get(memory))
        return told if line.stands else _moved(told, line.entry)


def _moved(told: Any, places: NDArray[np.int64]) -> Any:
    """What a memory told in another order, brought to its places."""
    if isinstance(told, Counted):
        return told.moved(places)
    if isinstance(told, tuple):
        return type(told)(*(_moved(part, places) for part in told))
    return moved(told, places)
