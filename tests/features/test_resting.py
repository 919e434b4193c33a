"""What came at once rests in columns until an event wakes it; nobody can tell by what is remembered."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.features.key import Key
from tastemaker.features.memories.latest import SCHEMA, Latest, Past
from tastemaker.features.memories.memory import Moment
from tastemaker.features.state import Pairs

MEMORY = Latest(Key(("user",)), length=3)
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 3)), max_size=40)
Events = list[tuple[int, int, int]]


def moment(place: int, time: int, item: int) -> Moment:
    return Moment(float(time), item, np.nan, f"e{place:03}", f"i{item}")


def fold(content: Past, events: Events, first: int = 0) -> Past:
    for place, (slot, time, item) in enumerate(events, first):
        MEMORY.update(content, slot, moment(place, time, item))
    return content


def rested(content: Past) -> Past:
    """The same at rest: what a bundle's features are when they are opened."""
    return MEMORY.unpack(MEMORY.pack(content).sort("slot", maintain_order=True))


def told(content: Past) -> dict[int, list[tuple[float, str, str, int]]]:
    return {slot: content.get(slot) for slot in range(-1, 7)}


@settings(max_examples=80, deadline=None)
@given(EVENTS, EVENTS)
def test_law_who_rests_remembers_what_who_is_awake_does(before: Events, after: Events) -> None:
    awake = fold(fold(MEMORY.empty(), before), after, len(before))
    woken = fold(rested(fold(MEMORY.empty(), before)), after, len(before))
    assert told(woken) == told(awake)
    again = MEMORY.pack(woken)
    assert sorted(again.rows()) == sorted(MEMORY.pack(awake).rows())  # nobody twice, nobody lost
    assert told(rested(woken)) == told(awake)
    assert (
        told(MEMORY.joined(rested(fold(MEMORY.empty(), before)), fold(MEMORY.empty(), [])))[0]
        == told(fold(MEMORY.empty(), before))[0]
    )


def test_reading_wakes_nobody_and_a_copy_is_alone() -> None:
    content = rested(fold(MEMORY.empty(), [(0, 1, 1), (2, 1, 2)]))
    content.get(0).append((9.0, "x", "y", 1))
    assert content.get(0) == [(1.0, "e000", "i1", 1)]
    other = fold(content.copy(), [(0, 5, 3)], 7)
    assert len(other.get(0)) == 2
    assert len(content.get(0)) == 1
    assert Past(pl.DataFrame(schema=SCHEMA)).get(3) == []


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), unique=True, max_size=30),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20),
)
def test_law_pairs_that_came_at_once_have_the_slots_of_those_that_came_one_by_one(
    first: list[tuple[int, int]], later: list[tuple[int, int]]
) -> None:
    codes = [(one << 32) | two for one, two in first]
    afterwards = [(one << 32) | two for one, two in later]
    resting, awake = Pairs(), Pairs()
    assert resting.add_all(np.array(codes, dtype=np.int64)).tolist() == awake.add(codes)
    asked = np.array([-1, *codes, *afterwards], dtype=np.int64)
    assert resting.find(asked).tolist() == awake.find(asked).tolist()
    assert resting.add(afterwards) == awake.add(afterwards)
    assert resting.find(asked).tolist() == awake.find(asked).tolist()
    assert list(resting.codes) == list(awake.codes)
    for one in range(9):
        own = np.array([(one << 32) | two for two in range(9)], dtype=np.int64)
        assert resting.find(own).tolist() == awake.find(own).tolist()


def test_the_same_pairs_again_keep_their_slots() -> None:
    pairs, codes = Pairs(), np.array([(1 << 32) | 5, (1 << 32) | 2, 7], dtype=np.int64)
    assert pairs.add_all(codes).tolist() == [0, 1, 2]
    assert pairs.add_all(codes).tolist() == [0, 1, 2]
    assert pairs.add_all(np.array([7, (2 << 32) | 1], dtype=np.int64)).tolist() == [2, 3]
