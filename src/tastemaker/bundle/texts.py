"""Many texts in mapped files, each found by its place, and its place by the text: opening them reads next to nothing, and workers share what they read.

Files of the texts called `name` in a folder: `name.bin`, UTF-8 one behind the other; `name.starts.npy`, int64 [N + 1]; `name.hashes.npy`, uint64 [N], XXH3 of the texts,
ascending; `name.places.npy`, int32 [N], whose they are.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from tastemaker.schema.errors import BundleError

_ARRAYS = ("starts", "hashes", "places")


class Texts(Sequence[str]):
    """Texts by place.

    Args:
        data: all of them. starts, hashes, places: see the file's head.
    """

    def __init__(
        self, data: bytes | mmap.mmap, starts: NDArray[np.int64], hashes: NDArray[np.uint64], places: NDArray[np.int32]
    ) -> None:
        self._data = data
        views = (memoryview(array) for array in (starts, hashes, places))  # type: ignore[arg-type]  # arrays are buffers
        self._starts, self._hashes, self._places = views  # single numbers are read quicker so

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Texts in memory."""
        parts = [_bytes(text) for text in texts]
        hashes = np.array([_hash(part) for part in parts], dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(b"".join(parts), starts, hashes[order], order.astype(np.int32))

    @classmethod
    def open(cls, folder: Path, name: str) -> Texts:
        """Maps what `save` wrote.

        Raises:
            BundleError: the files do not belong together.
        """
        starts, hashes, places = (np.load(folder / f"{name}.{one}.npy", mmap_mode="r", allow_pickle=False) for one in _ARRAYS)
        data = mapped(folder / f"{name}.bin", starts)
        if not len(starts) - 1 == len(hashes) == len(places):
            raise BundleError(f"{folder}: {name} has {len(starts) - 1} texts and {len(hashes)} hashes. Train again.")
        return cls(data, starts, hashes, places)

    def save(self, folder: Path, name: str) -> None:
        """Writes them."""
        (folder / f"{name}.bin").write_bytes(self._data)
        for one, values in zip(_ARRAYS, (self._starts, self._hashes, self._places), strict=True):
            np.save(folder / f"{name}.{one}.npy", np.asarray(values), allow_pickle=False)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"There is no text {place} among {len(self)}.")
        return self._data[self._starts[place] : self._starts[place + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def find(self, text: str) -> int | None:
        """The place of a text; None where it is not among them."""
        wanted = _bytes(text)
        number = _hash(wanted)
        at = bisect_left(self._hashes, number)
        while at < len(self._hashes) and self._hashes[at] == number:
            place: int = self._places[at]
            if self._data[self._starts[place] : self._starts[place + 1]] == wanted:
                return place
            at += 1
        return None


def mapped(path: Path, starts: NDArray[np.int64]) -> bytes | mmap.mmap:
    """A file of parts one behind the other, mapped.

    Args:
        starts: where parts begin, and the end of the last.

    Raises:
        BundleError: it ends elsewhere.
    """
    size = path.stat().st_size
    if starts[-1] != size:
        raise BundleError(
            f"{path} has {size} bytes, and what it holds should end at {starts[-1]}: they do not belong together. Train again."
        )
    if not size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hash(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)
