"""No fold learns from what it is asked about, nor from anything later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tastemaker.data.sequences import Sequences
from tastemaker.schema.errors import InputError
from tastemaker.tuning.folds import first_meetings, make_folds
from tastemaker.tuning.objective import questions_of

LOGS = st.lists(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30)), max_size=12), min_size=2, max_size=10)


def packed(users: list[list[tuple[int, int]]]) -> Sequences:
    """Users' (item, time) pairs, in the order of time."""
    rows = [sorted(events, key=lambda one: one[1]) for events in users]
    offsets = np.concatenate([[0], np.cumsum([len(events) for events in rows])]).astype(np.int64)
    items, times = (np.array([event[place] for events in rows for event in events]) for place in (0, 1))
    names = [f"u{number}" for number in range(len(rows))]
    kinds = np.zeros(len(items), dtype=np.int16)
    return Sequences(names, [f"i{n}" for n in range(8)], offsets, items.astype(np.int32), times.astype(np.float64), kinds, ["view"])


@settings(max_examples=60, deadline=None)
@given(LOGS, st.integers(1, 4), st.sampled_from([0.1, 0.2]), st.booleans(), st.integers(2, 50))
def test_law_a_fold_learns_from_nothing_later_than_any_target(
    users: list[list[tuple[int, int]]], count: int, share: float, order: bool, most: int
) -> None:
    log = packed(users)
    try:
        folds = make_folds(log, order, count, share, most, 0)
    except InputError:
        assume(False)
    assert len(folds) == count
    before = np.zeros(len(log.items), dtype=bool)
    seen: set[int] = set()
    owner = np.repeat(np.arange(log.n_users), log.lengths())
    for fold in folds:
        learned = np.flatnonzero(fold.train)
        assert 2 <= len(fold.asked) <= most
        assert not fold.train[fold.asked].any()
        assert not seen & set(fold.asked.tolist()), "no question is asked in two folds"
        seen |= set(fold.asked.tolist())
        assert (fold.train >= before).all(), "a later fold knows all that an earlier one knew"
        before = fold.train
        assert np.array_equal(owner[fold.asked], fold.users)
        if not order:
            assert log.times[learned].max() < log.times[fold.asked].min()
        for event, user in zip(fold.asked.tolist(), fold.users.tolist(), strict=True):
            assert (learned[owner[learned] == user] < event).all()
        for history, target, event in zip(fold.histories(log), fold.targets(log), fold.asked, strict=True):
            whole = log.history(int(owner[event])).tolist()
            assert len(history)
            assert target not in history
            assert whole[: len(history) + 1] == [*history.tolist(), target]
    assert len(questions_of(folds)) == len(seen)


def test_the_cuts_of_a_log_with_times() -> None:
    log = packed([[(item % 8, 10 * item + user) for item in range(user, 8)] for user in range(3)])
    folds = make_folds(log, False, 2, 0.2, 99, 0)
    sizes = [int(fold.train.sum()) for fold in folds]
    assert sizes == [13, 17]
    assert [len(fold.asked) for fold in folds] == [4, 4]
    assert folds[0].words == "learns from 13 events, judged by the next 4"
    assert log.times[folds[0].asked].max() <= log.times[folds[1].train].max() < log.times[folds[1].asked].min()


def test_an_order_is_asked_for_the_last_place_and_the_one_before() -> None:
    log = packed([[(item, 0) for item in range(4)], [(item, 0) for item in range(6)], [(7, 0)]])
    early, late = make_folds(log, True, 2, 0.1, 99, 0)
    assert early.targets(log).tolist() == [2, 4]
    assert late.targets(log).tolist() == [3, 5]
    assert (int(early.train.sum()), int(late.train.sum())) == (6, 8)
    assert "event 2 from the end" in early.words


def test_only_first_meetings_with_a_history_are_asked_for() -> None:
    log = packed([[(0, 0), (1, 1), (0, 2), (2, 3)], [(0, 0)]])
    assert first_meetings(log).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("count", "share", "words"), [(10, 0.1, "nothing to learn from"), (3, 0.05, "too small for it"), (1, 0.0, "nothing")]
)
def test_too_much_asked_of_a_log_is_told(count: int, share: float, words: str) -> None:
    log = packed([[(0, 1), (1, 2)], [(0, 1), (1, 3)]])
    with pytest.raises(InputError, match=words):
        make_folds(log, False, count, share, 10, 0)
