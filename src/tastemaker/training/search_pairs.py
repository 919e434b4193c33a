"""Which searches the language model learns from, and which ones judge it: none that a fit holds back is among the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.searches import Searches, searches
from tastemaker.data.sequences import Sequences
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout

JUDGED_SHARE = 0.1
"""Share of the different searches that are never learned from, whoever asked them."""
MOST_JUDGED = 2_000


@dataclass(frozen=True)
class SearchPairs:
    """Searches and what was taken.

    Attributes:
        texts: different searches.
        learn: (search, item) to learn from, int64 [L, 2].
        judge: (search, item) to be judged by; no search is in both, int64 [J, 2].
    """

    texts: list[str]
    learn: NDArray[np.int64]
    judge: NDArray[np.int64]


def searches_of(dataset: Dataset, sequences: Sequences, settings: Settings) -> Searches | None:
    """The searches of a log that the tuning learns from; None where it asks for none.

    Args:
        sequences: of the same dataset; its users and items are those of the searches.
    """
    chosen = settings.finetune
    if chosen.mode == "frozen" or not chosen.query_share:
        return None
    return searches(dataset, sequences.user_ids, sequences.item_ids, chosen.query_field, settings.sampling.clicked)


def divide(found: Searches, held: Holdout, full: NDArray[np.bool_], seed: int) -> SearchPairs:
    """Takes out what `held` holds back: its pretended-new items, its targets, and what a user did after all that `held.train` has of him.

    Where an event has no time, its user and item must be among the events of `held.train`.

    Args:
        found: over the users and items of `held.train`.
        full: bool [N], items with a text; others can't be found by it.
        seed: chooses the searches that judge.
    """
    train, n = held.train, held.train.n_items
    new = held.known & (train.counts() == 0)
    owners = np.repeat(np.arange(train.n_users), train.lengths())
    latest = np.full(train.n_users + 1, -np.inf)
    with np.errstate(invalid="ignore"):  # an unknown time makes a user's latest one unknown
        np.maximum.at(latest, owners, train.times)
    latest[-1] = np.inf  # of users without a history: nothing of them is held back
    pair = found.users * n + found.items
    before = found.times <= latest[found.users]
    untimed = np.isnan(found.times) | np.isnan(latest[found.users])
    usable = np.where(untimed, np.isin(pair, owners * n + train.items), before)
    usable &= full[found.items] & ~new[found.items] & ~np.isin(pair, held.users.astype(np.int64) * n + held.targets)
    rows = np.stack([found.numbers, found.items], axis=1)[usable]
    asked = np.unique(rows[:, 0])
    random = np.random.default_rng([seed, 4])
    judging = np.isin(rows[:, 0], random.permutation(asked)[: round(len(asked) * JUDGED_SHARE)])
    judge = rows[judging]
    return SearchPairs(found.texts, rows[~judging], judge[np.sort(random.permutation(len(judge))[:MOST_JUDGED])])
