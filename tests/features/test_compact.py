"""What is kept compactly tells the same as dictionaries and lists would, from empty, from a file, and after any changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.features import pairs as pairs_room
from tastemaker.features.grown import Mapped
from tastemaker.features.key import USER
from tastemaker.features.memories.latest import Latest
from tastemaker.features.memories.memory import Moment
from tastemaker.features.memories.window import Window
from tastemaker.features.pairs import Pairs

quick = settings(max_examples=60, deadline=None)
CODES = st.builds(lambda first, second: first << 32 | second, st.integers(0, 5), st.sampled_from([0, 1, 2, 7, 2**31, 2**32 - 1]))


@quick
@given(steps=st.lists(st.tuples(st.booleans(), st.lists(CODES, max_size=8)), max_size=12), settled=st.integers(0, 6))
def test_law_pairs_are_numbered_as_a_dictionary_would(steps: list[tuple[bool, list[int]]], settled: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs_room, "SETTLED", settled)
        pairs, model = Pairs(), dict[int, int]()
        asked = np.array([-1, 3, 9 << 32, *(first << 32 | 7 for first in range(7))])
        for at_once, codes in steps:
            codes = list(dict.fromkeys(codes)) if at_once else codes
            wanted = [model.setdefault(code, len(model)) for code in codes]
            if at_once:
                assert pairs.add_all(np.array(codes, dtype=np.int64)).tolist() == wanted
            else:
                assert pairs.add(codes) == wanted
            assert len(pairs) == len(model)
            every = np.concatenate([asked, np.array(list(model), dtype=np.int64)])
            for some in (every, np.array(codes, dtype=np.int64), every[every >> 32 == 2]):
                assert pairs.find(some).tolist() == [model.get(code, -1) for code in some.tolist()]
        assert pairs.codes.tolist() == list(model)


def test_pairs_take_a_few_bytes_each_and_new_ones_are_sorted_in_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_room, "SETTLED", 100)
    random, pairs, settled = np.random.default_rng(0), Pairs(), []
    settle = Pairs._settle
    monkeypatch.setattr(Pairs, "_settle", lambda self: (settled.append(len(self)), settle(self))[1])
    codes = np.unique(random.integers(0, 50, 20_000) << 32 | random.integers(0, 2_000, 20_000))
    for code in random.permutation(codes).tolist():
        pairs.add([code])
    assert 5 < len(settled) < 20  # as often as the array doubles, not at each pair
    assert sum(settled) < 4 * len(codes)
    held = pairs._sorted.nbytes + (0 if pairs._slots is None else pairs._slots.nbytes) + pairs._starts.nbytes
    assert held <= 12 * len(codes) + 8 * 51
    assert sum(map(len, pairs._new.values())) == len(pairs._later) <= len(codes) / 2


TIMES = st.sampled_from([-np.inf, 0.0, 1.0, 1.5, 5.0, 9.0])
EVENTS = st.lists(st.tuples(st.integers(0, 4), TIMES, st.sampled_from(["", "a", "é\0", "漢"])), max_size=30)


@quick
@given(before=EVENTS, after=EVENTS, length=st.integers(1, 3))
@pytest.mark.parametrize("kind", [Latest, Window])
def test_law_a_memory_read_back_goes_on_like_one_that_never_rested(
    kind: type, before: list[tuple[int, float, str]], after: list[tuple[int, float, str]], length: int
) -> None:
    memory = Latest(USER, length=length) if kind is Latest else Window(USER, span=float(length))
    one, other = memory.empty(), memory.empty()
    slots = np.array([-1, 0, 1, 2, 3, 4, 5, 99])

    def told(content: object) -> list[object]:
        found = [memory.read(content, slots, np.full(len(slots), now)) for now in (-np.inf, 1.0, 1.5, 6.0, 20.0)]
        return [np.asarray(part).tolist() for part in found] if kind is Window else [[a.tolist() for a in part] for part in found]

    for slot, time, name in before:
        for content in (one, other):
            memory.update(content, slot, Moment(time, slot + 10, np.nan, name, name * 2))
    other = memory.unpack(memory.pack(other))
    assert not other.changed
    for slot, time, name in after:
        assert told(one) == told(other)
        for content in (one, other):
            memory.update(content, slot, Moment(time, slot + 20, np.nan, name, name * 2))
    assert told(one) == told(other)
    assert memory.pack(one).equals(memory.pack(other))
    assert set(other.changed) <= {slot for slot, _, _ in after}  # who is not met stays in the columns


def test_rows_of_a_file_are_read_from_it_until_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
    np.save(file, rows, allow_pickle=False)
    grown = Mapped(0.0, np.float32, file)
    wanted = np.zeros((12, 3), dtype=np.float32)
    wanted[:6] = rows
    slots = np.array([[5, -1], [0, 11], [7, 3]])
    assert (grown.read(slots) == np.where(slots[..., None] < 0, 0, wanted[slots])).all()
    for put in (np.array([9]), np.array([2, 7, 2]), np.array([2])):
        new = np.random.default_rng(len(put)).normal(size=(len(put), 3)).astype(np.float32)
        grown.put(put, new)
        wanted[put] = new
        assert (grown.read(slots) == np.where(slots[..., None] < 0, 0, wanted[slots])).all()
        assert (grown.read(np.arange(12)) == wanted).all(), "float32 rows are kept as they came, though the file has halves"
    assert (np.load(file) == rows).all()
    assert (grown.copy().first(12) == wanted).all()
    assert len(grown.values) < 12, "rows of the file are not held twice"


@quick
@given(before=EVENTS, after=EVENTS)
def test_law_a_window_counts_what_lies_in_it(before: list[tuple[int, float, str]], after: list[tuple[int, float, str]]) -> None:
    memory = Window(USER, span=2.0)
    content = memory.empty()
    for place, (slot, time, name) in enumerate([*before, *after]):
        if place == len(before):
            content = memory.unpack(memory.pack(content))
        memory.update(content, slot, Moment(time, 0, np.nan, name, ""))
    met = [(slot, time) for slot, time, _ in [*before, *after] if np.isfinite(time)]
    for now in (0.0, 1.0, 1.5, 3.4, 6.0, 20.0):
        wanted = []
        for slot in range(6):
            times = [time for other, time in met if other == slot]
            end = max([now, *times])  # a moment before the latest event is answered as that event's
            wanted.append(sum(end - 2.0 <= time < end for time in times))
        assert memory.read(content, np.arange(6), np.full(6, now)).tolist() == wanted
