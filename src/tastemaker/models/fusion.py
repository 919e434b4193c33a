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
    places, scores = _places_of(found.channels), found.scores.T
    if np.count_nonzero(np.isfinite(scores)) != scores.size:
        scores = np.nan_to_num(scores, nan=_ABSENT, neginf=_ABSENT, posinf=-_ABSENT)
    given = np.empty((places.width, len(found.items)), dtype=np.float32)  # a row a feature: each is written in one piece
    logs, alike = scores.take(places.logs, axis=0), scores.take(places.alike, axis=0)
    np.maximum(logs, _ABSENT, out=logs)
    logs /= 5
    given[places.log_score], given[places.score] = logs, alike
    np.maximum(alike, 0, out=alike)
    alike += 0.01
    np.log(alike, out=alike)
    alike /= 2
    given[places.log] = alike
    given[places.by_rank] = _by_rank(found.depth).take(found.ranks.T, axis=1, mode="clip").reshape(len(places.by_rank), -1)
    np.equal(found.counts, 0, out=given[-3], casting="unsafe")
    np.log1p(found.counts, out=given[-2])
    given[-2] /= 5
    given[-1] = np.log1p(history_length) / 4
    return np.ascontiguousarray(given.T)


class _Places(NamedTuple):
    """Where features stand, and which channels they are of."""

    width: int
    logs: NDArray[np.int64]
    alike: NDArray[np.int64]
    log_score: NDArray[np.int64]
    score: NDArray[np.int64]
    log: NDArray[np.int64]
    by_rank: NDArray[np.int64]


@cache
def _places_of(channels: tuple[str, ...]) -> _Places:
    columns = _columns_of(channels)
    logs = [place for place, name in enumerate(channels) if name in _LOG_CHANNELS]
    alike = [place for place in range(len(channels)) if place not in logs]
    begin = [column.start for column in columns]
    near, far = [column.stop - 2 for column in columns], [column.stop - 1 for column in columns]
    kinds = logs, alike, [begin[one] for one in logs], [begin[one] for one in alike], [begin[one] + 1 for one in alike], near + far
    return _Places(len(owners(channels)), *(np.array(kind, dtype=np.int64) for kind in kinds))


@cache
def _by_rank(depth: int) -> FloatArray:
    """The reciprocal rank and the logarithm of the rank, by rank, float32 [2, depth + 1]."""
    ranks = np.arange(depth + 1)
    near = np.where(ranks < depth, 10 / (ranks + np.float32(10)), 0)
    return np.array([near, np.log1p(ranks) / 5], dtype=np.float32)


@cache
def _without(channels: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which features are of each channel, in the rows behind a first one of which none are, bool [C + 1, 1, F]."""
    found = np.zeros((len(channels) + 1, 1, len(owners(channels))), dtype=bool)
    for place, mine in enumerate(_columns_of(channels), 1):
        found[place, :, mine] = True
    return found


def boosted(found: ChannelScores) -> NDArray[np.bool_]:
    """Which candidates the boost is for, bool [M]: items that training never saw and that stand near the top of some channel for this user.

    A new item is to reach the people whom it suits, not everybody.
    """
    if np.count_nonzero(found.counts) == len(found.counts):  # as a rule nothing is new
        return np.zeros(len(found.counts), dtype=bool)
    suits: NDArray[np.bool_] = found.counts == 0
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
        if not self.cold_boost or np.count_nonzero(found.counts) == len(found.counts):
            return scores.astype(np.float32, copy=False)
        plain: FloatArray = (scores - self.cold_boost * boosted(found)).astype(np.float32)
        return plain

    def parts(self, found: ChannelScores, history_length: Lengths, begin: Begins | None = None) -> FloatArray:
        """How much the score would fall without each channel, float32 [M, C].

        Args:
            found, history_length: as of `features`. begin: where each of several lists begins, and M; None: all are of one list.
        """
        given = features(found, history_length)
        if not len(given):
            return np.zeros((0, len(found.channels)), dtype=np.float32)
        if begin is None:
            lowest = given.min(axis=0, keepdims=True)
        else:
            sizes = np.diff(begin)
            lowest = np.repeat(np.minimum.reduceat(given, begin[:-1][sizes > 0], axis=0), sizes[sizes > 0], axis=0)
        channels, by_rank = len(found.channels), _places_of(found.channels).by_rank
        lowest[:, by_rank[:channels]], lowest[:, by_rank[channels:]] = 0, _by_rank(found.depth)[1, -1]
        flat = np.where(_without(found.channels), lowest, given).reshape(-1, given.shape[1])
        boost = boosted(found)
        scores = self._forward(flat, np.concatenate([boost] * (channels + 1))).reshape(channels + 1, len(given))
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
        cubic = 0.044715 * inner
        cubic *= inner
        cubic *= inner
        cubic += inner
        cubic *= 0.7978845608
        np.tanh(cubic, out=cubic)
        cubic += 1
        inner *= 0.5
        inner *= cubic
        score = x @ self.linear
        score += inner @ self.out
        if self.cold_boost:
            score += self.cold_boost * raised
        if np.count_nonzero(np.isfinite(score)) != len(score):
            score = np.nan_to_num(score, nan=-1e9, posinf=1e9, neginf=-1e9)
        finite: FloatArray = score.astype(np.float32, copy=False)
        return finite
