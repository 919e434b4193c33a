"""What a ranker reads of a candidate: what the channels and the fusion say, declared features, text, vectors, names. The same lines offline and online."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from tastemaker.features.categories import Categories
from tastemaker.features.likeness import LIKENESS
from tastemaker.features.preparation import Preparation, Reducer, Reduction, Scaler
from tastemaker.models.ranker import Columns
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import Begins, FloatArray

LOWEST = -20.0
"""What a channel's score is where it has none, and no score lies lower."""
SAME = 1e-4
"""Scores closer than this share a place: a product of another shape differs in the last digits."""
FLAT = 1e-6
"""Added to a spread, so that a channel that says the same of all says nothing."""
HISTORY = "history"
OF_LIST = ("fusion.gap", "fusion.place", "new", "trained", HISTORY, "cosine", "fusion")


def channel_names(channels: Sequence[str]) -> list[str]:
    """Names of the columns that `channel_columns` gives."""
    return [*(f"{name}.{what}" for what in ("score", "near") for name in channels), *OF_LIST]


def channel_columns(
    found: ChannelScores,
    fusion: FloatArray,
    best: Sequence[FloatArray],
    histories: Sequence[int],
    cosine: FloatArray,
    begin: Begins,
) -> FloatArray:
    """What the channels and the fusion say of candidates of some lists, one behind the other, float32 [R, 2C + 7].

    For each channel its score, then for each 1 / (1 + place); the fusion's score below the best one's and the logarithm of its place; whether training
    never saw the item, the logarithms of its events and of the history's length; the cosine of user and item vector; the fusion's score.

    Args:
        found: the candidates, or items beside them.
        fusion: their scores by the fusion, new items not raised, [R].
        best: for each list such scores of all candidates of the query, in whatever order, [N].
        histories: events of each asker. cosine: of the asker's and the items' vectors, [R]. begin: where each list begins, and R, [Q + 1].
    """
    channels = len(found.channels)
    columns = np.empty((2 * channels + len(OF_LIST), len(fusion)), dtype=np.float32)  # a row a column: each is written in one piece
    own = columns[2 * channels :]
    np.maximum(found.scores.T, LOWEST, out=columns[:channels])
    if np.count_nonzero(np.isfinite(columns[:channels])) != columns[:channels].size:
        np.nan_to_num(columns[:channels], copy=False, nan=LOWEST)
    _near(found.depth).take(found.ranks.T, mode="clip", out=columns[channels : 2 * channels])
    for all_scores, history, start, end in zip(best, histories, begin[:-1].tolist(), begin[1:].tolist(), strict=True):
        order, mine = all_scores.copy(), fusion[start:end]
        order.sort()
        np.subtract(mine, order[-1] if len(order) else 0.0, out=own[0, start:end])
        own[1, start:end] = _logs(len(order))[len(order) - order.searchsorted(mine + SAME, side="right")]
        own[4, start:end] = math.log1p(history)
    np.equal(found.counts, 0, out=own[2], casting="unsafe")
    own[5], own[6] = cosine, fusion
    np.log1p(found.counts, out=own[3])
    return columns.T


@cache
def _near(depth: int) -> FloatArray:
    """1 / (1 + place), 0 from `depth` on, float32 [depth + 1]."""
    found = 1 / (1.0 + np.arange(depth + 1))
    found[-1] = 0.0
    return found.astype(np.float32)


@cache
def _logs(most: int) -> FloatArray:
    """log(1 + place), float32 [most + 1]."""
    found: FloatArray = np.log1p(np.arange(most + 1)).astype(np.float32)
    return found


def cosines(user: FloatArray | None, items: FloatArray) -> FloatArray:
    """Cosines of a user vector [D] and unit item vectors [n, D]; zeros for nobody."""
    if user is None:
        return np.zeros(len(items), dtype=np.float32)
    found: FloatArray = items @ unit(user)
    return found


def unit(vectors: FloatArray) -> FloatArray:
    """Rows of length 1; the zero row stays."""
    found: FloatArray = vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True)), 1e-9)
    return found


