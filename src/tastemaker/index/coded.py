"""Vectors in few bits: codes that stay memory-mapped, scored as they are, and exact ones beside them for the best few.

int8      a byte a number, one scale for each dimension; a product is exact but for the rounding
product   product quantization (H. Jegou et al., 2011): each group of a few dimensions is the number of one of 256 centres; the best are scored again
          with the int8 rows, which stay on disk until they are asked for
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray

_ROWS = 4_096
RESCORED = 1_000
"""Best rows by their codes that are scored again with int8."""


class Vectors(Protocol):
    """A table of vectors, whatever its form."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and length of a row."""

    @property
    def scanned(self) -> int:
        """Bytes that are read of a row to find the best."""

    def __len__(self) -> int: ...

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """Some rows, float32 [n, D]."""

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products with every row, float32 [B, N]."""


class Plain:
    """float32 or float16 as it is."""

    def __init__(self, table: FloatArray) -> None:
        self._table = table

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and length of a row."""
        return self._table.shape

    @property
    def scanned(self) -> int:
        """Bytes that are read of a row to find the best."""
        return int(self._table.shape[1] * self._table.itemsize)

    def __len__(self) -> int:
        return len(self._table)

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """Some rows, float32 [n, D]."""
        return np.asarray(self._table.take(indices, axis=0), dtype=np.float32)

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products with every row, float32 [B, N]."""
        found: FloatArray = queries @ self._table.T
        return found


class Bytes:
    """int8 codes times one scale for each dimension.

    Args:
        codes: int8 [N, D]. scale: float32 [D].
    """

    def __init__(self, codes: NDArray[np.int8], scale: FloatArray) -> None:
        self._codes, self._scale = codes, scale

    @classmethod
    def of(cls, table: FloatArray) -> Bytes:
        """The codes of a table, float32 [N, D]."""
        scale = (np.abs(table).max(axis=0, initial=0.0) / 127).astype(np.float32)
        codes = np.rint(table / np.maximum(scale, 1e-30)).astype(np.int8)
        return cls(codes, scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and length of a row."""
        return self._codes.shape

    @property
    def scanned(self) -> int:
        """Bytes that are read of a row to find the best."""
        return int(self._codes.shape[1])

    def __len__(self) -> int:
        return len(self._codes)

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """Some rows, float32 [n, D]."""
        found: FloatArray = self._codes[indices].astype(np.float32) * self._scale
        return found

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products with every row, float32 [B, N]; rows are widened some thousand at a time, in the cache."""
        scaled = (queries * self._scale).astype(np.float32)
        found = np.empty((len(queries), len(self)), dtype=np.float32)
        for begin in range(0, len(self), _ROWS):
            part = slice(begin, begin + _ROWS)
            np.matmul(scaled, self._codes[part].astype(np.float32).T, out=found[:, part])
        return found

    def save(self, folder: Path, name: str) -> None:
        """Writes codes and scale."""
        np.save(folder / f"{name}.int8.npy", self._codes, allow_pickle=False)
        np.save(folder / f"{name}.scale.npy", self._scale, allow_pickle=False)


class Product:
    """Codes of groups of dimensions, and int8 rows for the best.

    Args:
        codes: uint8 [N, M]. centres: float32 [M, 256, D / M].
        exact: the rows that answers are made of.
    """

    def __init__(self, codes: NDArray[np.uint8], centres: FloatArray, exact: Vectors) -> None:
        self._codes, self._centres, self._exact = codes, centres, exact

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and length of a row."""
        return self._exact.shape

    @property
    def scanned(self) -> int:
        """Bytes that are read of a row to find the best."""
        return int(self._codes.shape[1])

    def __len__(self) -> int:
        return len(self._codes)

    def rows(self, indices: NDArray[np.integer]) -> FloatArray:
        """Some rows, float32 [n, D], from the exact ones."""
        return self._exact.rows(indices)

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products with every row, float32 [B, N]: by the codes, and for each query's best `RESCORED` by the exact rows."""
        found = self.rough(queries)
        depth = min(RESCORED, found.shape[1])
        for row, query in enumerate(queries):
            best = np.argpartition(-found[row], depth - 1)[:depth] if depth < found.shape[1] else np.arange(depth)
            found[row, best] = self._exact.rows(best) @ query
        return found

    def rough(self, queries: FloatArray) -> FloatArray:
        """Inner products by the codes alone, float32 [B, N]."""
        groups, _, width = self._centres.shape
        split = padded(queries, width).reshape(len(queries), groups, width)
        tables = np.einsum("bmw,mcw->bmc", split, self._centres).astype(np.float32)
        found = np.zeros((len(queries), len(self)), dtype=np.float32)
        for begin in range(0, len(self), _ROWS):
            part = self._codes[begin : begin + _ROWS]
            for group in range(groups):
                found[:, begin : begin + _ROWS] += tables[:, group, part[:, group]]
        return found

    def save(self, folder: Path, name: str) -> None:
        """Writes codes and centres; the exact rows are written by themselves."""
        np.save(folder / f"{name}.codes.npy", self._codes, allow_pickle=False)
        np.save(folder / f"{name}.centres.npy", self._centres, allow_pickle=False)


def padded(table: FloatArray, group: int) -> FloatArray:
    """Rows filled up with zeros to a multiple of `group` dimensions."""
    return np.pad(table, ((0, 0), (0, -table.shape[1] % group)))


def load(folder: Path, name: str) -> Vectors:
    """Reads a table in whatever form it lies there, memory-mapped: `name.npy`, or `name.int8.npy` with `name.scale.npy`, or these with codes."""

    def array(ending: str) -> NDArray[np.generic]:
        loaded: NDArray[np.generic] = np.asarray(np.load(folder / f"{name}.{ending}.npy", mmap_mode="r", allow_pickle=False))
        return loaded

    if (folder / f"{name}.npy").is_file():
        plain: FloatArray = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        return Plain(plain)
    exact = Bytes(array("int8"), np.array(array("scale")))  # type: ignore[arg-type]
    if not (folder / f"{name}.codes.npy").is_file():
        return exact
    return Product(array("codes"), np.array(array("centres")), exact)  # type: ignore[arg-type]
