"""What is known right now: the bundle's histories and items, with everything folded in that happened since."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.bundle.catalogue import Catalogue
from tastemaker.features.reference import shown
from tastemaker.journal.erase import digest_of
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item, ItemChange
from tastemaker.schema.labels import Label
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray
from tastemaker.schema.settings import FreshSettings
from tastemaker.schema.unwritten import unwritten
from tastemaker.streaming.features import LiveFeatures
from tastemaker.streaming.fresh import FreshItems
from tastemaker.streaming.item_rows import ItemRows

PIECE = 64
"""Events that are folded between two looks at the clock."""


class ItemIndex(Protocol):
    """Where item vectors live. Implemented by `index.channels.Channels`."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def content(self, index: int) -> FloatArray:
        """An item's content, float32 [C]."""

    def append_item(self, content: FloatArray, vector: FloatArray, graph: FloatArray | None = None) -> int:
        """Adds an item; gives its index."""

    def replace_item(self, index: int, content: FloatArray, vector: FloatArray | None) -> None:
        """Gives an item another content."""


class ItemReader(Protocol):
    """Reads new items with the bundle's models."""

    @property
    def version(self) -> str:
        """The encoders' fingerprint, by which stored contents are recognised."""

    @property
    def width(self) -> int:
        """Length C of a content."""

    def contents(self, items: Sequence[Item], quick: bool = False) -> FloatArray:
        """What the item tower reads, float32 [n, C]: whitened text vectors, other signals behind them; `quick` leaves out those that take long."""

    def item_vector(self, content: FloatArray) -> FloatArray:
        """The item vector, float32 [D], of a content [C]."""


