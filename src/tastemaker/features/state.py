"""Everything that features remember right now: facts, and the content of each memory. It learns from live events, and rests in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.facts import Facts
from tastemaker.features.key import Columns, Key, event_columns
from tastemaker.features.memories.holders import holders
from tastemaker.features.memories.memory import Memory, Moment, Told
from tastemaker.features.pairs import Pairs
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
        self._place = {memory: self.memories.index(holder) for memory, holder in holders(self.memories).items()}
        self._written = sorted(set(self._place.values()))
        self._pairs = {memory.key: Pairs() for memory in self.memories if memory.key.paired}
        self._keys = list(dict.fromkeys(memory.key for memory in self.memories))
        groups: dict[tuple[int, Which], list[int]] = {}
        for place in self._written:
            memory = self.memories[place]
            groups.setdefault((self._keys.index(memory.key), memory.which), []).append(place)
        self._groups = [(key, which, places) for (key, which), places in groups.items()]

    def learn(self, log: Log, ids: pl.DataFrame) -> None:
        """Fills empty memories from a whole log whose names these facts know."""
        for place in self._written:
            memory = self.memories[place]
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
        """The content that a memory reads: its own, or its holder's."""
        return self.contents[self._place[memory]]

    def save(self, folder: Path) -> None:
        """Writes facts and contents into a folder; one Parquet file for each memory with a content of its own."""
        self.facts.save(folder)
        for place in self._written:
            self.memories[place].pack(self.contents[place]).write_parquet(folder / f"memory_{place:02}.parquet")
        for place, pairs in enumerate(self._pairs.values()):
            pl.DataFrame({"code": pairs.codes}, schema={"code": pl.Int64}).write_parquet(folder / f"pairs_{place:02}.parquet")

    @classmethod
    def load(cls, memories: Sequence[Memory[Any]], folder: Path, read_texts: bool) -> State:
        """Reads what `save` wrote for the same memories; `read_texts` as in `Facts`."""
        state = cls(memories, Facts.load(folder, read_texts))
        for place in state._written:
            state.contents[place] = state.memories[place].unpack(pl.read_parquet(folder / f"memory_{place:02}.parquet"))
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
