"""The numbers of a feature set for every event of a log that no memory holds: the log is cut twice.

1. By time. In a slice, memories that are not kept by user (of items, groups, everything) tell what earlier slices left in them and what the slice
   itself adds; features that need no others are done. What a slice leaves is found first (`contents`), put together in order (`Memory.joined`), and given to
   the slices (`of_slice`), which need not run in order.
2. By users. Whole histories lie together, so memories that are kept by user tell all (`of_users`).

Formulas and memories are those of `FeatureSet.rows`: a row gets the same number. It must never know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.base import Look
from tastemaker.features.declare import Declared
from tastemaker.features.facts import Facts
from tastemaker.features.memories.holders import holders
from tastemaker.features.memories.memory import Memory, Told
from tastemaker.features.memories.tally import COUNTS, Counted
from tastemaker.features.past import Log, OwnPast, Past
from tastemaker.features.rows import Rows
from tastemaker.schema.columns import Columns

Arrays = list[NDArray[Any]]


class Parts:
    """A feature set over a log in parts.

    Args:
        declared: the features. facts: of the catalogue, with all names of the log.
        devices: slots of the log's devices. most: rows whose text vectors are read at once.

    Attributes:
        devices: slots of the log's devices, and -1 behind them, so that -1 reads it.
        carried: memories that are not kept by user and whose content is their own (`holders`); what a slice leaves of them is handed on.
        sent: memories that are not kept by user and that features of users need too; what they tell travels from the slices to the users.
        early, late: names of the columns that slices and users give.
    """

    def __init__(self, declared: Sequence[Declared], facts: Facts, devices: NDArray[np.int64], most: int) -> None:
        self._facts, self.devices, self._most = facts, np.append(devices, -1), most
        self._early = [one for one in declared if not any(_by_user(memory) for memory in one.feature.remembers)]
        self._late = [one for one in declared if one not in self._early]
        self.early, self.late = ([name for one in part for name in one.names] for part in (self._early, self._late))
        memories = dict.fromkeys(memory for one in declared for memory in one.feature.remembers)
        self._held = holders(memory for memory in memories if not _by_user(memory))
        self.carried: list[Memory[Any]] = list(dict.fromkeys(self._held.values()))
        needed = {memory for one in self._late for memory in one.feature.remembers}
        self.sent: list[Memory[Any]] = [memory for memory in self._held if memory in needed]

    def log(self, events: Rows) -> Log:
        """The events of one slice in order of time, or of some users, all that they ever did, by user and in order of time."""
        return Log(self._facts, events, in_time=True)

    def contents(self, log: Log) -> list[Any]:
        """What the events of one slice leave in the carried memories."""
        lines = [log.line(memory) for memory in self.carried]
        return [memory.batch(line, line.codes, pl.DataFrame()) for memory, line in zip(self.carried, lines, strict=True)]

    def asked(self, log: Log) -> list[NDArray[np.int64]]:
        """The slots that the events of one slice ask each of the carried memories for."""
        found = []
        for memory in self.carried:
            codes = memory.key.codes(log.rows, self._facts)[0]
            met = np.zeros(int(codes.max(initial=-1)) + 1, dtype=bool)
            met[codes[codes >= 0]] = True
            found.append(np.flatnonzero(met))
        return found

    def of_slice(self, log: Log, before: Sequence[Any]) -> tuple[NDArray[np.float32], list[Arrays]]:
        """The early columns, float32 [early, n], and what each of the sent memories tells.

        Args:
            log: of one slice. before: what the carried memories hold before it.
        """
        contents = dict(zip(self.carried, before, strict=True))
        source = OwnPast(log, {memory: contents[holder] for memory, holder in self._held.items()})
        look = Look(log.rows, self._facts, source)
        return numbers(self._early, look), [_arrays(look(memory)) for memory in self.sent]

    def of_users(self, log: Log, told: Sequence[Arrays]) -> NDArray[np.float32]:
        """The late columns, float32 [late, n].

        Args:
            log: of some users. told: by each of the sent memories, for its rows.
        """
        events = log.rows
        look = Look(events, self._facts, _UserPast(log, dict(zip(self.sent, map(_told, told), strict=True))))
        found = np.empty((len(self.late), len(events)), dtype=np.float32)
        place = 0
        for one in self._late:
            there = slice(place, place + len(one.names))
            if Columns.TEXT in one.feature.reads:
                for begin in range(0, len(events), self._most):
                    part = slice(begin, begin + self._most)
                    found[there, part] = numbers([one], Look(events.part(part), self._facts, Past(log)))
            else:
                found[there] = numbers([one], look)
            place = there.stop
        return found

    def owners(self, events: Rows) -> list[NDArray[np.int64] | None]:
        """For each of the sent memories the row that each of its answers is for; None: one answer a row."""
        return [memory.key.codes(events, self._facts)[1] for memory in self.sent]


class _UserPast(OwnPast):
    """Memories by user from whole histories; the others have been told."""

    def __init__(self, log: Log, told: Mapping[Memory[Any], Any]) -> None:
        super().__init__(log)
        self._told = told

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """As told, else from the histories."""
        known: Told | None = self._told.get(memory)
        return super().tell(memory, codes, now) if known is None else known


def numbers(declared: Sequence[Declared], look: Look, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """The numbers of some features, float32 [F, n]; those of features none of whose columns is `wanted` (bool [F]) are not looked up and are 0."""
    found = np.zeros((sum(len(one.names) for one in declared), len(look.rows)), dtype=np.float32)
    place = 0
    for one in declared:
        if wanted is not None and not wanted[place : place + len(one.names)].any():
            place += len(one.names)
            continue
        for column in one.feature.gives(look):
            found[place] = column
            place += 1
    return found


def _by_user(memory: Memory[Any]) -> bool:
    return "user" in memory.key.by


def _arrays(told: Any) -> Arrays:
    return [getattr(told, name) for name in COUNTS] if isinstance(told, Counted) else [told]


def _told(arrays: Arrays) -> Any:
    if len(arrays) == 1:
        return arrays[0]
    return Counted(**{name: (lambda values=values: values) for name, values in zip(COUNTS, arrays, strict=True)})
