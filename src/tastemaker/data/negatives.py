"""What a positive is told apart from: items drawn as negatives, each source with the distribution that it declares.

A source never gives an item that the user met anywhere in the training log, before the positive or after it: such an item is no negative, it is
a positive of another moment. What is left is drawn by a known chance, so that a loss can be corrected for it. NumPy only; the same generator gives
the same items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import BoolArray, FloatArray, IntArray

NONE = -1
"""Stands where no item was left to draw."""
_ROUNDS = 16  # a place that met own items this often is filled from the exact distribution of its row
_RARE = 1e-6


@dataclass(frozen=True)
class Positives:
    """Items that users chose, in need of negatives.

    Attributes:
        users: who chose, int64 [R], rows of the training log.
        items: what was chosen, int32 [R].
        scores: what the model gives every item for each row now, float32 [R, N]; only `Hard` reads them.
        requests: which answer the item was chosen from, int64 [R]; only `Unclicked` reads them.
    """

    users: NDArray[np.int64]
    items: IntArray
    scores: FloatArray | None = None
    requests: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Drawn:
    """Negatives of each row.

    Attributes:
        items: int32 [R, n]; `NONE` where no item was left.
        log_probability: of the item in one draw of its row, float32 [R, n]; 0 where there is no item.
    """

    items: IntArray
    log_probability: FloatArray


class Negatives(Protocol):
    """A source of negatives."""

    def distribution(self, rows: Positives) -> NDArray[np.float64]:
        """Chance of each item in one draw, [R, N]; each row sums to one, or to zero where no item is left."""

    def draw(self, rows: Positives, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives for each row."""


