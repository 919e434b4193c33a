"""The drawer of faiss: an inverted file over bytes, built once, read through a memory map that all workers share.

Why faiss (measured on clustered vectors at equal recall, 2 cores): graphs (hnswlib, usearch, SVS) answer 100 k items as fast, but hold 2 to 3 times the bytes at 10 M, take hours to
build there, and are not read through a memory map while rows are added. An inverted file with 8-bit codes costs 1.1 GB and five minutes at 10 M.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import BoolArray, FloatArray
from tastemaker.schema.unwritten import FILTERS, OfLatest

LANES = 16
"""Rows are filled up with zeros to a multiple of this, the width of the instructions that read the codes."""
SAMPLE = 64
"""Rows for each list that the centres are learned from."""
ROUNDS = 10
MARGIN = 0.25
"""The codes reach so much farther than the sample did, as a share of its range."""
Found = tuple[NDArray[np.int64], FloatArray]


def width_of(dim: int) -> int:
    """Length of a row as it is held."""
    return -(-dim // LANES) * LANES


class InvertedFile:
    """Rows as bytes, in lists around centres; a search reads the lists whose centres are closest.

    Attributes:
        centres: float32 [lists, W].
    """

    def __init__(self, index: Any, owner: InvertedFile | None = None) -> None:
        self._index, self._owner = index, owner  # who owns the centres lives as long as this
        self._bits = OfLatest(_selector, FILTERS)
        self.centres: FloatArray = faiss.rev_swig_ptr(
            faiss.downcast_index(index.quantizer).get_xb(), index.nlist * index.d
        ).reshape(index.nlist, index.d)

    @classmethod
    def learned(cls, sample: FloatArray, lists: int, seed: int, threads: int) -> InvertedFile:
        """An empty one whose centres and scales fit a sample, float32 [S, W]."""
        faiss.omp_set_num_threads(threads)
        width = sample.shape[1]
        centres = faiss.IndexFlatIP(width)
        index = _file(centres, width, lists)
        index.sq.rangestat_arg = MARGIN
        index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = ROUNDS, SAMPLE, 1
        index.cp.seed = seed
        index.train(sample)
        faiss.omp_set_num_threads(1)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> InvertedFile:
        """Reads what `save` wrote, its codes through a memory map."""
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        faiss.downcast_InvertedLists(
            index.invlists
        ).prefetch_nthread = 0  # pages are in memory or come one by one: threads only cost
        faiss.omp_set_num_threads(1)
        return cls(index)

    def empty(self) -> InvertedFile:
        """One with the same centres and scales and no rows, in this process's own memory."""
        old = self._index
        index = _file(old.quantizer, old.d, old.nlist)
        faiss.copy_array_to_vector(faiss.vector_to_array(old.sq.trained), index.sq.trained)
        index.is_trained = True
        return InvertedFile(index, self)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, blocks: Iterable[FloatArray], threads: int = 1) -> list[NDArray[np.int64]]:
        """Adds rows, float32 [n, W] a block; gives the list of each."""
        faiss.omp_set_num_threads(threads)
        lists = []
        for block in blocks:
            _, near = self._index.quantizer.search(block, 1)
            near = np.ascontiguousarray(near[:, 0])
            self._index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(near))
            lists.append(near)
        faiss.omp_set_num_threads(1)
        return lists

    def save(self, path: Path) -> None:
        """Writes it."""
        faiss.write_index(self._index, str(path))

    def search(self, query: FloatArray, depth: int, probes: int, allowed: BoolArray | None = None) -> Found:
        """Numbers of the rows with the largest products among the closest `probes` lists, and the products by the codes, best first.

        Args:
            query: float32 [W]. allowed: bool [n], rows that may be found.
        """
        return self.search_many(query[None], depth, probes, allowed)[0]

    def search_many(self, queries: FloatArray, depth: int, probes: int, allowed: BoolArray | None = None) -> list[Found]:
        """The same for several queries, float32 [B, W]."""
        queries, count = np.ascontiguousarray(queries), len(queries)
        scores, numbers = np.empty((count, depth), dtype=np.float32), np.empty((count, depth), dtype=np.int64)
        asked, told, named = (faiss.swig_ptr(array) for array in (queries, scores, numbers))
        parameters = self._parameters(probes, allowed)
        self._index.search_c(count, asked, depth, told, named, parameters)  # `search` looks at all arguments again
        return [_whole(*found) for found in zip(numbers, scores, strict=True)]

    def search_lists(self, query: FloatArray, depth: int, lists: NDArray[np.int64], near: FloatArray, allowed: BoolArray) -> Found:
        """The same in the given lists; `near` are the products with their centres."""
        query, lists, near = np.ascontiguousarray(query), np.ascontiguousarray(lists), np.ascontiguousarray(near)
        scores, numbers = np.empty(depth, dtype=np.float32), np.empty(depth, dtype=np.int64)
        pointers = [faiss.swig_ptr(array) for array in (lists, near, scores, numbers)]
        self._index.search_preassigned_c(1, faiss.swig_ptr(query), depth, *pointers, False, self._parameters(len(lists), allowed))
        return _whole(numbers, scores)

    def _parameters(self, probes: int, allowed: BoolArray | None) -> Any:
        return _unfiltered(probes) if allowed is None else faiss.SearchParametersIVF(nprobe=probes, sel=self._bits(allowed))


def _file(centres: Any, width: int, lists: int) -> Any:
    """Codes of the rows themselves, not of what lies between them and their centre: a new item may lie far from every centre."""
    return faiss.IndexIVFScalarQuantizer(centres, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False)


def _selector(allowed: BoolArray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


@cache
def _unfiltered(probes: int) -> Any:
    return faiss.SearchParametersIVF(nprobe=probes)


def _whole(numbers: NDArray[np.int64], scores: FloatArray) -> Found:
    """Without the places that faiss could not fill."""
    if not len(numbers) or numbers[-1] >= 0:
        return numbers, scores
    full = np.count_nonzero(numbers >= 0)
    return numbers[:full], scores[:full]
