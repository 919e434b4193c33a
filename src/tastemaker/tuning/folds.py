"""Later and later cuts through a log: what each fold learns from, and what it is asked. It knows arrays, not settings.

Rolling origin (L. Tashman, 2000, "Out-of-sample tests of forecasting accuracy"): fold i learns from every event up to cut i and is asked at the
events between cut i and cut i + 1, with all that the user did before, as a service would be that was frozen at the cut. Where times are only an
order inside one user's history there is no common moment: the last fold is asked for the last event of each user, the fold before it
for the one before, and so on; each learns from what came before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import IntArray

LEAST_QUESTIONS = 2


@dataclass(frozen=True)
class Fold:
    """One cut.

    Attributes:
        train: bool [E], events to learn from.
        asked: positions of the events that are asked for, int64 [Q], an index into `Sequences.items`.
        users: whose they are, int64 [Q].
        words: the cut in plain words.
    """

    train: NDArray[np.bool_]
    asked: NDArray[np.int64]
    users: NDArray[np.int64]
    words: str

    def histories(self, sequences: Sequences) -> list[IntArray]:
        """What came before each question, item indices, oldest first."""
        begin = sequences.offsets[self.users]
        return [sequences.items[first:event] for first, event in zip(begin.tolist(), self.asked.tolist(), strict=True)]

    def targets(self, sequences: Sequences) -> IntArray:
        """The item that came next, int32 [Q]."""
        return sequences.items[self.asked]


def make_folds(sequences: Sequences, time_is_order: bool, count: int, share: float, most: int, seed: int) -> list[Fold]:
    """The folds of a log, the earliest cut first.

    Args:
        sequences: the whole log.
        time_is_order: times are missing or only an order inside a history.
        count: folds. share: of the events between two cuts in time.
        most: questions of a fold; of more a sample is drawn by the seed.

    Raises:
        InputError: a fold has nothing to learn from or nothing to be asked.
    """
    masks = _by_place(sequences, count) if time_is_order else _by_time(sequences, count, share)
    askable = first_meetings(sequences)
    folds = []
    for number, (train, judged, words) in enumerate(masks):
        asked = np.flatnonzero(judged & askable)
        if not train.any() or len(asked) < LEAST_QUESTIONS:
            raise InputError(
                f"Fold {number + 1} of {count} ({words}) would learn from {int(train.sum()):,} events and have {len(asked)} questions: the log of "
                f"{len(train):,} events is too small for it. Take fewer folds (--folds) or another tune.fold_share."
            )
        if len(asked) > most:
            asked = np.sort(np.random.default_rng([seed, number]).permutation(asked)[:most])
        users = np.searchsorted(sequences.offsets, asked, side="right") - 1
        folds.append(Fold(train, asked, users.astype(np.int64), words))
    return folds


def first_meetings(sequences: Sequences) -> NDArray[np.bool_]:
    """bool [E]: events with a history before them whose item is not in it; others can't be answered, as seen items are left out."""
    owner = np.repeat(np.arange(sequences.n_users, dtype=np.int64), sequences.lengths())
    pair = owner * max(sequences.n_items, 1) + sequences.items
    first = np.zeros(len(pair), dtype=bool)
    first[np.unique(pair, return_index=True)[1]] = True
    first[sequences.offsets[:-1][sequences.lengths() > 0]] = False
    return first


def _by_time(sequences: Sequences, count: int, share: float) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_], str]]:
    if count * share >= 1.0 or share <= 0.0:
        raise InputError(
            f"{count} folds of {share:.0%} of the events each leave nothing to learn from. Lower tune.fold_share or take fewer folds (--folds)."
        )
    times = sequences.times
    levels = [1.0 - share * (count - number) for number in range(count)]
    cuts = np.quantile(times, levels, method="lower").tolist() if len(times) else [0.0] * count
    ends = [*cuts[1:], np.inf]
    found = []
    for cut, end in zip(cuts, ends, strict=True):
        train, judged = times <= cut, (times > cut) & (times <= end)
        found.append((train, judged, f"learns from {int(train.sum()):,} events, judged by the next {int(judged.sum()):,}"))
    return found


def _by_place(sequences: Sequences, count: int) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_], str]]:
    lengths = sequences.lengths()
    from_end = np.repeat(sequences.offsets[1:], lengths) - 1 - np.arange(len(sequences.items))
    found = []
    for last in range(count - 1, -1, -1):
        name = "last event of each user" if last == 0 else f"event {last + 1} from the end of each user"
        found.append((from_end > last, from_end == last, f"learns from what came before, judged by the {name}"))
    return found
