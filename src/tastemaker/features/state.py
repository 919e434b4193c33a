"""Everything that features remember right now: facts, and the content of each memory. It learns from live events, and rests in a folder."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.facts import Facts
from tastemaker.features.key import Columns, Key, event_columns
from tastemaker.features.memories.memory import Memory, Moment, Told
from tastemaker.features.past import Log
from tastemaker.features.rows import Rows
from tastemaker.features.which import Which


class State:
    """Live memories.

    Args:
        memories: which ones. facts: names and items; the state owns them from now on.
    """

    def __init__(self, memories: Sequence[Memory[Any]], facts: Facts) -> None:
        self.memories, self.facts = tuple(memories), facts
        self.contents = [memory.empty() for memory in self.memories]
        self._place = {memory: place for place, memory in enumerate(self.memories)}
        self._pairs = {memory.key: Pairs() for memory in self.memories if memory.key.paired}
        self._keys = list(dict.fromkeys(memory.key for memory in self.memories))
        groups: dict[tuple[int, Which], list[int]] = {}
        for place, memory in enumerate(self.memories):
            groups.setdefault((self._keys.index(memory.key), memory.which), []).append(place)
        self._groups = [(key, which, places) for (key, which), places in groups.items()]

    def learn(self, log: Log, ids: pl.DataFrame) -> None:
        """Fills empty memories from a whole log whose names these facts know."""
        for place, memory in enumerate(self.memories):
            line, key = log.line(memory), memory.key
            slots = self._pairs[key].add_all(line.codes) if key.paired else line.codes
            self.contents[place] = memory.batch(line, slots, ids)

    def update(self, rows: Rows, event_id: str, item_id: str) -> None:
        """Folds one event."""
        moment = Moment(float(rows.now[0]), int(rows.item[0]), float(rows.value[0]), event_id, item_id)
        columns = event_columns(rows, self.facts)
        known: dict[int, list[int]] = {}
        for key, which, places in self._groups:
            if which.labels and not which.mask(rows, self.facts.kind)[0]:
                continue
            slots = known.get(key)
            if slots is None:
                known[key] = slots = self._own(self._keys[key], columns)
            for place in places:
                memory, content = self.memories[place], self.contents[place]
                for slot in slots:
                    memory.update(content, slot, moment)

    def now(self) -> Now:
        """A source for a look at this moment."""
        return Now(self)

    def content(self, memory: Memory[Any]) -> Any:
        """The content of a memory."""
        return self.contents[self._place[memory]]

    def save(self, folder: Path) -> None:
        """Writes facts and contents into a folder; one Parquet file for each memory."""
        self.facts.save(folder)
        for place, (memory, content) in enumerate(zip(self.memories, self.contents, strict=True)):
            memory.pack(content).write_parquet(folder / f"memory_{place:02}.parquet")
        for place, pairs in enumerate(self._pairs.values()):
            pl.DataFrame({"code": np.array(pairs.codes, dtype=np.int64)}, schema={"code": pl.Int64}).write_parquet(
                folder / f"pairs_{place:02}.parquet"
            )

    @classmethod
    def load(cls, memories: Sequence[Memory[Any]], folder: Path, read_texts: bool) -> State:
        """Reads what `save` wrote for the same memories; `read_texts` as in `Facts`."""
        state = cls(memories, Facts.load(folder, read_texts))
        for place, memory in enumerate(state.memories):
            state.contents[place] = memory.unpack(pl.read_parquet(folder / f"memory_{place:02}.parquet"))
        for place, pairs in enumerate(state._pairs.values()):
            pairs.add_all(pl.read_parquet(folder / f"pairs_{place:02}.parquet")["code"].to_numpy())
        return state

    def _slots(self, key: Key, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of codes, -1 for those that were never met."""
        if not key.paired:
            return codes
        return self._pairs[key].find(codes)

    def _own(self, key: Key, columns: Columns) -> list[int]:
        """Slots of one event's codes; pairs that are new get one."""
        codes = key.event_codes(columns)
        return self._pairs[key].add(codes) if key.paired else codes


class Pairs:
    """Pairs that met and their slots, by first and second: a user's pairs lie together, as a request asks for one user.

    Pairs that came at once rest in arrays until an event of their first comes.

    Attributes:
        codes: first · 2³² + second, in the order of slots.
    """

    def __init__(self) -> None:
        self.codes = array("q")
        self._slots: dict[int, dict[int, int]] = {}
        self._resting: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # slots, by first
        self._begin: NDArray[np.int64] = np.zeros(1, dtype=np.int64)  # of each first, in these

    def add_all(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of different codes, int64 [m]; new ones get one."""
        if self.codes:
            same = len(codes) == len(self.codes) and bool((np.frombuffer(self.codes, dtype=np.int64) == codes).all())
            return np.arange(len(codes)) if same else np.array(self.add(codes.tolist()), dtype=np.int64)
        self.codes = array("q", np.ascontiguousarray(codes, dtype=np.int64).tobytes())
        firsts = codes >> 32
        self._resting = np.argsort(firsts, kind="stable")
        self._begin = np.concatenate([[0], np.cumsum(np.bincount(firsts, minlength=1))])
        return np.arange(len(codes))

    def add(self, codes: list[int]) -> list[int]:
        """Slots of codes; new ones get one."""
        found = []
        for code in codes:
            seconds = self._slots.get(code >> 32)
            if seconds is None:
                seconds = self._slots[code >> 32] = self._rests(code >> 32)
            slot = seconds.setdefault(code & 0xFFFFFFFF, len(self.codes))
            if slot == len(self.codes):
                self.codes.append(code)
            found.append(slot)
        return found

    def find(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of codes, int64 [m]; -1 for those that were never met and for -1."""
        firsts, seconds = codes >> 32, (codes & 0xFFFFFFFF).tolist()
        if len(codes) and (firsts == firsts[0]).all():
            own = self._of(int(firsts[0]))
            found = [own.get(second, -1) for second in seconds] if own else [-1] * len(seconds)
        else:
            of = {first: self._of(first) for first in set(firsts.tolist())}
            found = [of[first].get(second, -1) for first, second in zip(firsts.tolist(), seconds, strict=True)]
        return np.array(found, dtype=np.int64)

    def _of(self, first: int) -> dict[int, int]:
        """Slots by second, not to be written to."""
        found = self._slots.get(first)
        return self._rests(first) if found is None else found

    def _rests(self, first: int) -> dict[int, int]:
        if not 0 <= first < len(self._begin) - 1:
            return {}
        slots = self._resting[self._begin[first] : self._begin[first + 1]].tolist()
        return {self.codes[slot] & 0xFFFFFFFF: slot for slot in slots}


class Now:
    """What memories tell right now: the road of requests. One object for each request."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._slots: dict[Key, NDArray[np.int64]] = {}

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What a memory knows of codes at moments, [m]."""
        if memory.key not in self._slots:
            self._slots[memory.key] = self._state._slots(memory.key, codes)
        return memory.read(self._state.content(memory), self._slots[memory.key], now)
