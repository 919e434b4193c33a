"""Texts and their slots: users, items, categories, brands, devices and event types are whole numbers inside this room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Names:
    """Texts numbered from 0 in the order in which they were first met; -1 is no name."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._slots = {name: slot for slot, name in enumerate(known)}

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def add(self, name: str) -> int:
        """The slot of a name, a new one where it was never met."""
        return self._slots.setdefault(name, len(self._slots))

    def find(self, name: str | None) -> int:
        """The slot of a name, -1 where it was never met."""
        return -1 if name is None else self._slots.get(name, -1)

    def add_all(self, names: pl.Series) -> NDArray[np.int64]:
        """Slots of a column, int64 [rows]; -1 for nulls."""
        return self._all(names, learn=True)

    def find_all(self, names: pl.Series) -> NDArray[np.int64]:
        """Slots of a column, int64 [rows]; -1 for nulls and for names that were never met."""
        return self._all(names, learn=False)

    def copy(self) -> Names:
        """A copy that can learn alone."""
        return Names(self._slots)

    def _all(self, names: pl.Series, learn: bool) -> NDArray[np.int64]:
        names = names.cast(pl.String)
        unique = names.drop_nulls().unique(maintain_order=True)
        slots = [self.add(name) if learn else self.find(name) for name in unique]
        table = pl.DataFrame({"name": unique, "slot": pl.Series(slots, dtype=pl.Int64)})
        found = names.to_frame("name").join(table, on="name", how="left", maintain_order="left")["slot"]
        return found.fill_null(-1).to_numpy()
