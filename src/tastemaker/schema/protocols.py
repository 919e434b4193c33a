"""The shapes that rooms expect of each other. Whoever fits the shape can take the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.candidates import ChannelScores, Ranked

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]
Lengths: TypeAlias = int | NDArray[np.integer]
"""Of one asker's history, or of each candidate's own asker's, [M]."""
Begins: TypeAlias = NDArray[np.int64]
"""Where each of some lists that stand one behind the other begins, and where the last one ends, [Q + 1]."""
BoolArray: TypeAlias = NDArray[np.bool_]
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as progress(what, done, total) by everything that takes longer than a second."""
Gather: TypeAlias = Callable[[Mapping[str, Callable[[], Any]]], Mapping[str, Any]]
"""Makes calls by name and gives back what came in time; who is missing is left out of the answer."""


class Asker(msgspec.Struct, frozen=True):
    """Who asks, and the moment of the question.

    Attributes:
        user_id: empty for nobody in particular.
        now: epoch seconds.
        context: such as `{"device": "mobile"}`.
    """

    user_id: str
    now: float
    context: Mapping[str, Any] | None = None


class QueryState(msgspec.Struct, frozen=True, eq=False):
    """What is known about the asker at this moment.

    Attributes:
        history: item indices, int32 [L], oldest first; empty for an unknown user.
        user_vector: float32 [D] from the user tower, or None with an empty history.
        popular: what is popular with people like the asker, in [0, 1], float32 [items of the bundle]; None: with everybody.
        segment: who these people are, in words.
        asker: who asks, when, and on what; None: nothing is known of that.
        user: number of the user among those whose connections are known; -1: none of them.
    """

    history: IntArray
    user_vector: FloatArray | None
    popular: FloatArray | None = None
    segment: str = ""
    asker: Asker | None = None
    user: int = -1


class Asked(msgspec.Struct, frozen=True, eq=False):
    """A query whose candidates are to be ordered.

    Attributes:
        found: all candidates. scores: of the fusion, float32 [M]. state: who asks.
        first: places of the candidates that are looked at, best first, [n]. told: declared features of these, float32 [n, G]; None: nothing is told.
    """

    found: ChannelScores
    scores: FloatArray
    state: QueryState
    first: NDArray[np.int64]
    told: FloatArray | None


class ChannelSource(Protocol):
    """Gives candidates with every channel's score. Implemented by `index.channels.Channels`."""

    @property
    def n_items(self) -> int:
        """Number of items, new ones included."""

    def candidates(
        self,
        states: Sequence[QueryState],
        depth: int,
        allowed: BoolArray | None = None,
        filter_seen: bool = True,
        gather: Gather | None = None,
        excluded: Sequence[IntArray] | None = None,
    ) -> list[ChannelScores]:
        """For each query the union of each channel's best `depth` items among `allowed` (bool [N]; None allows all), history left out.

        Each channel is one call of `gather`; one that is missing in its answer finds nothing. None: all are called, one after the other.
        `excluded`: for each query items that may not be found either, int32, which say nothing of the asker; None: none.
        """

    def score_items(self, state: QueryState, items: IntArray, depth: int) -> ChannelScores:
        """Every channel's score of the given items, whatever their place."""


class FusionModel(Protocol):
    """Turns channel scores into one number per item. Implemented by `models.fusion.Fusion`."""

    def score(self, found: ChannelScores, history_length: Lengths) -> FloatArray:
        """Final score, float32 [M]; higher is better, always finite. Candidates of several askers have a history's length each, [M]."""

    def parts(self, found: ChannelScores, history_length: Lengths, begin: Begins | None = None) -> FloatArray:
        """How much of the score each channel brings, float32 [M, C]; what the reasons are made of. `begin`: where each of several lists begins, and M."""


class CandidateRanker(Protocol):
    """Orders scored candidates anew. Implemented by `serving.ranking.LiveRanker`."""

    def first(self, scores: FloatArray, tell: bool = False) -> NDArray[np.int64] | None:
        """Places of the candidates to be looked at, best first; None: nothing is wanted of the ranker.

        Args:
            scores: of the fusion, float32 [M]. tell: chances are wanted even where they decide nothing.
        """

    def hydrate(self, items: IntArray, state: QueryState) -> FloatArray | None:
        """What is read of these items besides their channels, float32 [n, G], in their order; None: nothing."""

    def rank(
        self, found: ChannelScores, scores: FloatArray, state: QueryState, first: NDArray[np.int64], told: FloatArray | None
    ) -> Ranked:
        """Final scores, float32 [M], and the chances of each label where they were computed.

        Args:
            found: the candidates. scores: of the fusion, float32 [M]. state: who asks. first, told: of `first` and `hydrate`.
        """

    def rank_many(self, asked: Sequence[Asked]) -> list[Ranked]:
        """The same for several queries in one piece."""


class ItemVectors(Protocol):
    """Item vectors by index."""

    def __call__(self, indices: IntArray) -> FloatArray:
        """Unit rows, float32 [n, D]."""


class UserEncoder(Protocol):
    """Runs the user tower."""

    def user_vectors(self, histories: Sequence[IntArray]) -> FloatArray:
        """User vectors, float32 [B, D], from item indices, oldest first."""


class TextEncoder(Protocol):
    """Text to whitened unit vectors, the same numbers offline and online."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Whitened, unit-length text vectors, float32 [n, T]; the zero row for an empty text."""
