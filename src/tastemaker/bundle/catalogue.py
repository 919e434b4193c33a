"""The items of a bundle, one record each in mapped files: opening them reads next to nothing, and workers share what they read.

A folder `catalogue/` holds `items.parquet`, the table that row by row is the index of items, and beside it, for those who answer:

- `records.bin`, `starts.npy` (int64 [N + 1]): each item's fields as a MessagePack array, one behind the other; `names.json`: what the fields are called.
- `ids.*`: the ids of the items (`bundle.texts`).
- `hidden.npy` (bool [N]), `created.npy` (float64 [N], NaN where unknown): what is asked of all items at once.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.bundle.texts import Texts, mapped
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import BundleError
from tastemaker.schema.protocols import BoolArray

Kept = TypeVar("Kept")
TABLE, RECORDS, NAMES, _IDS = "items.parquet", "records.bin", "names.json", "ids"
_BLOCK = 65_536
"""Rows of the table that are Python objects at once while records are made."""
_KEPT_ROWS, _KEPT_IDS = 4_096, 65_536
"""Rows and ids that stay Python objects once they were asked for; the same ones are asked for again and again."""


class Arrays(NamedTuple):
    """The arrays beside the records; see the file's head."""

    starts: NDArray[np.int64]
    hidden: BoolArray
    created: NDArray[np.float64]


class Catalogue(Sequence[dict[str, Any]]):
    """Fields of each item, in index order, made when they are asked for.

    Args:
        names: of the fields. ids: of the items. records: all of them. arrays: see the file's head.

    Attributes:
        index_of: item id to item index.
        hidden: bool [N]. created: epoch seconds of `created_at`, float64 [N]; NaN where unknown.
    """

    def __init__(self, names: Sequence[str], ids: Texts, records: bytes | mmap.mmap, arrays: Arrays) -> None:
        self._names, self.ids, self._records, self._arrays = tuple(names), ids, memoryview(records), arrays
        self._starts = memoryview(arrays.starts)  # type: ignore[arg-type]  # an array is a buffer; single numbers are read quicker so
        self._decode = msgspec.msgpack.Decoder(list[Any]).decode
        self._rows, self._kept_ids = dict[int, dict[str, Any]](), dict[int, str]()
        self.index_of: Mapping[str, int] = _IndexOf(ids)
        self.hidden, self.created = arrays.hidden, arrays.created

    @classmethod
    def of(cls, table: pl.DataFrame) -> Catalogue:
        """The records of a table, in memory."""
        encode, parts, lengths = msgspec.msgpack.Encoder().encode, list[bytes](), [np.zeros(1, dtype=np.int64)]
        for block in table.iter_slices(_BLOCK):
            made = [encode(row) for row in block.iter_rows()]
            lengths.append(np.array([len(one) for one in made], dtype=np.int64))
            parts.append(b"".join(made))
        hidden = _column(table, Columns.HIDDEN, pl.Boolean, False)
        created = _column(table, Columns.CREATED_AT, pl.Float64, float("nan"))
        arrays = Arrays(np.cumsum(np.concatenate(lengths)), hidden, created)
        return cls(table.columns, Texts.of(table[Columns.ITEM_ID].to_list()), b"".join(parts), arrays)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Maps what `save` wrote; a bundle that was written before records were has them made of its table.

        Raises:
            BundleError: the files do not belong together.
        """
        if not (folder / RECORDS).is_file():
            return cls.of(pl.read_parquet(folder / TABLE))
        arrays = Arrays(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in Arrays._fields))
        records, ids = mapped(folder / RECORDS, arrays.starts), Texts.open(folder, _IDS)
        if not len(arrays.starts) - 1 == len(ids) == len(arrays.hidden) == len(arrays.created):
            raise BundleError(f"{folder}: {len(arrays.starts) - 1} records and {len(ids)} ids do not belong together. Train again.")
        return cls(json.loads((folder / NAMES).read_bytes()), ids, records, arrays)

    def save(self, folder: Path) -> None:
        """Writes the records into a folder that holds the table."""
        (folder / RECORDS).write_bytes(self._records)
        (folder / NAMES).write_text(json.dumps(self._names), "utf-8")
        self.ids.save(folder, _IDS)
        for name, values in zip(Arrays._fields, self._arrays, strict=True):
            np.save(folder / f"{name}.npy", values, allow_pickle=False)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self._row(one) for one in range(*place.indices(len(self)))]
        row = self._rows.get(place)
        if row is None:
            row = _keep(self._rows, place, self._row(place), _KEPT_ROWS)
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._row, range(len(self)))

    def item_id(self, place: int) -> str:
        """The id of an item."""
        found = self._kept_ids.get(place)
        return _keep(self._kept_ids, place, self.ids[place], _KEPT_IDS) if found is None else found

    def _row(self, place: int) -> dict[str, Any]:
        row = dict(zip(self._names, self._values(place), strict=True))
        extra = row.get("extra")
        row["extra"] = msgspec.json.decode(extra) if extra else {}
        row[Columns.CATEGORIES] = row.get(Columns.CATEGORIES) or []
        return row

    def _values(self, place: int) -> list[Any]:
        if not -len(self) <= place < len(self):
            raise IndexError(f"There is no item {place} among {len(self)}.")
        place %= len(self)
        return self._decode(self._records[self._starts[place] : self._starts[place + 1]])


class _IndexOf(Mapping[str, int]):
    """Item id to item index, looked up in the files."""

    def __init__(self, ids: Texts) -> None:
        self._ids = ids

    def __getitem__(self, item_id: str) -> int:
        place = self._ids.find(item_id)
        if place is None:
            raise KeyError(item_id)
        return place

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._ids.find(item_id) is not None

    def get(self, item_id: str, default: Any = None) -> Any:
        """The index, or what is given instead."""
        place = self._ids.find(item_id)
        return default if place is None else place

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _keep(kept: dict[int, Kept], place: int, value: Kept, most: int) -> Kept:
    if len(kept) >= most:
        kept.clear()
    kept[place] = value
    return value


def _column(table: pl.DataFrame, name: str, kind: Any, missing: Any) -> NDArray[Any]:
    if name not in table.columns:
        return np.full(table.height, missing)
    found: NDArray[Any] = table[name].cast(kind).fill_null(missing).to_numpy()
    return found
