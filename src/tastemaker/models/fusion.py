"""The learned fusion of the channels: a small network over what each channel says of a candidate. NumPy only: it also answers live.

score = w·x + v2·gelu(V1·x + b1), trained listwise: cross entropy of the softmax over one query's candidates against the item that
came next. Simple sums and reciprocal-rank fusion are special cases of the linear part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import Begins, FloatArray, Lengths

_LOG_CHANNELS = ("sequence", "popular")
"""Channels whose score is a logarithm already; the others are similarities, read plainly and by their logarithm."""
_ABSENT = -20.0
CLOSE = 20
"""Places of a channel within which a new item counts as suiting a user."""
_FARTHEST = 100.0  # standard deviations: what lies beyond is a fault of the input


def features(found: ChannelScores, history_length: Lengths) -> FloatArray:
    """What the fusion reads of each candidate, float32 [M, F].

    For each channel its score (similarities also by logarithm), a reciprocal rank and the logarithm of the rank; then whether training
    never saw the item, the logarithm of its events, and that of the history's length.

    Args:
        history_length: of the asker, or of each candidate's own asker, [M], where candidates of several stand one behind the other.
    """
    places, ranks = _places_of(found.channels), np.minimum(found.ranks.T, found.depth)
    scores, (near, far) = found.scores.T, _by_rank(found.depth)
    if not np.isfinite(scores).all():
        scores = np.nan_to_num(scores, nan=_ABSENT, neginf=_ABSENT, posinf=-_ABSENT)
    given = np.empty((places.width, len(found.items)), dtype=np.float32)  # a row a feature: each is written in one piece
    alike = scores[places.alike]
    given[places.log_score] = np.maximum(scores[places.logs], _ABSENT) / 5
    given[places.score] = alike
    given[places.log] = np.log(np.maximum(alike, 0) + 0.01) / 2
    given[places.near] = near[ranks]
    given[places.far] = far[ranks]
    given[-3] = found.counts == 0
    given[-2] = np.log1p(found.counts) / 5
    given[-1] = np.log1p(history_length) / 4
    return np.ascontiguousarray(given.T)


class _Places(NamedTuple):
    """Where features stand, and which channels they are of."""

    width: int
    logs: list[int]
    alike: list[int]
    log_score: list[int]
    score: list[int]
    log: list[int]
    near: list[int]
    far: list[int]


@cache
def _places_of(channels: tuple[str, ...]) -> _Places:
    columns = _columns_of(channels)
    logs = [place for place, name in enumerate(channels) if name in _LOG_CHANNELS]
    alike = [place for place in range(len(channels)) if place not in logs]
    begin = [column.start for column in columns]
    return _Places(
        len(owners(channels)), logs, alike, [begin[place] for place in logs], [begin[place] for place in alike],
        [begin[place] + 1 for place in alike], [column.stop - 2 for column in columns], [column.stop - 1 for column in columns],
    )  # fmt: skip


@cache
def _by_rank(depth: int) -> tuple[FloatArray, FloatArray]:
    """The reciprocal rank and the logarithm of the rank, by rank, float32 [depth + 1]."""
    ranks = np.arange(depth + 1)
    near = np.where(ranks < depth, 10 / (ranks + np.float32(10)), 0)
    return near.astype(np.float32), (np.log1p(ranks) / 5).astype(np.float32)


def boosted(found: ChannelScores) -> NDArray[np.bool_]:
    """Which candidates the boost is for, bool [M]: items that training never saw and that stand near the top of some channel for this user.

    A new item is to reach the people whom it suits, not everybody.
    """
    suits: NDArray[np.bool_] = found.counts == 0
    if suits.any():  # as a rule nothing is new
        suits &= found.ranks.min(axis=1, initial=found.depth) < CLOSE
    return suits


def owners(channels: tuple[str, ...]) -> list[int]:
    """Which channel each feature belongs to; -1 for the item's and the user's own."""
    found = [place for place, name in enumerate(channels) for _ in range(3 if name in _LOG_CHANNELS else 4)]
    return [*found, -1, -1, -1]


@cache
def _columns_of(channels: tuple[str, ...]) -> tuple[slice, ...]:
    """The features of each channel, which stand side by side."""
    owner = owners(channels)
    return tuple(slice(owner.index(place), owner.index(place) + owner.count(place)) for place in range(len(channels)))


@dataclass(frozen=True)
class Fusion:
    """Weights of the fusion.

    Attributes:
        mean, scale: standardising of the features, float32 [F].
        linear: float32 [F].
        hidden: float32 [H, F]; hidden_bias, out: float32 [H].
        cold_boost: added for items that training never saw.
    """

    mean: FloatArray
    scale: FloatArray
    linear: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    out: FloatArray
    cold_boost: float = 0.0

    def score(self, found: ChannelScores, history_length: Lengths) -> FloatArray:
        """Final score of each candidate, float32 [M], always finite; `history_length` as of `features`."""
        return self._forward(features(found, history_length), boosted(found))

    def without_boost(self, found: ChannelScores, scores: FloatArray) -> FloatArray:
        """Scores as they would be if no new item were raised, float32 [M]."""
        raised = boosted(found)
        plain: FloatArray = (scores - self.cold_boost * raised if raised.any() else scores).astype(np.float32)
        return plain

    def parts(self, found: ChannelScores, history_length: Lengths, begin: Begins | None = None) -> FloatArray:
        """How much the score would fall without each channel, float32 [M, C].

        Args:
            found, history_length: as of `features`. begin: where each of several lists begins, and M; None: all are of one list.
        """
        given = features(found, history_length)
        if not len(given):
            return np.zeros((0, len(found.channels)), dtype=np.float32)
        begin = np.array([0, len(given)]) if begin is None else begin
        sizes = np.diff(begin)
        lowest = np.repeat(np.minimum.reduceat(given, begin[:-1][sizes > 0], axis=0), sizes[sizes > 0], axis=0)
        last, boost = np.log1p(found.depth) / 5, boosted(found)
        tables = np.repeat(given[None], len(found.channels) + 1, axis=0)
        for place, mine in enumerate(_columns_of(found.channels), 1):
            tables[place, :, mine] = lowest[:, mine]
            tables[place, :, mine.stop - 2], tables[place, :, mine.stop - 1] = 0, last
        flat = tables.reshape(-1, given.shape[1])
        scores = self._forward(flat, np.tile(boost, len(tables))).reshape(len(tables), len(given))
        return np.ascontiguousarray((scores[0] - scores[1:]).T)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "linear", "hidden", "hidden_bias", "out")}
        return {**arrays, "cold_boost": self.cold_boost}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Fusion:
        """What `to_dict` gave."""
        mean, scale, linear, hidden, hidden_bias, out = (
            np.asarray(table[name], dtype=np.float32) for name in ("mean", "scale", "linear", "hidden", "hidden_bias", "out")
        )
        return cls(mean, scale, linear, hidden, hidden_bias, out, cold_boost=float(table["cold_boost"]))

    @classmethod
    def reciprocal_ranks(cls, channels: tuple[str, ...], cold_boost: float = 0.0) -> Fusion:
        """The fusion of a log too small to learn one from: the sum of the channels' reciprocal ranks."""
        owner = owners(channels)
        linear = np.zeros(len(owner), dtype=np.float32)
        for place in range(len(channels)):
            linear[[i for i, who in enumerate(owner) if who == place][-2]] = 1.0
        zero, one = np.zeros(len(owner), np.float32), np.ones(len(owner), np.float32)
        return cls(
            zero, one, linear, np.zeros((1, len(owner)), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32), cold_boost
        )

    def _forward(self, given: FloatArray, raised: NDArray[np.bool_]) -> FloatArray:
        x = given - self.mean
        x /= self.scale
        np.minimum(np.maximum(x, -_FARTHEST, out=x), _FARTHEST, out=x)
        inner = x @ self.hidden.T
        inner += self.hidden_bias
        inner = 0.5 * inner * (1 + np.tanh(0.7978845608 * (inner + 0.044715 * inner * inner * inner)))
        score = x @ self.linear + inner @ self.out
        if self.cold_boost:
            score += self.cold_boost * raised
        if not np.isfinite(score).all():
            score = np.nan_to_num(score, nan=-1e9, posinf=1e9, neginf=-1e9)
        finite: FloatArray = score.astype(np.float32)
        return finite
