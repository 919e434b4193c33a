"""What is computed of an array once, and of which arrays that is right."""

from __future__ import annotations

import numpy as np

from switching import side_by_side
from tastemaker.schema.unwritten import KEPT_BYTES, OfLatest, any_of, kept_of, unwritten


def test_an_array_that_can_be_written_to_is_looked_at_every_time() -> None:
    some, looks = np.zeros(3, dtype=bool), OfLatest(any_of)
    assert not looks(some)
    some[1] = True
    assert looks(some)


def test_one_that_stays_as_it_is_is_looked_at_once() -> None:
    asked: list[int] = []

    def count(array: np.ndarray) -> int:
        asked.append(len(array))
        return int(array.sum())

    looks, first, second = OfLatest(count), unwritten(np.ones(3, dtype=bool)), unwritten(np.ones(4, dtype=bool))
    assert [looks(first), looks(first), looks(second), looks(second), looks(first)] == [3, 3, 4, 4, 3]
    assert asked == [3, 4, 3]


def test_several_arrays_are_known_together_and_the_latest_are_kept() -> None:
    asked: list[int] = []

    def both(one: np.ndarray, other: np.ndarray) -> int:
        asked.append(1)
        return int((one & other).sum())

    looks, base = OfLatest(both, 2), unwritten(np.ones(4, dtype=bool))
    first, second, third = (unwritten(np.arange(4) < count) for count in (1, 2, 3))
    assert [looks(base, one) for one in (first, second, first, second)] == [1, 2, 1, 2]
    assert len(asked) == 2
    assert [looks(base, third), looks(base, first), looks(first, base)] == [3, 1, 1]
    assert len(asked) == 5, "the oldest has gone, and the other way round is another question"
    open_ = np.ones(4, dtype=bool)
    assert [looks(open_, base), looks(open_, base)] == [4, 4]
    assert len(asked) == 7, "one that can be written to is looked at every time"


def test_what_was_asked_about_last_is_kept_and_no_more_than_was_said() -> None:
    asked: list[int] = []
    looks = OfLatest(lambda array: asked.append(int(array[0])), 2)
    first, second, third = (unwritten(np.full(2, number)) for number in (1, 2, 3))
    for array in (first, second, first, third, first, second, first):
        looks(array)
    assert asked == [1, 2, 3, 2], "the second one was asked about before the first"
    assert len(looks._latest) == 2
    assert [kept_of(size) for size in (0, 4, KEPT_BYTES // 10, KEPT_BYTES)] == [64, 64, 10, 4]


def test_threads_may_ask_side_by_side() -> None:
    arrays = [unwritten(np.full(3, number)) for number in range(12)]
    asked: OfLatest[int] = OfLatest(lambda array: int(array.sum()), 4)

    def right(stride: int) -> bool:
        return all(asked(arrays[number * stride % 12]) == 3 * (number * stride % 12) for number in range(20_000))

    assert all(side_by_side(right, (1, 5, 7)))
