"""A bundle in memory: its models, its catalogue and the histories it was trained on. It needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.bundle.catalogue import Catalogue
from tastemaker.inference.engine import ItemTower, TextEncoder, UserTower
from tastemaker.inference.media import MediaSignal
from tastemaker.inference.signals import GraphSignal, KeptSignal, SignalReader
from tastemaker.models.text_template import fill
from tastemaker.schema.columns import Columns
from tastemaker.schema.items import Item
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table
from tastemaker.schema.signals import GRAPH, TEXT

Texts = Callable[[Path, int, int], TextEncoder]
"""Opens what reads texts: called as texts(the bundle's `text_encoder`, length of a vector, threads)."""
_EMPTY = np.zeros(0, dtype=np.int32)


class Brain:
    """Loads a bundle's payload.

    Args:
        folder: the bundle. threads: of the models. texts: opens what reads texts.

    Attributes:
        settings: those of the training run.
        text, item, user: the models.
        signals: the other signals of the items, by name.
        items: fields of each item, by item index. index_of: item id to item index.
    """

    def __init__(self, folder: Path, threads: int = 1, texts: Texts = TextEncoder) -> None:
        self.folder = folder
        self.settings: Settings = from_table(msgspec.json.decode((folder / "settings.json").read_bytes()))
        self.items = Catalogue.open(folder / "catalogue")
        self.index_of = self.items.index_of
        width = _width(folder / "channels")
        self.item = ItemTower(folder / "item_tower", width, threads)
        self.text = texts(folder / "text_encoder", self.item.widths[TEXT], threads)
        others = [name for name in self.item.widths if name != TEXT]
        self.signals: dict[str, SignalReader] = {name: self._reader(name, threads) for name in others}
        self.user = UserTower(folder / "user_tower" / "model.onnx", self.settings.sequence.max_length, threads)
        self._users: dict[str, int] | None = None
        self._offsets: NDArray[np.int64] = _mapped(folder / "users" / "offsets.npy")
        self._met: NDArray[np.int32] = _mapped(folder / "users" / "items.npy")

    def _reader(self, name: str, threads: int) -> SignalReader:
        encoder = self.folder / f"{name}_encoder"
        if encoder.is_dir():
            return MediaSignal(encoder, getattr(self.settings, name), threads)
        path = self.folder / "signals" / f"{name}.npy"
        if name == GRAPH:
            return GraphSignal(path, self.index_of, _later(self.folder, name), self.folder / "graph" / "nodes.parquet")
        return KeptSignal(path, self.index_of)

    @property
    def latest(self) -> float:
        """Epoch seconds of the latest event that training knew; infinite where the log had no times."""
        times: NDArray[np.float64] = np.load(self.folder / "users" / "times.npy", mmap_mode="r", allow_pickle=False)
        return float(times.max()) if len(times) and np.isfinite(times).all() else float("inf")

    @property
    def users(self) -> dict[str, int]:
        """User id to the row of its history."""
        if self._users is None:
            ids = pl.read_parquet(self.folder / "users" / "user_ids.parquet")[Columns.USER_ID].to_list()
            self._users = {user_id: row for row, user_id in enumerate(ids)}
        return self._users

    def history(self, user_id: str) -> NDArray[np.int32]:
        """A user's items at training time, oldest first; empty for an unknown user."""
        row = self.users.get(user_id)
        return _EMPTY if row is None else self._met[self._offsets[row] : self._offsets[row + 1]]

    @property
    def content_version(self) -> str:
        """Changes with whatever makes contents."""
        return "+".join([self.text.version, *(reader.version for reader in self.signals.values())])

    def contents(self, items: Sequence[Item], quick: bool = False) -> FloatArray:
        """What the item tower reads of items, float32 [n, C]: text vectors, then those of the other signals; zeros where an item lacks one.

        Args:
            items: new or changed ones.
            quick: leave out pictures and sounds, which have to be fetched, decoded and read by large models.
        """
        parts = [self.text.encode([fill(self.text.template, item.title, item.text, item.categories) for item in items])]
        for name, reader in self.signals.items():
            left_out = quick and reader.slow
            parts.append(np.zeros((len(items), self.item.widths[name]), np.float32) if left_out else reader.vectors(items))
        return np.concatenate(parts, axis=1)

    def new_item(self, content: FloatArray) -> FloatArray:
        """The item vector, float32 [D], of an item that only has a content [C]."""
        found: Any = self.item.vectors(content[None])[0]
        return np.asarray(found, dtype=np.float32)


def _mapped(path: Path) -> NDArray[Any]:
    """A memory-mapped array whose slices are plain ones: a slice of a `memmap` takes ten times as long."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _later(folder: Path, name: str) -> list[str]:
    """Ids of items that have a vector of a signal though the catalogue does not hold them: those that only edges name."""
    path = folder / "signals" / f"{name}_later.json"
    found: list[str] = msgspec.json.decode(path.read_bytes(), type=list[str]) if path.is_file() else []
    return found


def _width(channels: Path) -> int:
    """Length of a content, whether the bundle holds them as they are or as bytes."""
    path = next((path for path in (channels / "text.npy", channels / "text.int8.npy") if path.is_file()), channels / "text.npy")
    return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[1])
