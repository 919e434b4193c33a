"""What memories tell of moments of the past, out of a whole log: the road of training rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.facts import Facts
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Memory, Told
from tastemaker.features.rows import Rows
from tastemaker.features.timeline import Asked, Clock, Timeline
from tastemaker.features.which import Which

Question = tuple[Key, Which, float]
"""What memories with one timeline have in common: key, events, step."""


class Log:
    """A whole log, sorted on demand by each key that a memory has."""

    def __init__(self, facts: Facts, events: Rows) -> None:
        self.facts, self.rows = facts, events
        self._lines: dict[Question, Timeline] = {}
        self._clocks: dict[float, Clock] = {}

    def line(self, memory: Memory[object]) -> Timeline:
        """The events that a memory takes, by its key, in order of time."""
        question = (memory.key, memory.which, memory.step)
        if question not in self._lines:
            if memory.step not in self._clocks:
                self._clocks[memory.step] = Clock(self.rows.now, memory.step)
            codes, owner = memory.key.codes(self.rows, self.facts)
            source = np.arange(len(self.rows)) if owner is None else owner
            if memory.which.labels:
                taken = memory.which.mask(self.rows, self.facts.kind)[source]
                codes, source = codes[taken], source[taken]
            self._lines[question] = Timeline.of(codes, source, self.rows, self._clocks[memory.step])
        return self._lines[question]


class Past:
    """Answers of a log at the moments of some rows. One object for each batch of rows."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._asked: dict[Question, Asked] = {}

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What a memory knew of codes at moments, [m]."""
        question = (memory.key, memory.which, memory.step)
        if question not in self._asked:
            self._asked[question] = self._log.line(memory).ask(codes, now)
        return memory.as_of(self._asked[question])
