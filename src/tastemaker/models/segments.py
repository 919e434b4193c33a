"""What is popular with people like somebody of whom only attributes are known. NumPy only: it also answers live.

    log p(item | person) = log p(item) + sum over columns of weight * (log p(item | the column's segment) - log p(item)) + a constant

p(item) is recent popularity; each segment's popularity is smoothed towards that of all: (n(segment, item) + m p(item)) / (n(segment) + m), a
Dirichlet prior of strength m. With one column of weight 1 that is the segment's own popularity; several are joined as if they were independent
(naive Bayes). Which columns, m and the weights are chosen in `training.segments`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.sparse as sp

from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import FloatArray, QueryState
from tastemaker.schema.unwritten import kept_of, unwritten

_LARGEST_TEXT = 200


class Column(msgspec.Struct, frozen=True):
    """How a column of the users' table becomes segments.

    Attributes:
        name: of the column. weight: of its part in the sum.
        edges: of a column of numbers: segment s holds edges[s - 1] < x <= edges[s], the outer ones are open.
        values: of a column of words: segment s holds values[s]; others belong to none.
    """

    name: str
    weight: float = 1.0
    edges: list[float] | None = None
    values: list[str] | None = None

    @property
    def size(self) -> int:
        """Number of segments."""
        return len(self.edges) + 1 if self.edges is not None else len(self.values or [])

    def segment(self, attributes: Mapping[str, Any]) -> int:
        """The segment of a person; -1 for none."""
        value = attributes.get(self.name)
        if value is None or isinstance(value, (list, dict)):
            return -1
        if self.edges is not None:
            number = number_of(value)
            return int(np.searchsorted(self.edges, number, side="left")) if math.isfinite(number) else -1
        text = word_of(value)
        return self.values.index(text) if self.values is not None and text in self.values else -1

    def words(self, segment: int) -> str:
        """A segment in words."""
        if self.values is not None:
            return f"{self.name} {self.values[segment]}"
        edges = self.edges or []
        low = f"above {edges[segment - 1]:g}" if segment > 0 else ""
        high = f"up to {edges[segment]:g}" if segment < len(edges) else ""
        return f"{self.name} {low}{', ' if low and high else ''}{high}"


class Segments:
    """Popularity by segment.

    Args:
        prior: log p(item), float32 [N].
        columns: those that were chosen.
        base: log-lift of an item that nobody of the segment met, one array a column, float32 [segments].
        lifts: what the log-lift of the met ones lies above that, one sparse matrix a column, float32 [segments, N].
    """

    def __init__(
        self, prior: FloatArray, columns: Sequence[Column], base: Sequence[FloatArray], lifts: Sequence[sp.csr_matrix]
    ) -> None:
        self.prior, self.columns, self._base, self._lifts = prior, tuple(columns), tuple(base), tuple(lifts)
        self._latest = lru_cache(kept_of(prior.nbytes))(self._popular)

    def lift(self, column: int, segment: int) -> FloatArray:
        """log p(item | segment) - log p(item), float32 [N]."""
        lifts = self._lifts[column]
        found = np.full(len(self.prior), self._base[column][segment], dtype=np.float32)
        part = slice(int(lifts.indptr[segment]), int(lifts.indptr[segment + 1]))
        found[lifts.indices[part]] += lifts.data[part]
        return found

    def popular(self, attributes: Mapping[str, Any]) -> tuple[FloatArray, str] | None:
        """What is popular with people like this, in [0, 1], float32 [N], and who they are in words; None: of nobody more than of others.

        The array can't be written to, and is the same one for the same segments, of which the latest few are kept.
        """
        segments = tuple(column.segment(attributes) for column in self.columns)
        if not len(self.prior) or max(segments, default=-1) < 0:
            return None
        return self._latest(segments)

    def _popular(self, segments: tuple[int, ...]) -> tuple[FloatArray, str]:
        """The same, by the segment of each column; -1: of none."""
        mine = [(place, segment) for place, segment in enumerate(segments) if segment >= 0]
        score = self.prior.copy()
        for place, segment in mine:
            score += self.columns[place].weight * self.lift(place, segment)
        low, high = float(score.min()), float(score.max())
        words = ", ".join(self.columns[place].words(segment) for place, segment in mine)
        return unwritten((score - low) / ((high - low) or 1.0)), words[:_LARGEST_TEXT]

    def save(self, folder: Path) -> None:
        """Writes arrays as `.npy` and the columns as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "prior.npy", self.prior, allow_pickle=False)
        for place, (base, lifts) in enumerate(zip(self._base, self._lifts, strict=True)):
            arrays = {"base": base, "indptr": lifts.indptr, "indices": lifts.indices, "data": lifts.data}
            for name, array in arrays.items():
                np.save(folder / f"{place}.{name}.npy", array, allow_pickle=False)
        (folder / "columns.json").write_bytes(msgspec.json.encode(self.columns))

    @classmethod
    def load(cls, folder: Path) -> Segments:
        """Reads what `save` wrote, memory-mapped."""

        def array(name: str) -> FloatArray:
            found: FloatArray = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return found

        columns = msgspec.json.decode((folder / "columns.json").read_bytes(), type=list[Column])
        prior = array("prior")
        lifts = [
            sp.csr_matrix(
                (array(f"{place}.data"), array(f"{place}.indices"), array(f"{place}.indptr")),
                shape=(column.size, len(prior)),
                copy=False,
            )
            for place, column in enumerate(columns)
        ]
        return cls(np.array(prior), columns, [np.array(array(f"{place}.base")) for place in range(len(columns))], lifts)


def with_profile(state: QueryState, segments: Segments | None, attributes: Mapping[str, Any] | None) -> QueryState:
    """The state of somebody without a history, told what is popular with people like him; any other state is left as it is."""
    if segments is None or not attributes or len(state.history) or state.user_vector is not None:
        return state  # a user vector without a history is that of friends
    found = segments.popular(attributes)
    return state if found is None else msgspec.structs.replace(state, popular=found[0], segment=found[1])


def newcomer_scores(scores: FloatArray, found: ChannelScores, state: QueryState) -> FloatArray:
    """The scores of candidates for an asker without a history, float32 [M]: what is popular with people like him, or with everybody.

    The fusion never learns from empty histories, and ranks worse than recent popularity there, unless friends are known: such questions it does learn
    from, and a user vector without a history is that of friends. Scores for any other asker stay as given.
    """
    if len(state.history) or state.user_vector is not None or "popular" not in found.channels:
        return scores
    return found.scores[:, found.channels.index("popular")]


def word_of(value: Any) -> str:
    """An attribute as a word: trimmed, lower case."""
    return str(value).strip().casefold()


def number_of(value: Any) -> float:
    """An attribute as a number; NaN where it is none."""
    try:
        return float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return math.nan
