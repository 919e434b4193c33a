"""What travels the request road: the question, and an answer that every stage gives back richer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.pipeline.explore import Explore
from tastemaker.pipeline.rules import Rules
from tastemaker.pipeline.select import Picked
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray, QueryState
from tastemaker.schema.queries import FEWER, FULL, LEVELS, NO_RANKER, POPULAR, PRECOMPUTED

__all__ = ["FEWER", "FULL", "LEVELS", "NO_RANKER", "POPULAR", "PRECOMPUTED", "Found", "Stage", "Together", "Trip", "Wish"]

_NONE: IntArray = np.zeros(0, dtype=np.int32)


class Wish(msgspec.Struct, frozen=True, eq=False):
    """What one request wants of the road.

    Attributes:
        k: length of the list.
        barred: bool [N], items that must not appear; the history's own items are always left out.
        excluded: indices of items that must not appear either, int32, so few that no look at the whole catalogue is worth it.
        newest: item indices from here on are newer than the bundle; None: none are.
        rules: everything besides relevance that the list obeys.
        explore: the fresh slot, for askers with a history; None: there is none.
        tell: the chances of the ranker are wanted, even where they decide nothing.
        level: the rung of the ladder from which on the answer is made, one of `LEVELS`; more than 0 when the service is busy.
    """

    k: int
    barred: BoolArray | None = None
    newest: int | None = None
    rules: Rules = msgspec.field(default_factory=Rules)
    explore: Explore | None = None
    tell: bool = False
    level: int = FULL
    excluded: IntArray = msgspec.field(default_factory=lambda: _NONE)


class Found(msgspec.Struct, eq=False, dict=True):
    """The list: item indices, scores and sources, best first.

    Attributes:
        nearest: computes `near`.
        parts: how much each channel brought, float32 [n, C]; None unless asked for.
        picked: how the list came about, its places those of `candidates` (item indices, int32 [M]); None where nothing was picked.
        segment: whose popularity it was, in words; empty where nobody's.
        chances: by head, float32 [n, heads]; None where no ranker was asked.
        heads: names of the chances.
        level: the lowest rung that was stepped on, one of `LEVELS`. degraded: what load or a fault took away, in words.
        candidate_scores: the final score of each candidate, float32 [M].
    """

    items: IntArray
    scores: FloatArray
    sources: list[str]
    nearest: Callable[[], list[int]] = list
    parts: FloatArray | None = None
    picked: Picked | None = None
    candidates: IntArray | None = None
    segment: str = ""
    chances: FloatArray | None = None
    heads: tuple[str, ...] = ()
    level: int = FULL
    degraded: list[str] = msgspec.field(default_factory=list)
    candidate_scores: FloatArray | None = None

    @cached_property
    def near(self) -> list[int]:
        """For each place the item of the history that is closest, or -1; computed when it is asked for, as only reasons read it."""
        return self.nearest()


class Trip(msgspec.Struct, eq=False, dict=True):
    """One request under way.

    Attributes:
        found: the candidates. scores: one each, [M].
        first: places of the candidates that the ranker orders, best first, [n]; None: it is not asked. told: what was hydrated of them, [n, G].
        chances, heads: as of `Ranked`. result: the list. error: what is wrong with the question; there is no list then.
        fell: a stage broke under it.
        level, degraded: as of `Found`.
    """

    state: QueryState
    wish: Wish
    found: ChannelScores | None = None
    scores: FloatArray | None = None
    first: NDArray[np.int64] | None = None
    told: FloatArray | None = None
    chances: FloatArray | None = None
    heads: tuple[str, ...] = ()
    result: Found | None = None
    error: InputError | None = None
    fell: bool = False
    level: int = FULL
    degraded: list[str] = msgspec.field(default_factory=list)

    def down(self, level: int, *words: str) -> None:
        """The answer stands no higher than this rung from now on."""
        self.level = max(self.level, level)
        self.degraded += [word for word in words if word not in self.degraded]

    @cached_property
    def away(self) -> IntArray:
        """Items that may not stand in the list whatever `barred` says, int32: what the asker has met and what is excluded."""
        history, excluded = self.state.history, self.wish.excluded
        return np.concatenate([history, excluded]) if len(excluded) else history

    @property
    def candidates(self) -> ChannelScores:
        """The candidates, which the first stage has found."""
        if self.found is None:
            raise LookupError("no candidates were looked for: the stage `source` comes first")
        return self.found

    @property
    def scored(self) -> FloatArray:
        """Their scores, which the stage `score` has given."""
        if self.scores is None:
            raise LookupError("no candidates were scored: the stage `score` comes first")
        return self.scores


Stage: TypeAlias = Callable[[Trip], None]
"""One shape for all of them. A stage may lower the trip's level; when it raises, the reserve answers."""
Stages: TypeAlias = Sequence[tuple[str, Stage]]


class Together(Protocol):
    """A stage that takes several trips in one piece for less than one by one, to the same end. When it raises, they are taken one by one."""

    def many(self, trips: Sequence[Trip]) -> None:
        """Leaves each trip richer."""
