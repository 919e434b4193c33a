"""Pairs of items that people took together, drawn from histories: what the language model is taught to hold close."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences

RUN = 4  # targets of one user that share a batch: their texts are read once
NEAR = 5  # events between two items that count as taken together


@dataclass(frozen=True)
class Pairs:
    """Rows of one batch.

    Attributes:
        sources: numbers of texts, the latest first, -1 where there are fewer, int64 [P, S]: items, or in the first column a search, numbered
            from the number of items on.
        targets: item index, int64 [P]; never among its own sources.
        users: whose history it is, or, numbered from the number of users on, which search, int64 [P].
    """

    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)


def count_pairs(sequences: Sequences) -> int:
    """Events that follow an event of another item."""
    items, users = sequences.items, _owners(sequences)
    return int(((users[1:] == users[:-1]) & (items[1:] != items[:-1])).sum())


def draw(sequences: Sequences, size: int, batches: int, history: int, item_share: float, seed: int, epoch: int) -> Iterator[Pairs]:
    """The batches of one epoch, a pure function of its arguments.

    Every event but the first of a user is a target; runs of four targets of a user stay together, the runs are mixed. A share of the targets
    stands beside one other item at most five events away (co-consumption), the rest beside the items before it.

    Args:
        sequences: histories to learn from.
        size: pairs a batch; rows without a source of another item are left out of it.
        batches: their number; a small log is passed more than once.
        history: items before a target that are its sources.
        item_share: share of the targets that stand beside one item.
        seed, epoch: of the draw.
    """
    random = np.random.default_rng([seed, epoch])
    users = _owners(sequences)
    place = np.arange(len(users)) - sequences.offsets[users]
    targets = np.flatnonzero(place > 0)
    if len(targets) == 0:
        return
    phase = random.integers(RUN, size=sequences.n_users)
    run = (place[targets] - 1 + phase[users[targets]]) // RUN
    begins = np.concatenate([[True], (users[targets][1:] != users[targets][:-1]) | (run[1:] != run[:-1])])
    number = np.cumsum(begins) - 1
    order = targets[np.argsort(random.permutation(number[-1] + 1)[number], kind="stable")]
    order = np.resize(order, size * batches)
    for begin in range(0, len(order), size):
        yield _pairs(sequences, users, order[begin : begin + size], history, item_share, random)


def draw_searches(
    learn: NDArray[np.int64], size: int, batches: int, shape: tuple[int, int, int], seed: int, epoch: int
) -> Iterator[Pairs]:
    """Searches and what was taken, as the batches of one epoch; each pair once a pass, a pure function of its arguments.

    Args:
        learn: (search, item), int64 [L, 2]. size: pairs a batch. batches: their number.
        shape: numbers of users and items, and columns of the sources.
        seed, epoch: of the draw.
    """
    users, items, columns = shape
    order = np.resize(np.random.default_rng([seed, epoch, 3]).permutation(len(learn)), size * batches)
    for begin in range(0, len(order), size):
        search, item = learn[order[begin : begin + size]].T
        sources = np.full((len(item), columns), -1, dtype=np.int64)
        sources[:, 0] = items + search
        yield Pairs(sources, item, users + search)


def together(first: Pairs, second: Pairs) -> Pairs:
    """The rows of both."""
    return Pairs(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("sources", "targets", "users")))


def _pairs(
    sequences: Sequences,
    users: NDArray[np.int64],
    events: NDArray[np.int64],
    history: int,
    item_share: float,
    random: np.random.Generator,
) -> Pairs:
    items, offsets = sequences.items.astype(np.int64), sequences.offsets
    first, last = offsets[users[events]], offsets[users[events] + 1] - 1
    before = events[:, None] - 1 - np.arange(history)
    sources = np.where(before >= first[:, None], items[np.maximum(before, 0)], -1)
    single = random.random(len(events)) < item_share
    low, high = np.maximum(first, events - NEAR), np.minimum(last, events + NEAR)
    partner = low + (random.random(len(events)) * (high - low)).astype(np.int64)
    partner += partner >= events
    sources[single] = -1
    sources[single, 0] = items[partner[single]]
    targets = items[events]
    sources = np.where(sources == targets[:, None], -1, sources)
    real = (sources >= 0).any(axis=1)
    return Pairs(sources[real], targets[real], users[events][real])


def _owners(sequences: Sequences) -> NDArray[np.int64]:
    return np.repeat(np.arange(sequences.n_users), sequences.lengths())
