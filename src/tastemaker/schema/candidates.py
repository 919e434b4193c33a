"""The one noun that travels the request road: a list of candidates that each stage returns richer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class ChannelScores(msgspec.Struct, frozen=True, eq=False):
    """The union of what the channels found for one query.

    Attributes:
        items: item indices, int32 [M], unique.
        channels: names of the C channels, in column order.
        scores: raw channel scores, float32 [M, C].
        ranks: 0-based place of the item in each channel's own list of the whole catalogue, int32 [M, C];
            places beyond the asked depth all read `depth`.
        counts: training events of each item, float32 [M]; 0 marks an item that training never saw.
        depth: how many places of each channel were looked at.
        vectors: item vectors, float32 [M, D], where the channels have read them for a request under way; None: they have to be looked up.
    """

    items: NDArray[np.int32]
    channels: tuple[str, ...]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int32]
    counts: NDArray[np.float32]
    depth: int
    vectors: NDArray[np.float32] | None = None


def joined(lists: Sequence[ChannelScores]) -> ChannelScores:
    """The candidates of several queries one behind the other, without their vectors; an item may stand there more than once. They have the same channels and depth."""
    if len(lists) == 1:
        return lists[0]
    first = lists[0]
    items, counts = (np.concatenate([getattr(one, name) for one in lists]) for name in ("items", "counts"))
    scores, ranks = (np.concatenate([getattr(one, name).T for one in lists], axis=1).T for name in ("scores", "ranks"))
    return ChannelScores(items, first.channels, scores, ranks, counts, first.depth)


def part(found: ChannelScores, places: NDArray[np.int64], vectors: bool = True) -> ChannelScores:
    """Some of the candidates, in the order of `places`; with their `vectors`, where these are there and wanted."""
    scores, ranks = found.scores.T.take(places, axis=1).T, found.ranks.T.take(places, axis=1).T
    rows = found.vectors.take(places, axis=0) if vectors and found.vectors is not None else None
    return ChannelScores(found.items.take(places), found.channels, scores, ranks, found.counts.take(places), found.depth, rows)


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """What a ranker says of candidates.

    Attributes:
        scores: the final scores, float32 [M].
        heads: names of the labels.
        chances: of each label, float32 [M, heads], NaN where a candidate stood too low to be looked at; None where none was asked for.
    """

    scores: NDArray[np.float32]
    heads: tuple[str, ...] = ()
    chances: NDArray[np.float32] | None = None