class OwnItems:
    """Which items each user met in the training log.

    Args:
        sequences: the training log.
    """

    def __init__(self, sequences: Sequences) -> None:
        users = np.repeat(np.arange(sequences.n_users, dtype=np.int64), sequences.lengths())
        self.n_items = sequences.n_items
        self._keys = np.unique(users * self.n_items + sequences.items)
        self._offsets = np.searchsorted(self._keys, np.arange(sequences.n_users + 1) * self.n_items)

    def has(self, users: NDArray[np.int64], items: NDArray[np.integer]) -> BoolArray:
        """Whether each row's user met its items, bool [R, n], from users [R] and items [R, n]."""
        wanted = users[:, None] * self.n_items + items
        place = np.minimum(np.searchsorted(self._keys, wanted), max(len(self._keys) - 1, 0))
        if len(self._keys) == 0:
            return np.zeros(wanted.shape, dtype=bool)
        found: BoolArray = (self._keys[place] == wanted) & (items >= 0)
        return found

    def pairs(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every (row, item) where the row's user met the item."""
        lengths = np.diff(self._offsets)[users]
        rows = np.repeat(np.arange(len(users)), lengths)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, self._keys[self._offsets[users][rows] + within] % self.n_items

    def mass(self, chance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of a chance [N] over each user's items, [U]."""
        users, items = self._keys // self.n_items, self._keys % self.n_items
        found: NDArray[np.float64] = np.bincount(users, weights=chance[items], minlength=len(self._offsets) - 1)  # type: ignore[assignment]
        return found


def uniform_chance(n_items: int) -> NDArray[np.float64]:
    """The same chance for every item, [N]."""
    return np.full(n_items, 1.0 / max(n_items, 1))


def popular_chance(counts: NDArray[np.integer], alpha: float) -> NDArray[np.float64]:
    """Chances in proportion to events ** alpha, [N] (word2vec's is .75: Mikolov et al. 2013); 0 is uniform, 1 is popularity."""
    weight = np.asarray(counts, dtype=np.float64) ** alpha
    total = weight.sum()
    return weight / total if total > 0 else uniform_chance(len(weight))


class Proportional:
    """Items drawn with replacement by a fixed chance: uniform, popularity ** alpha, or any other.

    Args:
        chance: of each item in one draw, float64 [N], sums to one.
        own: items that are left out, row by row; the chance of the others grows accordingly.
    """

    def __init__(self, chance: NDArray[np.float64], own: OwnItems) -> None:
        self.chance, self._own = chance, own
        self._edges = np.cumsum(chance)
        self._last = int(np.flatnonzero(chance)[-1])
        self._left = 1.0 - own.mass(chance)

    def distribution(self, rows: Positives) -> NDArray[np.float64]:
        """Chance of each item in one draw, [R, N]."""
        chance = np.repeat(self.chance[None], len(rows.users), axis=0)
        chance[self._own.pairs(rows.users)] = 0.0
        return _normalised(chance)

    def draw(self, rows: Positives, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives for each row."""

        def some(at: NDArray[np.int64]) -> NDArray[np.int64]:
            place = np.searchsorted(self._edges, random.random(len(at)) * self._edges[-1], side="right")
            found: NDArray[np.int64] = np.minimum(place, self._last)
            return found

        items = _draw_allowed(some, self.distribution, self._own, rows, count, random)
        return Drawn(items, self.log_probability(rows, items))

    def log_probability(self, rows: Positives, items: IntArray) -> FloatArray:
        """Logarithm of each item's chance in one draw of its row, float32 [R, n]."""
        left = self._left[rows.users]
        for row in np.flatnonzero(left < _RARE):  # too little is left to be found by a difference
            rest = self.chance.copy()
            rest[self._own.pairs(rows.users[row : row + 1])[1]] = 0.0
            left[row] = rest.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.log(self.chance[items]) - np.log(left)[:, None]
        return np.where(items == NONE, 0.0, found).astype(np.float32)


class InBatch:
    """The positives of the other rows: they cost nothing, and are drawn by popularity whether one likes it or not.

    A popular item is a negative as often as it is a positive, which a loss must be corrected for: log Q of Yi et al. 2019 (RecSys, "Sampling-bias-corrected
    neural modeling"). The declared chance is each item's share of the log's positives: what a row meets when batches are drawn from the log at random.

    Args:
        counts: positives of each item in the log, [N].
        own: items that are left out.
    """

    def __init__(self, counts: NDArray[np.integer], own: OwnItems) -> None:
        self._popular, self._own = Proportional(popular_chance(counts, 1.0), own), own

    def distribution(self, rows: Positives) -> NDArray[np.float64]:
        """Chance of each item in one draw over random batches, [R, N]."""
        return self._popular.distribution(rows)

    def draw(self, rows: Positives, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives for each row, with replacement, from the items of `rows`."""

        def some(at: NDArray[np.int64]) -> NDArray[np.integer]:
            return rows.items[random.integers(len(rows.items), size=len(at))]

        def present(few: Positives) -> NDArray[np.float64]:
            here = np.bincount(rows.items, minlength=self._own.n_items).astype(np.float64)
            chance = np.repeat(here[None], len(few.users), axis=0)
            chance[self._own.pairs(few.users)] = 0.0
            return _normalised(chance)

        items = _draw_allowed(some, present, self._own, rows, count, random)
        return Drawn(items, self._popular.log_probability(rows, items))


class Hard:
    """Items that the model itself ranks high, with guards against those that are only not known to be right yet.

    Of a row's ranking the user's own items are taken out, then the first `skip` places, then all that score more than `margin` above the positive; the pool
    is the best of what remains, and negatives are drawn from it without replacement. An item that outscores the positive is likely a false negative: that
    is the positive-aware mining of NV-Retriever (Moreira et al. 2024, arXiv 2407.15831; its TopK-MarginPos is a negative margin here); false negatives among
    high scores and sampling from a pool rather than taking the first: Ding et al. 2020 (NeurIPS, "Simplify and robustify negative sampling").

    Args:
        own: items that are left out.
        pool: items of a row from which negatives are drawn.
        skip: first places of the ranking that are never drawn.
        margin: in units of the score; infinity for no such guard.
    """

    def __init__(self, own: OwnItems, pool: int = 128, skip: int = 5, margin: float = np.inf) -> None:
        self._own, self._pool, self._skip, self._margin = own, pool, skip, margin

    def pool(self, rows: Positives) -> IntArray:
        """The items of each row that may be drawn, best first, int32 [R, pool]; `NONE` at the end where there are fewer.

        Raises:
            InputError: the rows have no scores.
        """
        if rows.scores is None:
            raise InputError(
                "Hard negatives are chosen by the model's scores, and these rows have none. Give Positives(scores=[R, N])."
            )
        every = np.arange(len(rows.users))
        limit = rows.scores[every, rows.items] + self._margin
        scores = rows.scores.copy()
        scores[self._own.pairs(rows.users)] = -np.inf
        above = scores > limit[:, None]
        scores = np.where(scores <= limit[:, None], scores, -np.inf)  # NaN goes too
        deepest = min(self._skip + self._pool, scores.shape[1])
        best = np.argpartition(-scores, deepest - 1, axis=1)[:, :deepest]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable"), axis=1)
        value = np.take_along_axis(scores, best, axis=1)
        skipped = np.maximum(self._skip - above.sum(axis=1), 0)  # what lies above the margin held the first places already
        place = skipped[:, None] + np.arange(self._pool)
        inside = place < deepest
        place = np.minimum(place, deepest - 1)
        inside &= np.take_along_axis(value, place, axis=1) > -np.inf
        return np.where(inside, np.take_along_axis(best, place, axis=1), NONE).astype(np.int32)

    def distribution(self, rows: Positives) -> NDArray[np.float64]:
        """Chance of each item in one draw, [R, N]: the same for all of the row's pool."""
        pool = self.pool(rows)
        chance = np.zeros((len(pool), self._own.n_items))
        row, place = np.nonzero(pool != NONE)
        chance[row, pool[row, place]] = 1.0
        return _normalised(chance)

    def draw(self, rows: Positives, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives for each row."""
        return self.draw_from(self.pool(rows), count, random)

    def draw_from(self, pool: IntArray, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives of each row's pool, int32 [R, pool], as `pool()` gave it."""
        key = np.where(pool == NONE, np.inf, random.random(pool.shape))
        chosen = np.argsort(key, axis=1)[:, :count]
        items = np.full((len(pool), count), NONE, dtype=np.int32)
        items[:, : chosen.shape[1]] = np.take_along_axis(pool, chosen, axis=1)
        size = np.maximum((pool != NONE).sum(axis=1), 1)
        return Drawn(items, np.where(items == NONE, 0.0, -np.log(size)[:, None]).astype(np.float32))


class Unclicked:
    """What was shown in the same answer and left alone.

    Args:
        offsets: int64 [Q + 1]; request q showed `items[offsets[q]:offsets[q + 1]]` without a click.
        items: int32, distinct within a request.
        users: who was shown it, int64 [Q].
        own: items that are left out: refused today, taken another day.
    """

    def __init__(self, offsets: NDArray[np.int64], items: IntArray, users: NDArray[np.int64], own: OwnItems) -> None:
        request = np.repeat(np.arange(len(users)), np.diff(offsets))
        kept = ~own.has(users[request], items[:, None])[:, 0]
        self._items = items[kept]
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(request[kept], minlength=len(users)))])
        self._n_items = own.n_items

    def distribution(self, rows: Positives) -> NDArray[np.float64]:
        """Chance of each item in one draw, [R, N]: the same for all that the request showed in vain."""
        requests = self._requests(rows)
        chance = np.zeros((len(requests), self._n_items))
        for row, request in enumerate(requests):
            chance[row, self.of(request)] = 1.0
        return _normalised(chance)

    def draw(self, rows: Positives, count: int, random: np.random.Generator) -> Drawn:
        """`count` negatives for each row, with replacement."""
        requests = self._requests(rows)
        size = np.diff(self._offsets)[requests]
        within = (random.random((len(requests), count)) * size[:, None]).astype(np.int64)
        place = np.minimum(self._offsets[requests][:, None] + within, max(len(self._items) - 1, 0))
        some = np.broadcast_to(size[:, None] > 0, within.shape)
        items = np.where(some, self._items[place], NONE) if len(self._items) else np.full(within.shape, NONE)
        log_probability = np.where(some, -np.log(np.maximum(size, 1))[:, None], 0.0)
        return Drawn(items.astype(np.int32), log_probability.astype(np.float32))

    def of(self, request: int) -> IntArray:
        """What one request showed in vain, int32 [n]."""
        return self._items[self._offsets[request] : self._offsets[request + 1]]

    def _requests(self, rows: Positives) -> NDArray[np.int64]:
        if rows.requests is None:
            raise InputError("Unclicked negatives are those of an answer, and these rows name none. Give Positives(requests=[R]).")
        return rows.requests


def _normalised(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    total = chance.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.divide(chance, total, out=np.zeros_like(chance), where=total > 0)
    return found


def _draw_allowed(
    some: Callable[[NDArray[np.int64]], NDArray[np.integer]],
    exact: Callable[[Positives], NDArray[np.float64]],
    own: OwnItems,
    rows: Positives,
    count: int,
    random: np.random.Generator,
) -> IntArray:
    """Items [R, count] from `some` (one for each row number asked); own items are drawn again, at last from the `exact` chances [r, N]."""
    items = np.full(len(rows.users) * count, NONE, dtype=np.int32)
    owner = np.repeat(np.arange(len(rows.users)), count)
    missing = np.arange(len(items))
    for _ in range(_ROUNDS):
        items[missing] = some(owner[missing])
        bad = own.has(rows.users[owner[missing]], items[missing, None])[:, 0]
        missing = missing[bad]
        if len(missing) == 0:
            return items.reshape(-1, count)
    for row in np.unique(owner[missing]):
        chance = exact(Positives(rows.users[row : row + 1], rows.items[row : row + 1]))[0]
        places = missing[owner[missing] == row]
        items[places] = random.choice(len(chance), size=len(places), p=chance) if chance.sum() > 0 else NONE
    return items.reshape(-1, count)
