"""What a window holds is the same, whether it was counted at once, folded event by event, joined of two or read from a table."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.features.key import ITEM
from tastemaker.features.memories.memory import Moment
from tastemaker.features.memories.window import FEW, Times, Window

SPAN = 5.0
EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20).map(float)), max_size=25)


def folded(memory: Window, content: Times, events: list[tuple[int, float]]) -> Times:
    for slot, time in events:
        memory.update(content, slot, Moment(time, 0, np.nan, "", ""))
    return content


@given(EVENTS, EVENTS, st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 30).map(float)), max_size=10))
def test_law_all_roads_hold_the_same(
    early: list[tuple[int, float]], late: list[tuple[int, float]], asked: list[tuple[int, float]]
) -> None:
    memory = Window(ITEM, span=SPAN)
    both = early + late
    slots, now = np.array([slot for slot, _ in asked], dtype=np.int64), np.array([time for _, time in asked], dtype=float)
    expected = []
    for slot, moment in asked:
        own = [time for of, time in both if of == slot]
        moment = max([moment, *own])
        expected.append(sum(moment - SPAN <= time < moment for time in own))
    rested = memory.unpack(memory.pack(folded(memory, memory.empty(), early)))
    joined = memory.joined(memory.unpack(memory.pack(folded(memory, memory.empty(), late))), rested)
    gone_on = folded(memory, rested, late)
    whole = memory.unpack(memory.pack(gone_on))
    some = memory.unpack(memory.pack(gone_on, np.unique(slots[slots >= 0])))
    parted = memory.unpack(memory.pack(whole, np.unique(slots[slots >= 0])))
    alive = memory.joined(memory.unpack(memory.pack(folded(memory, memory.empty(), early))), folded(memory, memory.empty(), late))
    for content in (folded(memory, memory.empty(), both), joined, alive, gone_on, whole, some, parted):
        assert memory.read(content, slots, now).tolist() == expected
        many = FEW + 1  # so many questions are answered from arrays at once
        assert memory.read(content, np.tile(slots, many), np.tile(now, many)).tolist() == expected * many


@given(EVENTS, EVENTS)
def test_law_later_times_are_laid_behind_earlier_ones(early: list[tuple[int, float]], late: list[tuple[int, float]]) -> None:
    """As slices of a log are: no time of the second is before one of the first, but for slots that are not in both."""
    memory = Window(ITEM, span=SPAN)
    later = [(slot, time + 18.0) for slot, time in late if all(time + 18.0 >= old for other, old in early if other == slot)]
    one, two = (memory.unpack(memory.pack(folded(memory, memory.empty(), events))) for events in (early, later))
    assert one.with_later(two, SPAN) is not None
    joined, whole = memory.joined(one, two), memory.unpack(memory.pack(folded(memory, memory.empty(), early + later)))
    for found, wanted in zip(joined.all(), whole.all(), strict=True):
        assert found.tolist() == wanted.tolist()
