"""The items of a bundle, one record each in mapped files: opening them reads next to nothing, and workers share what they read.

A folder `catalogue/` holds `items.parquet`, the table that row by row is the index of items, and beside it, for those who answer:

- `records.bin`, `starts.npy` (int64 [N + 1]): each item's fields as a MessagePack array, one behind the other; `names.json`: what the fields are called.
- `hashes.npy` (uint64 [N], ascending) and `places.npy` (int32 [N]): XXH3 of each item id, and which item it is.
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
import xxhash
from numpy.typing import NDArray

from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import BundleError
from tastemaker.schema.protocols import BoolArray

Kept = TypeVar("Kept")
TABLE, RECORDS, NAMES = "items.parquet", "records.bin", "names.json"
_BLOCK = 65_536
"""Rows of the table that are Python objects at once while records are made."""
_KEPT_ROWS, _KEPT_IDS = 4_096, 65_536
"""Rows and ids that stay Python objects once they were asked for; the same ones are asked for again and again."""


class Arrays(NamedTuple):
    """The arrays beside the records; see the file's head."""

    starts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    places: NDArray[np.int32]
    hidden: BoolArray
    created: NDArray[np.float64]


class Catalogue(Sequence[dict[str, Any]]):
    """Fields of each item, in index order, made when they are asked for.

    Args:
        names: of the fields, one of them `item_id`. records: all records. arrays: see the file's head.

    Attributes:
        index_of: item id to item index.
        hidden: bool [N]. created: epoch seconds of `created_at`, float64 [N]; NaN where unknown.
    """

    def __init__(self, names: Sequence[str], records: bytes | mmap.mmap, arrays: Arrays) -> None:
        self._names, self._records, self._arrays = tuple(names), memoryview(records), arrays
        self._starts = memoryview(arrays.starts)  # type: ignore[arg-type]  # an array is a buffer; single numbers are read quicker so
        self._id = self._names.index(Columns.ITEM_ID)
        self._decode = msgspec.msgpack.Decoder(list[Any]).decode
        self._rows, self._ids = dict[int, dict[str, Any]](), dict[int, str]()
        self.index_of: Mapping[str, int] = _IndexOf(self)
        self.hidden, self.created = arrays.hidden, arrays.created

    @classmethod
    def of(cls, table: pl.DataFrame) -> Catalogue:
        """The records of a table, in memory."""
        encode, parts, lengths = msgspec.msgpack.Encoder().encode, list[bytes](), [np.zeros(1, dtype=np.int64)]
        for block in table.iter_slices(_BLOCK):
            made = [encode(row) for row in block.iter_rows()]
            lengths.append(np.array([len(one) for one in made], dtype=np.int64))
            parts.append(b"".join(made))
        ids = table[Columns.ITEM_ID].to_list()
        hashes = np.fromiter(map(_hash, ids), dtype=np.uint64, count=len(ids))
        order = np.argsort(hashes, kind="stable")
        hidden = _column(table, Columns.HIDDEN, pl.Boolean, False)
        created = _column(table, Columns.CREATED_AT, pl.Float64, float("nan"))
        arrays = Arrays(np.cumsum(np.concatenate(lengths)), hashes[order], order.astype(np.int32), hidden, created)
        return cls(table.columns, b"".join(parts), arrays)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Maps what `save` wrote; a bundle that was written before records were has them made of its table.

        Raises:
            BundleError: the files do not belong together.
        """
        if not (folder / RECORDS).is_file():
            return cls.of(pl.read_parquet(folder / TABLE))
        arrays = Arrays(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in Arrays._fields))
        size = (folder / RECORDS).stat().st_size
        sizes = {len(arrays.starts) - 1, len(arrays.hashes), len(arrays.places), len(arrays.hidden), len(arrays.created)}
        if arrays.starts[-1] != size or len(sizes) > 1:
            raise BundleError(
                f"{folder}: {size} bytes of records and {len(arrays.starts) - 1} items do not belong together. Train again."
            )
        with (folder / RECORDS).open("rb") as file:
            records = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        return cls(json.loads((folder / NAMES).read_bytes()), records, arrays)

    def save(self, folder: Path) -> None:
        """Writes the records into a folder that holds the table."""
        (folder / RECORDS).write_bytes(self._records)
        (folder / NAMES).write_text(json.dumps(self._names), "utf-8")
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
        found = self._ids.get(place)
        return _keep(self._ids, place, self._values(place)[self._id], _KEPT_IDS) if found is None else found

    def _row(self, place: int) -> dict[str, Any]:
        row = dict(zip(self._names, self._values(place), strict=True))
        extra = row.get("extra")
        row["extra"] = msgspec.json.decode(extra) if extra else {}
        row[Columns.CATEGORIES] = row.get(Columns.CATEGORIES) or []
        return row

    def find(self, item_id: str) -> int | None:
        """The index of an item id; None where there is none."""
        number = np.uint64(_hash(item_id))
        hashes, at = self._arrays.hashes, int(np.searchsorted(self._arrays.hashes, number))
        while at < len(hashes) and hashes[at] == number:
            place = int(self._arrays.places[at])
            if self._values(place)[self._id] == item_id:
                return place
            at += 1
        return None

    def _values(self, place: int) -> list[Any]:
        if not -len(self) <= place < len(self):
            raise IndexError(f"There is no item {place} among {len(self)}.")
        place %= len(self)
        return self._decode(self._records[self._starts[place] : self._starts[place + 1]])


class _IndexOf(Mapping[str, int]):
    """Item id to item index, looked up in the arrays."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __getitem__(self, item_id: str) -> int:
        place = self._catalogue.find(item_id)
        if place is None:
            raise KeyError(item_id)
        return place

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._catalogue.find(item_id) is not None

    def get(self, item_id: str, default: Any = None) -> Any:
        """The index, or what is given instead."""
        place = self._catalogue.find(item_id)
        return default if place is None else place

    def __iter__(self) -> Iterator[str]:
        return (row[Columns.ITEM_ID] for row in self._catalogue)

    def __len__(self) -> int:
        return len(self._catalogue)


def _keep(kept: dict[int, Kept], place: int, value: Kept, most: int) -> Kept:
    if len(kept) >= most:
        kept.clear()
    kept[place] = value
    return value


def _hash(item_id: str) -> int:
    return xxhash.xxh3_64_intdigest(item_id.encode("utf-8", "surrogatepass"))


def _column(table: pl.DataFrame, name: str, kind: Any, missing: Any) -> NDArray[Any]:
    if name not in table.columns:
        return np.full(table.height, missing)
    found: NDArray[Any] = table[name].cast(kind).fill_null(missing).to_numpy()
    return found
