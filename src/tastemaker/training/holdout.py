"""Which events a fit holds back to judge itself, and which items it pretends not to know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.schema.protocols import IntArray

MOST_EVENTS = 5


@dataclass(frozen=True)
class Holdout:
    """Events to learn from, and later ones to be judged by.

    Attributes:
        train: the sequences without the held-back events and without any event of the pretended-new items.
        histories: what came before each target, pretended-new items left out.
        targets: the item that came next, int32 [R].
        cold: bool [R], targets that `train` never shows.
        known: bool [N], items with events in the whole log; others can be no target.
        users: whose target it is, an index into `train.user_ids`, int32 [R].
        times: when it came, float64 [R], as in the log.
        fresh: bool [N], the pretended-new items.
    """

    train: Sequences
    histories: list[IntArray]
    targets: IntArray
    cold: NDArray[np.bool_]
    known: NDArray[np.bool_]
    users: IntArray
    times: NDArray[np.float64]
    fresh: NDArray[np.bool_]

    def warm_rows(self, limit: int, seed: int) -> NDArray[np.int64]:
        """Up to `limit` random rows whose target `train` shows."""
        rows = np.flatnonzero(~self.cold)
        return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


FEWEST_LATER = 500
"""Questions that there must be after a cut in time, else there is none."""


def hold_out_later(sequences: Sequences, share: float, questions: int, seed: int) -> Holdout | None:
    """Cuts the log at a moment: before it all is learned from, after it all are asked, each with what the user met before.

    Nothing that learns from `train` knows what anybody did later, as no live service does; the last events of each user, which `hold_out` takes, leave
    the later events of other users to learn from.

    Args:
        sequences: the whole log, times in seconds. share: of the events, the latest, that are asked for.
        questions: most of them; of more, some drawn by the seed.

    Returns:
        Questions in the order of time; None where there are fewer than `FEWEST_LATER`.
    """
    cut = float(np.quantile(sequences.times, 1 - share)) if len(sequences.times) else 0.0
    owner = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    met_before = np.ones(len(sequences.items), dtype=bool)
    pair = owner * sequences.n_items + sequences.items
    met_before[np.unique(pair, return_index=True)[1]] = False
    place = np.arange(len(sequences.items)) - sequences.offsets[owner]
    later = np.flatnonzero((sequences.times >= cut) & (place > 0) & ~met_before)
    chosen = np.random.default_rng(seed).permutation(later)[:questions]
    if len(chosen) < min(FEWEST_LATER, questions):
        return None
    chosen = chosen[np.argsort(sequences.times[chosen], kind="stable")]
    train = sequences.keep(sequences.times < cut)
    targets = sequences.items[chosen].astype(np.int32)
    histories = [sequences.items[sequences.offsets[owner[event]] : event] for event in chosen]
    cold, known = train.counts()[targets] == 0, sequences.counts() > 0
    nobody = np.zeros(sequences.n_items, dtype=bool)
    return Holdout(train, histories, targets, cold, known, owner[chosen].astype(np.int32), sequences.times[chosen], nobody)


def hold_out(sequences: Sequences, cold_share: float, seed: int) -> Holdout:
    """Holds back the last events of each user (a tenth, at least 1, at most 5) and pretends that a share of the items is new.

    No part may learn from them, or the fusion would trust that part too much. New items must be among the targets, or it could not learn how
    far to trust text.

    Args:
        sequences: the whole log.
        cold_share: share of the items with events that are pretended to be new.
        seed: chooses them.
    """
    counts, lengths = sequences.counts(), sequences.lengths()
    random = np.random.default_rng(seed)
    known = counts > 0
    met = np.flatnonzero(known)
    fresh = np.zeros(sequences.n_items, dtype=bool)
    fresh[random.permutation(met)[: round(len(met) * cold_share)]] = True
    held = np.where(lengths >= 2, np.clip(lengths // 10, 1, MOST_EVENTS), 0)
    place = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], lengths)
    is_held = place >= np.repeat(lengths - held, lengths)
    train = sequences.keep(~is_held & ~fresh[sequences.items])
    warm = train.counts() > 0
    histories, targets, users, times = [], [], [], []
    for user in np.flatnonzero(held):
        whole, begin = sequences.history(int(user)), int(sequences.offsets[user])
        for cut in range(len(whole) - int(held[user]), len(whole)):
            before = whole[:cut]
            before = before[~fresh[before]]
            if len(before) and whole[cut] not in before:
                histories.append(before)
                targets.append(whole[cut])
                users.append(user)
                times.append(sequences.times[begin + cut])
    found = np.array(targets, dtype=np.int32)
    whose, when = np.array(users, dtype=np.int32), np.array(times, dtype=np.float64)
    return Holdout(train, histories, found, ~warm[found], known, whose, when, fresh)
