"""Pairs of items taken together."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.data.sequences import Sequences
from tastemaker.training.pairs import NEAR, Pairs, count_pairs, draw


def sequences_of(histories: list[list[int]], n_items: int = 9) -> Sequences:
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    zeros = np.zeros(len(items))
    users = [f"u{number}" for number in range(len(histories))]
    return Sequences(users, [f"i{number}" for number in range(n_items)], offsets, items, zeros, zeros.astype(np.int16), ["view"])


def _all(found: list[Pairs]) -> list[tuple[int, int, tuple[int, ...]]]:
    return [
        (int(user), int(target), tuple(int(item) for item in row if item >= 0))
        for part in found
        for user, target, row in zip(part.users, part.targets, part.sources, strict=True)
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.lists(st.lists(st.integers(0, 8), max_size=12), max_size=6), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_pair_is_of_one_history_and_of_two_items(histories: list[list[int]], depth: int, share: float) -> None:
    sequences = sequences_of(histories)
    for user, target, sources in _all(list(draw(sequences, 5, 7, depth, share, 0, 0))):
        assert sources
        assert target not in sources
        places = [place for place, item in enumerate(histories[user]) if item == target]
        near = {item for place in places for item in histories[user][max(0, place - NEAR) : place + NEAR + 1]}
        before = {item for place in places for item in histories[user][max(0, place - depth) : place]}
        assert set(sources) <= (before if share == 0 else near if share == 1 else near | before)
        assert share < 1 or len(sources) == 1


def test_histories_stand_latest_first_and_each_event_is_a_target_once_a_pass() -> None:
    sequences = sequences_of([[0, 1, 2, 3, 4, 5, 6], [7, 8]])
    found = _all(list(draw(sequences, 7, 1, 3, 0.0, 0, 0)))
    assert sorted(target for _, target, _ in found) == [1, 2, 3, 4, 5, 6, 8]
    assert (0, 4, (3, 2, 1)) in found
    assert (1, 8, (7,)) in found


def test_the_draw_is_a_function_of_seed_and_epoch() -> None:
    sequences = sequences_of([list(range(9)), [3, 1, 4, 1, 5], [2, 6]])
    one, again = (_all(list(draw(sequences, 4, 5, 2, 0.5, 1, 3))) for _ in range(2))
    assert one == again
    assert one != _all(list(draw(sequences, 4, 5, 2, 0.5, 1, 4)))
    assert one != _all(list(draw(sequences, 4, 5, 2, 0.5, 2, 3)))


def test_one_item_or_one_event_gives_no_pair() -> None:
    for histories in ([], [[1]], [[1, 1, 1]], [[1], [2], []]):
        sequences = sequences_of(histories)
        assert count_pairs(sequences) == 0
        assert _all(list(draw(sequences, 4, 2, 2, 0.5, 0, 0))) == []
