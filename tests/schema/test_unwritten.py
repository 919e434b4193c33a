"""What is computed of an array once, and of which arrays that is right."""

from __future__ import annotations

import numpy as np

from tastemaker.schema.unwritten import OfLatest, all_of, any_of, unwritten


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
    assert all_of(first)