def relative(values: FloatArray, begin: NDArray[np.int64], scaled: bool = False) -> FloatArray:
    """Columns less their mean over the list, float32 [R, G]; `scaled`: and over their standard deviation there.

    An order within a list has no use for what all its items share, such as how long the asker or the whole log was silent; and what is not read can't mislead
    when lists are made at moments unlike those of training, for a batch at night as well as in the middle of a visit. Nor can the level and the spread
    of a channel's scores, which are others once the channel has learned from all events.

    Args:
        values: columns of the rows of some lists, one behind the other, [R, G]. begin: where each list begins, and R, [Q + 1].
    """
    if not len(values):
        return values
    sizes = begin[1:] - begin[:-1]
    full = begin[:-1]
    if len(sizes) > 1:
        full, sizes = full[sizes > 0], sizes[sizes > 0]

    def mean(of: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each list, [G, Q]."""
        sums = np.add.reduceat(of, full, axis=1)
        sums /= sizes
        return sums

    def laid(of: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each list, as often as it has rows."""
        return of if len(sizes) == 1 else of.repeat(sizes, axis=1)

    found = values.T.astype(np.float64, order="C")  # a row a column: what is summed lies side by side
    found -= laid(mean(found))
    if scaled:
        spread = mean(found * found)
        np.sqrt(spread, out=spread)
        spread += FLAT
        found /= laid(spread)
    return found.astype(np.float32).T


def compared(
    columns: FloatArray, told: FloatArray | None, begin: NDArray[np.int64], alike: FloatArray | None = None
) -> list[FloatArray]:
    """The tables as a ranker reads them: scores of channels and the cosine scaled within each list, the others less their mean there.

    Args:
        columns: of `channel_columns`, [R, 2C + 7]. told: declared features, [R, G], or None. begin: as in `relative`.
        alike: of `features.likeness`, [R, 8], or None. In the answer they stand before the declared features.
    """
    channels = (columns.shape[1] - len(OF_LIST)) // 2
    scores = _scored(channels)
    rows = columns.T.copy()
    rows[scores] = relative(rows.take(scores, axis=0).T, begin, scaled=True).T
    return [rows.T, *(relative(one, begin) for one in (alike, told) if one is not None)]


@cache
def _scored(channels: int) -> NDArray[np.int64]:
    """Places of the columns that are scaled within a list."""
    return np.array([*range(channels), 2 * channels + OF_LIST.index("cosine")])


@dataclass(frozen=True)
class RankerInput:
    """From raw columns, vectors and names to what the network reads.

    Attributes:
        preparation: of the raw columns: those of `channel_names`, of `LIKENESS` where they are read, the declared features', the reduced text's.
        text: the reduction of text vectors.
        categories: the names that are read.
        of_user, of_item: projections of unit user and item vectors, float32 [D, K]. They belong to the towers of one fit.
    """

    preparation: Preparation
    text: Reduction
    categories: Categories
    of_user: FloatArray
    of_item: FloatArray

    @property
    def names(self) -> list[str]:
        """Names of the columns that `dense` gives."""
        vectors = [f"{who}_{place}" for who in ("user", "item", "both") for place in range(self.of_item.shape[1])]
        return [*self.preparation.kept, *vectors]

    @cached_property
    def compares(self) -> bool:
        """Whether candidates have to be compared with the asker's history: it is among the raw columns, and some of it is read."""
        return not set(LIKENESS).isdisjoint(self.preparation.kept)

    @cached_property
    def _scaler(self) -> Scaler:
        return Scaler(self.preparation)

    @cached_property
    def _reducer(self) -> Reducer:
        return Reducer(self.text)

    def raw(
        self,
        columns: FloatArray,
        told: FloatArray | None,
        texts: FloatArray | None,
        begin: NDArray[np.int64],
        alike: FloatArray | None = None,
    ) -> FloatArray:
        """Raw columns of some lists, one behind the other, float32 [n, F].

        Args:
            columns: of `channel_columns`, [n, 2C + 7]. told: declared features, [n, G]; None: nothing is told.
            texts: whitened text vectors, [n, T]; None: `text` has no components. begin: where each list begins, and n, [Q + 1].
            alike: of `features.likeness`, [n, 8]; None: not `compares`.
        """
        if alike is None and LIKENESS[0] in self.preparation.names:
            alike = np.zeros((len(columns), len(LIKENESS)), dtype=np.float32)
        parts = compared(columns, told, begin, alike)
        reduced = [] if texts is None else [self._reducer.apply(texts)]
        missing = len(self.preparation.names) - sum(part.shape[1] for part in (*parts, *reduced))
        if told is None and missing:
            parts.append(np.zeros((len(columns), missing), dtype=np.float32))
        parts += reduced
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def columns(self, raw: FloatArray, users: FloatArray, theirs: FloatArray, begin: NDArray[np.int64]) -> Columns:
        """What the network reads besides names, of some lists.

        Args:
            raw: raw columns, [n, F]. users: unit user vectors, one a list, [Q, D]. theirs: unit item vectors times `of_item`, [n, K]. begin: as in `raw`.
        """
        return Columns(self._scaler.apply(raw), users @ self.of_user, theirs, begin)

    def dense(self, raw: FloatArray, user: FloatArray, items: FloatArray) -> FloatArray:
        """The same as a table, float32 [n, X].

        Args:
            raw: raw columns, [n, F]. user: user vectors, [n, D] or [D]. items: unit item vectors, [n, D].
        """
        mine = np.broadcast_to(unit(user) @ self.of_user, (len(items), self.of_user.shape[1]))
        return Columns(self._scaler.apply(raw), mine, items @ self.of_item, np.arange(len(items) + 1)).table()

    def save(self, folder: Path) -> None:
        """Writes the parts into a folder."""
        self.preparation.save(folder)
        (folder / "text_reduction.json").write_bytes(msgspec.json.encode(self.text))
        (folder / "categories.json").write_bytes(msgspec.json.encode(self.categories))
        np.save(folder / "of_user.npy", self.of_user, allow_pickle=False)
        np.save(folder / "of_item.npy", self.of_item, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> RankerInput:
        """Reads what `save` wrote."""
        return cls(
            Preparation.load(folder),
            msgspec.json.decode((folder / "text_reduction.json").read_bytes(), type=Reduction),
            msgspec.json.decode((folder / "categories.json").read_bytes(), type=Categories),
            np.load(folder / "of_user.npy", allow_pickle=False),
            np.load(folder / "of_item.npy", allow_pickle=False),
        )
