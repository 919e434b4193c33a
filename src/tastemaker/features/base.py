"""What a feature is: four answers in one file.

1. `remembers`: the memories that it keeps; each says by what key, of which events, and fading how: this is what an event changes.
2. `reads`: the columns that it looks at. 3. `columns`: the names of its numbers. 4. `gives`: the numbers, by one formula over arrays.
The formula looks through a `Look`, which is filled from the whole log (training) or from live memories (serving): there is no second
formula that could differ. A feature must never know files, models, or from which side it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.facts import Facts
from tastemaker.features.key import Key
from tastemaker.features.memories.memory import Memory, Told
from tastemaker.features.rows import Rows
from tastemaker.schema.protocols import FloatArray

Numbers = NDArray[np.float64]
DAY = 86_400.0
SHARED = 4
"""Rows in a row that ask for the same other items, on the average, from which on they are computed together."""
LONGEST = 1e10
"""Seconds (317 years) to which spans are clipped: what never happened is longest ago."""


@dataclass(frozen=True)
class FeatureQuery:
    """Numbers are asked for one user and several items at one moment (epoch seconds), in a context such as `{"device": "mobile"}`."""

    user_id: str
    item_ids: Sequence[str]
    now: float
    context: Mapping[str, Any] | None = None


class Source(Protocol):
    """Where a look gets what memories tell: the past of a log, or live memories."""

    def tell(self, memory: Memory[Told], codes: NDArray[np.int64], now: NDArray[np.float64]) -> Told:
        """What a memory tells of codes at moments, [m]."""


class Look:
    """What a formula sees: rows, facts about their items, and what memories tell.

    Attributes:
        rows: who, which item, when, [n]. facts: of the catalogue.
    """

    def __init__(self, rows: Rows, facts: Facts, source: Source) -> None:
        self.rows, self.facts, self._source = rows, facts, source
        self._codes: dict[Key, tuple[NDArray[np.int64], NDArray[np.int64] | None]] = {}

    @cached_property
    def texts(self) -> FloatArray:
        """Unit text vectors of the rows' items, float32 [n, T]."""
        found: FloatArray = self.facts.vectors.read(self.rows.item)
        return found

    def cosines(self, others: NDArray[np.int64]) -> Numbers:
        """Cosines of the texts of the rows' items with those of other items, [n, L] as their slots; 0 where one is unknown."""
        begins = runs(others)
        if 0 < len(begins) * SHARED <= len(others):  # one user and many items, as in a list: one product each
            found = np.empty(others.shape, dtype=np.float32)
            for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(others)], strict=True):
                found[begin:end] = self.texts[begin:end] @ self.facts.vectors.read(others[begin]).T
        else:
            found = np.matmul(self.facts.vectors.read(others), self.texts[:, :, None])[:, :, 0]
        cosines: Numbers = np.clip(found, -1.0, 1.0).astype(np.float64)
        return cosines

    def __call__(self, memory: Memory[Told]) -> Told:
        """What a memory tells of each row; of each (row, category) where its key has categories: see `spread` and `mean`."""
        codes, owner = self._of(memory.key)
        return self._source.tell(memory, codes, self.rows.now if owner is None else self.rows.now[owner])

    def spread(self, key: Key, values: NDArray[Any]) -> NDArray[Any]:
        """Values of rows, [n], beside those of a key, [m]."""
        owner = self._of(key)[1]
        return values if owner is None else values[owner]

    def mean(self, key: Key, values: NDArray[Any], missing: NDArray[Any] | float = 0.0) -> Numbers:
        """The mean of a key's values over the categories of each row, float64 [n]; `missing` where a row has no code at all."""
        codes, owner = self._of(key)
        if owner is None:
            return np.where(codes >= 0, values, missing)
        count = np.bincount(owner, minlength=len(self.rows))
        total = np.bincount(owner, values, minlength=len(self.rows))
        return np.where(count > 0, total / np.maximum(count, 1), missing)

    def _of(self, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        if key not in self._codes:
            self._codes[key] = key.codes(self.rows, self.facts)
        return self._codes[key]


class Feature(Protocol):
    """The shape that all features share: frozen dataclasses whose fields are the parameters that settings may name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers; one empty name where there is only one."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of events and items, and fields of the context, that it looks at."""

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Its memories. Equal memories of several features are kept once."""

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """One array [n] for each of its columns, always finite."""


def runs(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a row differs from the one before, the first row included, int64 [k], of rows [n, L]: those of one list are alike."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]).any(axis=1)))


def span(seconds: NDArray[np.float64], unit: float = DAY) -> Numbers:
    """log(1 + seconds / unit), with seconds within 0 … `LONGEST`: how long ago, on a scale that tells minutes and years apart."""
    return np.log1p(np.minimum(np.maximum(seconds, 0.0), LONGEST) * (1 / unit))


def since(look: Look, time: Numbers, unit: float = DAY) -> Numbers:
    """`span` from times until now, [n]; the longest where either is none."""
    with np.errstate(invalid="ignore"):
        passed = look.rows.now - time
    return span(np.where(passed > -np.inf, passed, np.inf), unit)


def smoothed(part: NDArray[Any], whole: NDArray[Any], prior: NDArray[Any] | float, weight: float) -> Numbers:
    """A share pulled towards a prior as if it had been seen `weight` times: (part + weight · prior) / (whole + weight), within [0, 1].

    The posterior mean of a Beta prior; Micci-Barreca, A preprocessing scheme for high-cardinality categorical attributes, 2001.
    """
    return np.clip((part + weight * prior) / np.maximum(whole + weight, 1e-12), 0.0, 1.0)
