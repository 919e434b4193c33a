"""What is late or broken is left out, named, and never waited for twice; each rung of the ladder is reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from tastemaker.pipeline.engine import Road, Wish
from tastemaker.pipeline.gather import FAILED, LATE, TRUSTED, Gatherer
from tastemaker.pipeline.trip import FEWER, NO_RANKER, POPULAR, PRECOMPUTED
from tastemaker.schema.candidates import ChannelScores, Ranked
from tastemaker.schema.protocols import Asker, FloatArray, Gather, IntArray, QueryState

N = 50
SCORES = np.linspace(1, 0, N, dtype=np.float32)


def nothing() -> str:
    return "here"


def broken() -> str:
    raise OSError("the disk is gone")


def test_calls_that_are_late_or_break_are_left_out_and_the_others_come() -> None:
    let_go = threading.Event()
    gatherer = Gatherer(0.1)
    began = time.monotonic()
    done, missing = gatherer.run({"slow": lambda: str(let_go.wait(20)), "a": nothing, "b": broken, "c": nothing})
    assert time.monotonic() - began < 5
    assert done == {"a": "here", "c": "here"}, "those behind a slow one go their own way"
    assert missing == {"b": FAILED, "slow": LATE}
    threads = threading.active_count()
    for _ in range(20):
        assert gatherer.run({"slow": nothing, "a": nothing}) == ({"a": "here"}, {"slow": LATE}), "not asked again while it hangs"
    assert threading.active_count() <= threads + 1, "a hanging call costs one thread, not one a request"
    let_go.set()
    end = time.monotonic() + 10
    while gatherer.run({"slow": nothing})[1] and time.monotonic() < end:
        time.sleep(0.01)
    assert gatherer.run({"slow": nothing}) == ({"slow": "here"}, {})


@pytest.mark.parametrize("seconds", [0.0, 30.0])
@pytest.mark.parametrize("lanes", [1, 3])
def test_calls_give_the_same_with_a_deadline_and_without(seconds: float, lanes: int) -> None:
    calls = {str(number): lambda number=number: number * 2 for number in range(20)}
    done, missing = Gatherer(seconds, lanes).run({**calls, "b": broken})  # type: ignore[dict-item]
    assert list(done.items()) == [(str(number), number * 2) for number in range(20)]
    assert missing == {"b": FAILED}


def test_quick_calls_over_memory_earn_to_be_made_at_once_and_lose_it_when_slow() -> None:
    where: list[int] = []

    def quick() -> None:
        where.append(threading.get_ident())

    def slow() -> None:
        where.append(threading.get_ident())
        time.sleep(0.6)

    gatherer = Gatherer(0.4, memory=True)
    for _ in range(TRUSTED + 1):
        assert gatherer.run({"a": quick}) == ({"a": None}, {})
    assert where[0] != threading.get_ident() == where[-1]
    assert gatherer.run({"a": slow}) == ({"a": None}, {}), "the first slow one is waited for"
    assert gatherer.run({"a": slow}) == ({}, {"a": LATE}), "the next one is not"
    assert where[-1] != threading.get_ident() == where[-2]


class Shelf:
    """Two channels; what is wrong with them can be set."""

    n_items = N

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}
        self.depths: list[int] = []

    def candidates(
        self,
        states: list[QueryState],
        depth: int,
        allowed: object = None,
        filter_seen: bool = True,
        gather: Gather | None = None,
        excluded: Sequence[IntArray] | None = None,
    ) -> list[ChannelScores]:
        self.depths.append(depth)
        assert gather is not None
        done = gather({"sequence": lambda: self._call("sequence"), "text": lambda: self._call("text")})
        items = np.arange(20, dtype=np.int32)
        columns = [done.get(name, np.zeros(N, np.float32))[items] for name in ("sequence", "text")]
        ranks = np.stack([items, items], axis=1)
        return [ChannelScores(items, ("sequence", "text"), np.stack(columns, 1), ranks, np.ones(20, np.float32), depth)]

    def _call(self, name: str) -> FloatArray:
        if self.wrong.get(name) == FAILED:
            raise ValueError(name)
        if self.wrong.get(name) == LATE:
            time.sleep(0.5)
        return SCORES if name == "text" else np.zeros(N, np.float32)


class Sum:
    wrong = False

    def score(self, found: ChannelScores, history_length: int) -> FloatArray:
        if self.wrong:
            raise ZeroDivisionError
        return found.scores.sum(axis=1)

    def parts(self, found: ChannelScores, history_length: int) -> FloatArray:
        return found.scores


class Backwards:
    """A ranker that turns the order of the best five around."""

    wrong = ""

    def first(self, scores: FloatArray, tell: bool = False) -> IntArray:
        return np.argsort(-scores, kind="stable")[:5]

    def hydrate(self, items: IntArray, state: QueryState) -> None:
        return None

    def rank(self, found: ChannelScores, scores: FloatArray, state: QueryState, first: IntArray, told: object) -> Ranked:
        if self.wrong == LATE:
            time.sleep(0.5)
        if self.wrong:
            raise ValueError("no ranker")
        final = scores.copy()
        final[first] = 10 + np.arange(len(first))
        return Ranked(final)


def road() -> tuple[Road, Shelf, Sum, Backwards]:
    shelf, fusion, ranker = Shelf(), Sum(), Backwards()
    popular = lambda: SCORES[::-1]  # noqa: E731
    return (
        Road(shelf, fusion, lambda i: np.ones((len(i), 2), np.float32), 12, None, None, ranker, popular, 0.1),
        shelf,
        fusion,
        ranker,
    )


STATE = QueryState(np.array([0, 1], np.int32), np.ones(2, np.float32), asker=Asker("u", 0.0))
BEST = [6, 5, 4, 3, 2, 7]


def test_every_rung_of_the_ladder_is_reached_by_faults() -> None:
    way, shelf, fusion, ranker = road()
    full = way.recommend(STATE, Wish(6))
    assert (full.items.tolist(), full.level, full.degraded) == (BEST, 0, [])
    for wrong in (FAILED, LATE):
        shelf.wrong = {"sequence": wrong}
        found = way.recommend(STATE, Wish(6))
        assert (found.items.tolist(), found.level, found.degraded) == (BEST, FEWER, [f"source sequence: {wrong}"])
    shelf.wrong = {}
    time.sleep(0.5)  # the late source comes back
    for wrong in (FAILED, LATE):
        ranker.wrong = wrong
        found = way.recommend(STATE, Wish(6))
        assert (found.items.tolist(), found.level, found.degraded) == ([2, 3, 4, 5, 6, 7], NO_RANKER, [f"ranker: {wrong}"])
    ranker.wrong, fusion.wrong = "", True
    time.sleep(0.5)
    found = way.recommend(STATE, Wish(6))
    assert (found.items.tolist(), found.level, found.degraded) == (BEST, PRECOMPUTED, ["score: failed"])
    assert set(found.sources) == {"precomputed"}
    barred = np.zeros(N, dtype=bool)
    barred[[6, 4]] = True
    assert way.recommend(STATE, Wish(4, barred)).items.tolist() == [5, 3, 2, 7], "a kept list obeys what holds now"
    stranger = QueryState(STATE.history, None, asker=Asker("v", 0.0))
    found = way.recommend(stranger, Wish(3))
    assert (found.items.tolist(), found.level) == ([49, 48, 47], POPULAR)
    assert set(found.sources) == {"popular"}


def test_every_rung_of_the_ladder_is_reached_by_load() -> None:
    way, shelf, _, _ = road()
    wanted = {0: BEST, FEWER: BEST, NO_RANKER: [2, 3, 4, 5, 6, 7], PRECOMPUTED: BEST, POPULAR: [49, 48, 47, 46, 45, 44]}
    for level, items in wanted.items():
        found = way.recommend(STATE, Wish(6, level=level))
        assert (found.items.tolist(), found.level) == (items, level)
        assert bool(found.degraded) == (level > 0)
    assert shelf.depths == [12, 6, 6], "below, no source is asked"
