"""All features of a recommender as one table of numbers: of the past for training, of this moment for answers.

features = FeatureSet.declared(settings.features.use, items)
numbers = features.rows(events, queries)          # training: float32 [Q, F], each row as of its own time
state = features.remember(events)                 # what a service starts from; save and load it with the bundle
features.update(state, event)                     # all day long
numbers = features.gives(state, FeatureQuery("u1", ["i1", "i2"], now=time.time()))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.base import FeatureQuery, Look
from tastemaker.features.declare import Declared, declare_all
from tastemaker.features.facts import Facts, tied_ids
from tastemaker.features.memories.latest import Latest
from tastemaker.features.memories.memory import Memory
from tastemaker.features.parts import Parts, numbers
from tastemaker.features.past import Log, Past
from tastemaker.features.state import State
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import BundleError, InputError, SettingsError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray

FORMAT = 1
"""Version of the folder that `save` writes."""
PART = 32_768
"""Rows that are computed at once."""
WIDEST = 60_000_000
"""Numbers that a part may gather of text vectors: with wide vectors the parts become smaller."""


class FeatureSet:
    """Declared features over a catalogue. It does not change; what changes is the `State` that it gives.

    Attributes:
        texts: the features as declared, defaults left out.
        names: of the columns, F.
        ordered: whether events at one time must be told apart. devices: whether contexts are read.
    """

    def __init__(self, declared: Sequence[Declared], facts: Facts, read: Callable[[], Facts] | None = None) -> None:
        self._declared, self._read = list(declared), read or (lambda: facts)
        self.texts = [one.text for one in declared]
        self.names = [name for one in declared for name in one.names]
        self._memories: list[Memory[Any]] = list(dict.fromkeys(memory for one in declared for memory in one.feature.remembers))
        self.ordered = any(isinstance(memory, Latest) for memory in self._memories)
        self.devices = any(Columns.CONTEXT in one.feature.reads for one in declared)
        lengths = [memory.length for memory in self._memories if isinstance(memory, Latest)]
        self._part = max(min(PART, WIDEST // (facts.vectors.width * max(lengths, default=1))), 256)

    @cached_property
    def _facts(self) -> Facts:
        """The catalogue: of a loaded set it is read when it is asked for, as a service only asks for its state's."""
        return self._read()

    @property
    def personal(self) -> NDArray[np.bool_]:
        """Which columns remember nothing of what other people did, bool [F]."""
        kinds = [all("user" in memory.key.by for memory in one.feature.remembers) for one in self._declared]
        return np.array([kind for kind, one in zip(kinds, self._declared, strict=True) for _ in one.names], dtype=bool)

    @property
    def remembering(self) -> NDArray[np.bool_]:
        """Which columns change with what happens, as they remember it, bool [F]; the others tell of the catalogue and the context."""
        return np.array([bool(one.feature.remembers) for one in self._declared for _ in one.names], dtype=bool)

    @property
    def grouped(self) -> NDArray[np.bool_]:
        """Which columns are kept by category or brand, bool [F]: an event stays filed under those that its item had when it came."""
        of = [any({"category", "brand"} & set(memory.key.by) for memory in one.feature.remembers) for one in self._declared]
        return np.array([kind for kind, one in zip(of, self._declared, strict=True) for _ in one.names], dtype=bool)

    @classmethod
    def declared(
        cls,
        texts: Sequence[str],
        items: pl.DataFrame | None = None,
        text_vectors: FloatArray | None = None,
        item_ids: Sequence[str] | None = None,
    ) -> FeatureSet:
        """Features by their texts.

        Args:
            texts: such as `item_events(window=7d)`; `settings.features.use`.
            items: the catalogue, with the journal's columns; only `item_id` must be there.
            text_vectors: of items, float32 [N, T].
            item_ids: whose they are, [N]; those of `items`, in order, if not given.

        Raises:
            SettingsError: a feature can't be read. InputError: vectors and ids do not belong together.
        """
        declared = declare_all(texts)
        if not declared:
            raise SettingsError(
                "No features are declared. Name some in [features] use, or leave the line out for the default ones."
            )
        facts = Facts(0 if text_vectors is None else text_vectors.shape[1], _reads_texts(declared))
        if items is not None:
            facts.put_items(items)
        if text_vectors is not None:
            if item_ids is None and items is not None:
                item_ids = items[Columns.ITEM_ID].to_list()
            if item_ids is None or len(item_ids) != len(text_vectors):
                raise InputError(
                    f"{len(text_vectors)} text vectors and {0 if item_ids is None else len(item_ids)} item ids came; expected one id each."
                )
            slots = np.array([facts.item.add(item_id) for item_id in item_ids], dtype=np.int64)
            facts.put_vectors(slots, np.asarray(text_vectors, dtype=np.float32))
        return cls(declared, facts)

    @property
    def item_ids(self) -> list[str]:
        """Names of the items that the catalogue knows, by slot."""
        return list(self._facts.item)

    def rows(self, events: pl.DataFrame, queries: pl.DataFrame) -> NDArray[np.float32]:
        """Numbers of the past, float32 [Q, F]: what would have been given at each row's time. A row sees events with an earlier time only; a row
        without a time sees none.

        Args:
            events: the log, with the journal's columns. queries: user_id, item_id, timestamp (epoch seconds), optional context (JSON text).

        Raises:
            InputError: a column is missing.
        """
        _check(events, "events")
        _check(queries, "queries")
        facts = self._facts.copy()
        log = Log(facts, facts.events(events, self.ordered, self.devices))
        asked = facts.questions(queries, self.devices)
        found = np.empty((len(asked), len(self.names)), dtype=np.float32)
        in_time = np.argsort(asked.now, kind="stable")  # neighbours in time look back on neighbouring memory
        for begin in range(0, len(asked), self._part):
            part = in_time[begin : begin + self._part]
            found[part] = numbers(self._declared, Look(asked.part(part), facts, Past(log))).T
        return found

    def parts(self, item_ids: pl.Series, kinds: Sequence[str], devices: Sequence[str] = ()) -> Parts:
        """The same numbers for the events of a log that no memory holds: see `features.parts`.

        Args:
            item_ids, kinds, devices: names of all items, event types and devices of the log; a row's slot is the place in these.

        Raises:
            InputError: the items do not begin with those of the catalogue, in its order.
        """
        facts = self._facts.copy()
        if (facts.item.add_all(item_ids) != np.arange(item_ids.len())).any():
            raise InputError("The items of the log do not begin with those of the catalogue; expected these first, in their order.")
        facts.kind.add_all(pl.Series(kinds, dtype=pl.String))
        return Parts(self._declared, facts, facts.device.add_all(pl.Series(devices, dtype=pl.String)), self._part)

    def remember(self, events: pl.DataFrame) -> State:
        """The state after a whole log: the same as after `update` with each of its events, in any order.

        Raises:
            InputError: a column is missing.
        """
        return self._learned(events, self._facts)

    def recounted(self, state: State, events: pl.DataFrame) -> State:
        """The state after a whole log by the catalogue that a state knows: what that state must be equal to.

        Raises:
            InputError: a column is missing.
        """
        return self._learned(events, state.facts)

    def _learned(self, events: pl.DataFrame, facts: Facts) -> State:
        _check(events, "events")
        facts = facts.copy()
        log = Log(facts, facts.events(events, self.ordered, devices=True))
        state = State(self._memories, facts)
        state.learn(log, tied_ids(events))
        return state

    def update(self, state: State, event: Event) -> None:
        """Folds one event into a state. Late events are folded as if they had come in time."""
        state.update(state.facts.event(event), event.event_id, event.item_id)

    def put_item(self, state: State, item: Item, vector: FloatArray | None = None) -> None:
        """Adds or changes an item.

        Events are filed under the categories and the brand that the item has when they are folded; what was filed before stays.

        Args:
            vector: its text vector, float32 [T], if there is one.
        """
        state.facts.put_item(item, vector)

    def gives(self, state: State, query: FeatureQuery, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Numbers of this moment, float32 [items of the query, F], always finite.

        An event at the very moment of the query is not seen, as in training. A moment before the latest event that a memory has folded is
        answered as if it were that event's.

        Args:
            wanted: bool [F]; features none of whose columns is wanted are not looked up and read 0; None: all are.
        """
        rows = state.facts.question(query.user_id, list(query.item_ids), query.now, query.context)
        return np.ascontiguousarray(numbers(self._declared, Look(rows, state.facts, state.now()), wanted).T)

    def save(self, state: State, folder: Path) -> None:
        """Writes the features and a state into a folder: JSON, Parquet and .npy."""
        folder.mkdir(parents=True, exist_ok=True)
        state.save(folder)
        (folder / "features.json").write_bytes(
            msgspec.json.format(msgspec.json.encode({"format": FORMAT, "use": self.texts}), indent=1)
        )

    @classmethod
    def load(cls, folder: Path) -> tuple[FeatureSet, State]:
        """Features and state from a folder.

        Raises:
            BundleError: the folder is not what `save` writes.
        """
        try:
            told = msgspec.json.decode((folder / "features.json").read_bytes())
            if told["format"] != FORMAT:
                raise BundleError(f"{folder} has feature format {told['format']}; this version reads {FORMAT}. Train again.")
            declared = declare_all(told["use"])
            memories = cls(declared, Facts())._memories
            state = State.load(memories, folder, _reads_texts(declared))
        except (OSError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError, msgspec.DecodeError) as error:
            raise BundleError(f"{folder} holds no features that can be read ({error}). Train again.") from None
        return cls(declared, state.facts, lambda: Facts.load(folder, _reads_texts(declared))), state


def _check(table: pl.DataFrame, what: str) -> None:
    missing = [name for name in (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP) if name not in table.columns]
    if missing:
        raise InputError(f"The {what} have no {', '.join(missing)}. Expected user_id, item_id and timestamp (epoch seconds).")


def _reads_texts(declared: Sequence[Declared]) -> bool:
    return any(Columns.TITLE in one.feature.reads for one in declared)
