"""A bundle in memory: its models, its catalogue and the histories it was trained on. It needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.inference.engine import ItemTower, TextEncoder, UserTower
from tastemaker.models.text_template import fill
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table

_EMPTY = np.zeros(0, dtype=np.int32)


class Brain:
    """Loads a bundle's payload.

    Attributes:
        settings: those of the training run.
        text, item, user: the models.
        catalogue: one row for each item index.
        index_of: item id to item index.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import msgspec

        self.folder = folder
        self.settings: Settings = from_table(msgspec.json.decode((folder / "settings.json").read_bytes()))
        self.catalogue = pl.read_parquet(folder / "catalogue" / "items.parquet")
        self.item_ids: list[str] = self.catalogue[Columns.ITEM_ID].to_list()
        self.index_of = {item_id: place for place, item_id in enumerate(self.item_ids)}
        width = _width(folder / "channels")
        self.text = TextEncoder(folder / "text_encoder", width, threads)
        self.item = ItemTower(folder / "item_tower" / "model.onnx", threads)
        self.user = UserTower(folder / "user_tower" / "model.onnx", self.settings.sequence.max_length, threads)
        self._users: dict[str, int] | None = None
        self._offsets: NDArray[np.int64] = np.load(folder / "users" / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self._items: NDArray[np.int32] = np.load(folder / "users" / "items.npy", mmap_mode="r", allow_pickle=False)

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
        return _EMPTY if row is None else np.asarray(self._items[self._offsets[row] : self._offsets[row + 1]])

    def item_text(self, title: str | None, text: str | None, categories: Sequence[str]) -> str:
        """The text that the encoder reads of an item."""
        return fill(self.text.template, title, text, list(categories))

    def new_item(self, text: FloatArray) -> FloatArray:
        """The item vector, float32 [D], of an item that only has a text vector [T]."""
        found: Any = self.item.vectors(text[None])[0]
        return np.asarray(found, dtype=np.float32)


def _width(channels: Path) -> int:
    """Length of a text vector, whether the bundle holds them as they are or as bytes."""
    path = next((path for path in (channels / "text.npy", channels / "text.int8.npy") if path.is_file()), channels / "text.npy")
    return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[1])
