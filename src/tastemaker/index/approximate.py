"""Approximate search for large catalogues: an inverted file that the bundle brings, and what changed since in this process's own memory.

    head      the rows with the largest offsets, scanned one by one: the popular may be the best for anybody, wherever they lie
    base      the bundle's rows, memory-mapped, shared by all workers, never written to
    delta     rows added or replaced since, in lists around the same centres
    waiting   the latest of these, scanned one by one; some of them move into the delta with each new one, so that no change takes long

A row that was replaced is left out of the base and of the delta's older entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.index.coded import Vectors
from tastemaker.index.column import grown
from tastemaker.index.exact import DenseIndex, Neighbour, depths_of
from tastemaker.index.products import Products
from tastemaker.schema.protocols import BoolArray, FloatArray
from tastemaker.schema.unwritten import FILTERS, OfLatest, unwritten

if TYPE_CHECKING:
    from tastemaker.index._faiss import Found, InvertedFile

WAITING = 2_048
"""Changed rows that are scanned one by one, at most; more move into the delta, `MOVED` at a time."""
MOVED = 64
SCANNED = 2_048
"""A base of so few rows is scanned one by one, exactly."""
HEAD = 1_024
"""Rows of the head."""
FEW = 2
"""So many times the rows that a search reads anyway may be allowed for all of them to be looked at."""
CODES = 4
"""A row that is scanned by its own vector costs as much as so many codes in lists, allowed or not."""
PIECE = 512
"""Rows that are scanned in one piece: what is read stays in the cache until it is multiplied."""
SORTED = 640
"""So few finds are sorted as they are; of more the best are chosen first."""
MANY = 0.5
"""Share of allowed rows from which the lists are read as without a filter, some more of them; below, lists are chosen by what is allowed in them."""


def _places(allowed: BoolArray) -> NDArray[np.int64]:
    return unwritten(np.flatnonzero(allowed))


places_of = OfLatest(_places, 3 * FILTERS)
"""Places of what is allowed; kept by all indexes of a process together, as they are asked with the same filters."""


class Plan(msgspec.Struct, frozen=True):
    """How an inverted file is asked, and what it reached when it was built.

    Attributes:
        rows: of the base. dim: length D of a vector. lists: how many; probes: how many a search reads.
        scale, radius: as of `completed`.
        recall: share of the true best hundred that were found, over `questions` searches.
        more: share of the wanted items that is looked for besides, all of which are then scored by their own vectors; 0: products are those of the codes.
    """

    rows: int
    dim: int
    lists: int
    probes: int
    scale: float
    radius: float
    recall: float
    questions: int
    more: float = 0.0


class ApproximateIndex(DenseIndex):
    """A `DenseIndex` whose `search` reads few rows and may miss some. `rows` and `scores` are exact, products of `search` are those of 8-bit codes.

    Args:
        vectors, offsets: as of `DenseIndex`. inverted: of the same rows. list_of: the list of each of them, [N]. plan: how it is asked.
        head: rows that every search looks at, growing, [H].
    """

    approximate = True

    def __init__(
        self,
        vectors: FloatArray | Vectors,
        offsets: FloatArray | None,
        inverted: InvertedFile,
        list_of: NDArray[np.uint16],
        plan: Plan,
        head: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(vectors, offsets)
        self._file, self._list_of, self.plan = inverted, list_of, plan
        self._head = np.zeros(0, np.int64) if head is None else np.asarray(head)
        offsets = None if self.offsets is None else self.offsets.values[self._head]
        self._head_products = Products(
            completed(self._base.rows(self._head), inverted.centres.shape[1], plan.scale, plan.radius, offsets)
        )
        self._head_place = np.full(plan.rows, -1, np.int16)
        self._head_place[self._head] = np.arange(len(self._head))
        self._current: BoolArray | None = None  # rows of the base that were not replaced; None: all
        self._open_rows = OfLatest(self._open_of, FILTERS)
        self._held_of = OfLatest(self._held, FILTERS)
        self._replaced = 0
        self._delta = inverted.empty()
        self._row_of = np.zeros(0, np.int64)  # of each entry of the delta
        self._valid = np.zeros(0, bool)
        self._dead = 0
        self._entry_of: dict[int, int] = {}
        self._waiting = np.zeros((16, inverted.centres.shape[1]), dtype=np.float32)
        self._waiting_rows: list[int] = []
        self._place_of: dict[int, int] = {}

    @property
    def entries(self) -> tuple[int, int]:
        """Entries of the delta, dead ones included, and changed rows that still wait."""
        return len(self._delta), len(self._waiting_rows)

    def append(self, vector: FloatArray, offset: float = 0.0) -> int:
        """Adds a row; gives its index. The next search finds it."""
        row = super().append(vector, offset)
        self._put(row, vector)
        return row

    def replace(self, row: int, vector: FloatArray) -> None:
        """Gives a row another vector; its offset stays. The next search finds it at its new place."""
        super().replace(row, vector)
        if row < self.plan.rows:
            if self._current is None:
                self._current = np.ones(self.plan.rows, dtype=bool)
            self._replaced += int(self._current[row])
            self._current[row] = False
            self._open_rows = OfLatest(self._open_of, FILTERS)
        entry = self._entry_of.pop(row, None)
        if entry is not None:
            self._valid[entry] = False
            self._dead += 1
        self._put(row, vector)

    def search(self, queries: FloatArray, depth: int | Sequence[int], allowed: BoolArray | None = None) -> list[Neighbour]:
        """As of `DenseIndex`, found in the closest lists; where few items are allowed they are scanned one by one, exactly."""
        depths = [min(one, len(self)) for one in depths_of(depth, len(queries))]
        if max(depths, default=0) <= 0 or (allowed is not None and not allowed.any()):
            nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
            return [nothing for _ in queries]
        wide = widened(np.asarray(queries, dtype=np.float32), self._waiting.shape[1], self.plan.scale)
        found = self._of_base(wide, depths, allowed)
        return [self._one(*one, allowed) for one in zip(wide, found, depths, strict=True)]

    def _open_of(self, allowed: BoolArray) -> tuple[BoolArray, int]:
        """Which rows of the base may be found, and how many may not."""
        found: BoolArray = allowed if len(allowed) == self.plan.rows else allowed[: self.plan.rows]
        if self._current is not None:
            found = found & self._current
        if self._current is not None and not allowed.flags.writeable:
            unwritten(found)
        return found, self.plan.rows - int(np.count_nonzero(found))

    def _barred(self, allowed: BoolArray | None) -> tuple[BoolArray | None, int]:
        """The same; None: all may be found."""
        return (self._current, self._replaced) if allowed is None else self._open_rows(allowed)

    def _way(self, depth: int, open_: BoolArray | None, barred: int) -> str:
        """How so many rows are looked for: `scan` what is open, lists as if `all` were open, some more rows for those `beside`, with the `bits` of what is open, or by
        what the `lists` hold of that."""
        plan, left = self.plan, self.plan.rows - barred
        if plan.rows <= SCANNED:
            return "scan"
        if open_ is None or not barred:
            return "all"
        if left <= FEW * max(self._read, depth):  # many that lie close together are quicker by their codes, all of them
            return "lists" if left > max(self._read // FEW, depth) and self._around(open_) < CODES * left else "scan"
        if barred <= depth:
            return "beside"
        return "bits" if left >= MANY * plan.rows else "lists"

    @property
    def _read(self) -> int:
        """How many rows a search reads where nothing is barred."""
        return self.plan.rows * self.plan.probes // self.plan.lists

    def _rough(self, depth: int) -> int:
        """How many rows are looked for by their codes."""
        return depth + math.ceil(self.plan.more * depth)

    def _one(self, query: FloatArray, base: Found, depth: int, allowed: BoolArray | None) -> Neighbour:
        """The best of one query; `base` are those of the base."""
        parts = [base]
        if len(self._delta):
            parts.append(self._of_delta(query, depth, allowed))
        if self._waiting_rows:
            parts.append(self._of_waiting(query, allowed))
        items, scores = parts[0] if len(parts) == 1 else (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(items) > max(depth + depth // 4, SORTED):
            best = (-scores).argpartition(depth)[:depth]
            items, scores = items[best], scores[best]
        order = (-scores).argsort()
        falling = scores[order]
        if np.count_nonzero(falling[1:] == falling[:-1]):  # of equals the smaller index comes first
            order = np.lexsort((items, -scores))
            falling = scores[order]
        return items[order[:depth]].astype(np.int32), falling[:depth]

    def _of_base(self, wide: FloatArray, depths: Sequence[int], allowed: BoolArray | None) -> list[Found]:
        """The best of the base for each query, looked for in one piece where all are looked for in the same way."""
        open_, barred = self._barred(allowed)
        ways = [self._way(self._rough(depth), open_, barred) for depth in (max(depths), min(depths))]
        if ways[0] == ways[1]:
            return self._by(ways[0], wide, depths, open_, barred)
        singly = (
            (self._way(self._rough(depth), open_, barred), query[None], [depth]) for query, depth in zip(wide, depths, strict=True)
        )
        return [self._by(*one, open_, barred)[0] for one in singly]

    def _by(self, way: str, wide: FloatArray, depths: Sequence[int], open_: BoolArray | None, barred: int) -> list[Found]:
        """The best of the base in a way of `_way`, by their own vectors where the codes alone were found too rough."""
        if way == "scan":
            return self._scanned(wide, np.arange(self.plan.rows) if open_ is None else places_of(open_))
        roughs, heads = [self._rough(depth) for depth in depths], self._head_products.of(wide)
        if way == "lists" and open_ is not None:
            lists = [self._in_lists(query, rough, open_) for query, rough in zip(wide, roughs, strict=True)]
        else:
            lists = self._of_lists(wide, max(roughs), open_, barred, way)
        found = [
            self._with_head(head, rough, open_, (items[:rough], scores[:rough]))
            for head, rough, (items, scores) in zip(heads, roughs, lists, strict=True)
        ]
        if not self.plan.more:
            return found
        return [self._scanned(query[None], items)[0] for query, (items, _) in zip(wide, found, strict=True)]

    def _of_lists(self, queries: FloatArray, depth: int, allowed: BoolArray | None, barred: int, way: str) -> list[Found]:
        """Of the closest lists, in a way of `_way`."""
        plan = self.plan
        if way == "all" or allowed is None:
            return self._file.search_many(queries, depth, plan.probes)
        if way == "beside":
            found = self._file.search_many(queries, depth + barred, plan.probes)
            return [(numbers[keep], scores[keep]) for numbers, scores in found for keep in (allowed[numbers],)]
        probes = min(-(-plan.probes * plan.rows // (plan.rows - barred)), plan.lists)
        return self._file.search_many(queries, depth, probes, allowed)

    def _with_head(
        self, own: FloatArray, depth: int, allowed: BoolArray | None, found: tuple[NDArray[np.int64], FloatArray]
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """What the lists gave, and what of the head, whose products are `own`, is as good."""
        if not len(self._head):
            return found
        items, scores = found
        if allowed is not None:
            own[~allowed[self._head]] = -np.inf
        least = scores[-1] if len(scores) >= depth else np.float32(-np.inf)
        good = own > least
        places = self._head_place[items]
        known = places >= 0
        good[places[known]] = True  # their own products stand for those of the codes
        alone, near = ~known, good.nonzero()[0]
        return np.concatenate([items[alone], self._head[near]]), np.concatenate([scores[alone], own[near]])

    def _scanned(self, queries: FloatArray, places: NDArray[np.int64]) -> list[Found]:
        """Rows with their products with each query."""
        turned = np.ascontiguousarray(queries[:, : self.dim].T)
        scores = np.empty((len(places), len(queries)), dtype=np.float32)
        for begin in range(0, len(places), PIECE):
            part = places[begin : begin + PIECE]
            np.matmul(self._base.rows(part), turned, out=scores[begin : begin + PIECE])
        if self.offsets is not None:
            scores += self.offsets.values[places][:, None]
        return [(places, one) for one in np.ascontiguousarray(scores.T)]

    def _in_lists(self, query: FloatArray, depth: int, allowed: BoolArray) -> Found:
        """In the closest lists that together hold enough allowed rows: a filter that goes with the vectors leaves most lists empty."""
        held, wanted = self._held_of(allowed), FEW * max(self._read, depth)
        near: FloatArray = self._file.centres @ query
        full = np.flatnonzero(held)
        order = full[np.argsort(-near[full])]
        enough = int(np.searchsorted(np.cumsum(held[order]), wanted)) + 1
        chosen = order[: max(enough, min(self.plan.probes, len(order)))].astype(np.int64)
        return self._file.search_lists(query, depth, chosen, near[chosen], allowed)

    def _around(self, allowed: BoolArray) -> int:
        """How many rows the lists with allowed rows hold in all."""
        return int(self._sizes[self._held_of(allowed) > 0].sum())

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.bincount(self._list_of, minlength=self.plan.lists)

    def _held(self, allowed: BoolArray) -> NDArray[np.int64]:
        """How many allowed rows each list holds, [lists]."""
        return np.bincount(self._list_of.take(places_of(allowed)), minlength=self.plan.lists)

    def _of_delta(self, query: FloatArray, depth: int, allowed: BoolArray | None) -> tuple[NDArray[np.int64], FloatArray]:
        good = self._valid if allowed is None else self._valid & allowed[self._row_of]
        bad = len(good) - int(np.count_nonzero(good))
        probes = max(self.plan.probes, min(self.plan.lists, self.plan.probes * len(good) // max(len(good) - bad, 1)))
        if bad <= depth:
            numbers, scores = self._delta.search(query, min(depth + bad, len(good)), probes)
            keep = good[numbers]
            numbers, scores = numbers[keep], scores[keep]
        elif bad == len(good):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        else:
            numbers, scores = self._delta.search(query, min(depth, len(good)), probes, good)
        return self._row_of[numbers], scores

    def _of_waiting(self, query: FloatArray, allowed: BoolArray | None) -> tuple[NDArray[np.int64], FloatArray]:
        rows = np.array(self._waiting_rows, dtype=np.int64)
        scores: FloatArray = self._waiting[: len(rows)] @ query
        return (rows, scores) if allowed is None else (rows[allowed[rows]], scores[allowed[rows]])

    def _wide(self, rows: FloatArray, offsets: FloatArray | None) -> FloatArray:
        return completed(rows, self._waiting.shape[1], self.plan.scale, self.plan.radius, offsets)

    def _put(self, row: int, vector: FloatArray) -> None:
        """A row's newest vector waits; if many wait, the first of them move on."""
        offset = None if self.offsets is None else self.offsets.values[row : row + 1]
        wide = self._wide(np.asarray(vector, dtype=np.float32)[None], offset)[0]
        place = self._place_of.get(row)
        if place is not None:
            self._waiting[place] = wide
            return
        place = len(self._waiting_rows)
        self._waiting = grown(self._waiting, place, place + 1)
        self._waiting[place] = wide
        self._waiting_rows.append(row)
        self._place_of[row] = place
        if len(self._waiting_rows) > WAITING:
            self._move()

    def _move(self) -> None:
        """The last that wait go into the delta. A delta of mostly dead entries begins anew: its living rows wait again."""
        if self._dead > max(len(self._valid) // 2, WAITING):
            self._begin_anew()
        left = len(self._waiting_rows) - MOVED
        rows = self._waiting_rows[left:]
        self._delta.add([np.ascontiguousarray(self._waiting[left : left + MOVED])])
        for number, row in enumerate(rows, len(self._row_of)):
            self._entry_of[row] = number
            del self._place_of[row]
        self._row_of = np.append(self._row_of, rows)
        self._valid = np.append(self._valid, np.ones(len(rows), bool))
        del self._waiting_rows[left:]

    def _begin_anew(self) -> None:
        self._delta, living = self._file.empty(), sorted(self._entry_of)
        self._row_of, self._valid, self._dead, self._entry_of = np.zeros(0, np.int64), np.zeros(0, bool), 0, {}
        first, count = len(self._waiting_rows), len(living)
        self._waiting = grown(self._waiting, first, first + count)
        offsets = None if self.offsets is None else self.offsets.values[np.array(living, np.int64)]
        self._waiting[first : first + count] = self._wide(self.rows(np.array(living, np.int64)), offsets)
        self._waiting_rows += living
        self._place_of |= {row: place for place, row in enumerate(living, first)}


def widened(rows: FloatArray, width: int, scale: float) -> FloatArray:
    """Queries as an inverted file reads them, float32 [n, W]."""
    found = np.zeros((len(rows), width), dtype=np.float32)
    found[:, : rows.shape[1]] = rows
    if scale:
        found[:, rows.shape[1]] = scale
    return found


def completed(rows: FloatArray, width: int, scale: float, radius: float, offsets: FloatArray | None) -> FloatArray:
    """Rows as an inverted file holds them, float32 [n, W]: offsets are a dimension, so that products have them in it, and one more makes all rows equally long.

    Of rows of one length those with the largest product are the closest, and lists around centres hold what is close (Y. Bachrach et al., 2014, "Speeding Up the
    Xbox Recommender System Using a Euclidean Transformation for Inner-Product Spaces").

    Args:
        rows: float32 [n, D]. scale: of the dimension that holds offset / scale; 0: there are none. radius: length of the rows; longer ones stay as they are.
    """
    found = widened(rows, width, 0.0)
    if scale and offsets is not None:
        found[:, rows.shape[1]] = offsets / scale
        found[:, rows.shape[1] + 1] = np.sqrt(np.maximum(radius**2 - np.einsum("nd,nd->n", found, found), 0.0))
    return found


def load(folder: Path, name: str, vectors: Vectors, offsets: FloatArray | None = None, approximate: bool = True) -> DenseIndex:
    """An index over vectors as a bundle holds it: approximate where `build` left a file and it is wanted, else exact."""
    path = folder / f"{name}.ivf"
    if not approximate or not path.is_file():
        return DenseIndex(vectors, offsets)
    try:
        from tastemaker.index._faiss import InvertedFile
    except ImportError:
        print(
            f"{name}: every search reads all {len(vectors):,} items, which takes long: faiss is missing. pip install faiss-cpu",
            flush=True,
        )
        return DenseIndex(vectors, offsets)
    plan = msgspec.json.decode((folder / f"{name}.plan.json").read_bytes(), type=Plan)
    list_of: NDArray[np.uint16] = np.asarray(np.load(folder / f"{name}.lists.npy", mmap_mode="r", allow_pickle=False))
    head = np.load(folder / f"{name}.head.npy", allow_pickle=False)
    return ApproximateIndex(vectors, offsets, InvertedFile.read(path), list_of, plan, head)