class LiveState:
    """Histories and items as they are now, in one process.

    Args:
        items: those of the bundle.
        trained: how many events training saw of each item, [N].
        base_history: gives a user's history at training time.
        index: where vectors of new items go.
        reader: reads new items.
        labels: which events enter a history; empty: all.
        text_dim: length T of a text vector, with which a content begins.
        features: what is told besides the channels, kept up to date too; None: nothing is.
        shown: event types that say that an item was shown.
        admitted: which items may appear at all, by their fields; None: all that are not hidden.
        rule: when a fresh item graduates; None: the defaults.
        graph_part: where a content says what the item is connected with; None: nowhere.
    """

    def __init__(
        self,
        items: Catalogue,
        trained: NDArray[np.float32],
        base_history: Callable[[str], IntArray],
        index: ItemIndex,
        reader: ItemReader,
        labels: Sequence[Label],
        text_dim: int,
        features: LiveFeatures | None = None,
        shown: Sequence[str] = (),
        admitted: Callable[[Mapping[str, Any]], bool] | None = None,
        rule: FreshSettings | None = None,
        graph_part: slice | None = None,
    ) -> None:
        self.rows = ItemRows(items)
        self.index_of: Mapping[str, int] = self.rows.index_of
        self.n_base = len(items)
        self._admitted = admitted
        self._bars: BoolArray = np.array(items.hidden)
        if admitted is not None:
            self._bars |= np.fromiter((not admitted(row) for row in items), dtype=bool, count=len(items))
        self._barred: BoolArray | None = None
        self._trained, self._base_history, self._index, self.reader = trained, base_history, index, reader
        self._labels, self._text_dim, self.features, self._shown = labels, text_dim, features, frozenset(shown)
        self.fresh, self._graph_part = FreshItems(items.created, trained, rule or FreshSettings(), time.time()), graph_part
        self._later: dict[str, list[int]] = {}
        self._forgotten: set[bytes] = set()
        self._waiting: deque[Event] = deque()
        self._changed: set[int] = set()

    @property
    def barred(self) -> BoolArray:
        """Items that may not appear, bool [N]. The array stays as it is, and any thread may read it; after a change there is another one.

        Ask for it in the thread that folds changes, as everything else of a state (in a service that of the event loop, for a bundle in the shadow its
        own): nothing is locked, and a copy made beside `bar` could be kept without what was barred just then.
        """
        if self._barred is None:
            self._barred = unwritten(self._bars[: len(self.rows)].copy())
        return self._barred

    def bar(self, place: int, barred: bool = True) -> None:
        """An item may not appear from now on, or may."""
        if place >= len(self._bars):
            self._bars = np.concatenate([self._bars, np.zeros(max(len(self._bars) // 2, place + 16), dtype=bool)])
        self._bars[place] = barred
        self._barred = None

    def history(self, user_id: str) -> IntArray:
        """A user's item indices, oldest first; empty for an unknown user."""
        base, later = self._base(user_id), self._later.get(user_id)
        return base if not later else np.concatenate([base, np.array(later, dtype=np.int32)])

    def known_user(self, user_id: str) -> bool:
        """True if the user has a history."""
        return user_id in self._later or len(self._base(user_id)) > 0

    def forget(self, digests: set[bytes]) -> None:
        """What these people (`journal.erase.digest_of`) did until now is not known any more; what they do from now on is."""
        if digests:
            self._forgotten |= digests
            for user in [user for user in self._later if digest_of(user) in digests]:
                del self._later[user]

    def _base(self, user_id: str) -> IntArray:
        """What the bundle knows of a user, unless it was erased."""
        if self._forgotten and digest_of(user_id) in self._forgotten:
            return np.zeros(0, dtype=np.int32)
        return self._base_history(user_id)

    @property
    def waiting(self) -> int:
        """Events that histories know and features do not yet."""
        return len(self._waiting)

    def fold_features(self, end: float) -> None:
        """Folds waiting events into features, in order, until a time of `time.perf_counter`."""
        while self._waiting and self.features is not None:
            for _ in range(min(PIECE, len(self._waiting))):
                self.features.fold_event(self._waiting.popleft())
            if time.perf_counter() >= end:
                return

    def fold_event(self, event: Event) -> None:
        """An event becomes the newest of its user's history, if it counts; features see every event, by `fold_features`."""
        if self.features is not None:
            self._waiting.append(event)
        place = self.index_of.get(event.item_id)
        if place is not None and event.event_type in self._shown:
            self.fresh.show(place)
        if self._labels and not any(label.holds(event.event_type, event.value) for label in self._labels):
            return
        if place is None:
            place = self._add({"item_id": event.item_id}, np.zeros(self.reader.width, np.float32))
            self.bar(place)  # it can be recommended when the catalogue knows it
        self._later.setdefault(event.user_id, []).append(place)
        if event.event_type not in self._shown:
            self.fresh.take(place)

    def fold_changes(self, changes: Sequence[ItemChange]) -> None:
        """Items that were put or deleted, in order."""
        put = [(change, change.item) for change in changes if change.item is not None]
        ready = {
            change.item_id: np.frombuffer(change.vector, dtype=np.float32)
            for change, _ in put
            if change.vector and change.vector_version == self.reader.version and len(change.vector) == 4 * self.reader.width
        }
        unread = [item for _, item in put if item.item_id not in ready]
        if unread:
            contents = self.reader.contents(unread, quick=True)  # answers wait meanwhile
            for item, content in zip(unread, contents, strict=True):
                place = self.index_of.get(item.item_id)
                if place is not None:  # what was not read is as it was
                    content[self._text_dim :] = self._index.content(place)[self._text_dim :]
                ready[item.item_id] = content
        for change in changes:
            if change.item is None:
                self._remove(change.item_id)
            else:
                self._put(change.item, ready[change.item_id])

    def take_changed(self) -> list[tuple[int, dict[str, Any]]]:
        """Index and fields of the items that changed since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return [(place, self.rows[place]) for place in changed]

    def recent(self, user_id: str, limit: int) -> list[dict[str, Any]]:
        """Fields of the user's latest items, newest first."""
        return [self.rows[place] for place in self.history(user_id)[::-1][:limit].tolist()]

    def latest_users(self, limit: int) -> list[str]:
        """Users with events since the bundle, the latest last."""
        return list(self._later)[-limit:]

    def _remove(self, item_id: str) -> None:
        place = self.index_of.get(item_id)
        if place is not None:
            self.bar(place)
            self.rows.put(place, {"item_id": item_id, "deleted": True})
            self._changed.add(place)

    def _put(self, item: Item, content: FloatArray) -> None:
        row = {
            "item_id": item.item_id,
            "title": item.title,
            "text": item.text,
            "categories": item.categories,
            "image": shown(item.image),
            "audio": shown(item.audio),
            "price": item.price,
            "created_at": item.created_at,
            "hidden": item.hidden,
            "extra": item.extra,
        }
        place = self.index_of.get(item.item_id)
        if place is None:
            place = self._add(row, content)
        else:
            learned = place < self.n_base and self._trained[place] > 0
            self._index.replace_item(place, content, None if learned else self.reader.item_vector(content))
            self.rows.put(place, row)
        if self.features is not None:
            self.features.put_item(item, content[: self._text_dim])
        self.fresh.put(place, item.created_at)
        self.bar(place, self._may_not(row))
        self._changed.add(place)

    def _may_not(self, row: Mapping[str, Any]) -> bool:
        return bool(row.get("hidden")) or (self._admitted is not None and not self._admitted(row))

    def _add(self, row: dict[str, Any], content: FloatArray) -> int:
        graph = None if self._graph_part is None else content[self._graph_part]
        place = self._index.append_item(content, self.reader.item_vector(content), graph)
        self.rows.add(row)
        self.bar(place, False)
        self.fresh.add(place)
        return place
