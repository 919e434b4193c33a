"""Questions that are answered together are answered as if each had come alone; who breaks something falls alone; of those who ask again a moment later, none is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError
from tastemaker.schema.queries import Answer, RecommendQuery, SessionEvent
from tastemaker.schema.rules import Pin
from tastemaker.schema.settings import ServingSettings
from tastemaker.serving.answers import Answers
from tastemaker.serving.ladder import Busy
from tastemaker.serving.together import Turns
from tastemaker.serving.wire import open_live
from toy_bundle import write_workspace
from toy_ranker import write_ranker

QUESTIONS: list[dict[str, Any]] = [
    {"user_id": "u0"},
    {"user_id": "u1", "k": 3, "explain": True},
    {"user_id": "u2", "filter": {"field": "price", "lt": 20}},
    {"user_id": "nobody"},
    {},
    {"session": [SessionEvent(item_id="coffee-3"), SessionEvent(item_id="boots-1")], "k": 60},
    {"user_id": "u3", "diversity": 0.5, "exclude": ["boots-0"]},
    {"user_id": "u4", "pinned": [Pin(item_id="guitar-7", place=2)]},
    {"user_id": "u5", "k": 0},
    {"user_id": "u6", "filter": {"field": "price", "lt": -1}},
    {"user_id": "u7", "diversity": 0.5, "diversity_by": "nothing"},
    {"user_id": "u8", "filter": {"nothing": 1}},
    {"user_id": "u9", "target": "users"},
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    space: Path = tmp_path_factory.mktemp("space")
    write_workspace(space, besides=write_ranker)
    journal = Journal.open(space / "journal")
    yield Answers(open_live(space / "bundles", journal), journal, ServingSettings(), clock=lambda: 1.6e9 + 1e5)
    journal.close()


def same(one: Answer | Exception, other: Answer | Exception) -> bool:
    if isinstance(one, Exception) or isinstance(other, Exception):
        return type(one) is type(other) and str(one) == str(other)
    rough = [msgspec.to_builtins(msgspec.structs.replace(answer, items=[])) for answer in (one, other)]
    places = [[(item.item_id, item.source, item.reason, item.moves) for item in answer.items] for answer in (one, other)]
    scores = [[item.score for item in answer.items] for answer in (one, other)]
    return rough[0] == rough[1] and places[0] == places[1] and np.allclose(*scores, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(QUESTIONS) - 1), min_size=1, max_size=9))
def test_a_batch_is_answered_as_one_by_one(answers: Answers, chosen: list[int]) -> None:
    queries = [RecommendQuery(**QUESTIONS[place], request_id=f"r{place}") for place in chosen]
    together = answers.recommend_many(queries)
    alone = [answers.recommend_many([query])[0] for query in queries]
    for query, one, other in zip(queries, together, alone, strict=True):
        assert same(one, other), query


def test_who_breaks_a_stage_falls_alone(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    live = answers.live
    assert live.ranker is not None
    victim = live.state.history("u1")
    whole, reading = live.ranker.list.ranked_many, live.brain.user.vectors

    def breaks(asked: Sequence[Any]) -> Any:
        if any(np.array_equal(one.state.history, victim) for one in asked):
            raise ZeroDivisionError("a ranker that breaks")
        return whole(asked)

    def hangs(histories: Sequence[Any], rows: Any) -> Any:
        if any(np.array_equal(history, victim) for history in histories):
            raise ZeroDivisionError("a tower that breaks")
        return reading(histories, rows)

    queries = [RecommendQuery(user_id=f"u{number}", request_id="r") for number in range(4)]
    right = answers.recommend_many(queries)
    for owner, name, fault, level in ((live.ranker.list, "ranked_many", breaks, 2), (live.brain.user, "vectors", hangs, 1)):
        with monkeypatch.context() as patch:
            patch.setitem(vars(owner), name, fault)
            found = answers.recommend_many(queries)
        levels = [one.level for one in found if isinstance(one, Answer)]
        assert levels == [0, level, 0, 0]
        assert [place for place in range(4) if same(found[place], right[place])] == [0, 2, 3]


def test_those_who_wait_share_a_turn_and_keep_their_order() -> None:
    turns: list[list[int]] = []

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        turns.append(list(asked))
        return [InputError("odd") if number % 5 == 4 else 10 * number for number in asked]

    async def run() -> list[Any]:
        waiting = Turns(answer, 4, lambda waited, now: None)
        first = await waiting.ask(100, time.monotonic())
        gone = asyncio.ensure_future(waiting.ask(7, time.monotonic()))
        await asyncio.sleep(0)
        asked = [asyncio.ensure_future(waiting.ask(number, time.monotonic())) for number in range(6)]
        gone.cancel()
        return [first, *await asyncio.gather(*asked, return_exceptions=True)]

    found = asyncio.run(run())
    assert turns == [[100], [0, 1, 2, 3], [4, 5]], "one that comes alone is answered at once, one that has gone is not"
    assert found[:5] == [1000, 0, 10, 20, 30]
    assert isinstance(found[5], InputError)
    assert found[6] == 50


def test_who_has_waited_too_long_for_a_turn_is_refused_and_the_others_are_answered() -> None:
    def admit(waited: float, now: float) -> None:
        if waited > 0.5:
            raise Busy(waited)

    async def run() -> list[Any]:
        waiting: Turns[int, int] = Turns(lambda asked: [1 // number for number in asked], 4, admit)
        now = time.monotonic()
        asked = [waiting.ask(number, arrived) for number, arrived in ((1, now), (2, now - 1.0), (3, now))]
        broken = await asyncio.gather(waiting.ask(0, now), waiting.ask(1, now), return_exceptions=True)
        return [*await asyncio.gather(*asked, return_exceptions=True), *broken]

    found = asyncio.run(run())
    assert [found[0], found[2]] == [1, 0]
    assert isinstance(found[1], Busy)
    assert [type(one) for one in found[3:]] == [ZeroDivisionError] * 2, "nobody waits for ever"


def test_after_a_batch_as_many_are_waited_for_a_moment_and_no_longer() -> None:
    turns: list[list[int]] = []

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        turns.append(list(asked))
        return list(asked)

    async def run() -> tuple[float, float]:
        waiting: Turns[int, int] = Turns(answer, 8, lambda waited, now: None, 0.05)

        async def later(number: int, seconds: float) -> int:
            await asyncio.sleep(seconds)
            return await waiting.ask(number, time.monotonic())

        await asyncio.gather(*(later(number, 0.0) for number in (0, 1, 2)))
        began = time.monotonic()
        await asyncio.gather(later(3, 0.0), later(4, 0.004), later(5, 0.008))
        came = time.monotonic() - began
        await later(6, 0.0)  # two of its companions have gone
        lone = time.monotonic() - began - came
        await later(7, 0.0)
        assert time.monotonic() - began - came - lone < 0.04, "who was alone before is not waited for"
        await asyncio.gather(later(8, 0.0), later(9, 0.0))
        await later(10, 0.06)
        await asyncio.gather(*(later(number, 0.0) for number in (11, 12, 13)))
        await asyncio.gather(later(14, 0.0), later(15, 0.0))  # the moment ends with two
        await asyncio.wait_for(later(16, 0.0), 5)
        return came, lone

    came, lone = asyncio.run(run())
    assert turns == [[0, 1, 2], [3, 4, 5], [6], [7], [8, 9], [10], [11, 12, 13], [14, 15], [16]]
    assert came < 0.05 <= lone + 0.002, "whoever is there ends the moment; a lone one waits for all of it, and not again"


def test_nobody_is_waited_for_where_the_moment_is_nought() -> None:
    turns: list[list[int]] = []

    async def run() -> None:
        waiting: Turns[int, int] = Turns(lambda asked: turns.append(list(asked)) or list(asked), 8, lambda waited, now: None)
        for some in ((0, 1), (2,), (3,)):
            await asyncio.gather(*(waiting.ask(number, time.monotonic()) for number in some))

    asyncio.run(run())
    assert turns == [[0, 1], [2], [3]]


@pytest.mark.parametrize("known", [True, False])
def test_two_groups_that_ask_by_turns_become_one(known: bool) -> None:
    turns: list[list[int]] = []
    meanwhile = [(5, 6, 7), (2, 3, 4)]
    tasks: list[asyncio.Future[int]] = []

    async def run() -> list[int]:
        def answer(asked: Sequence[int]) -> list[int | Exception]:
            turns.append(list(asked))
            ask(*meanwhile[len(turns) - 1] if len(turns) <= 2 else ())
            return list(asked)

        waiting: Turns[int, int] = Turns(answer, 16, lambda waited, now: None, 5.0)

        def ask(*numbers: int) -> None:
            tasks.extend(
                asyncio.ensure_future(waiting.ask(number, time.monotonic(), number if known else None)) for number in numbers
            )

        told = []
        for numbers in ((0, 1, 2, 3, 4), (0, 1), (5, 6), (7, 0, 1) if known else ()):
            ask(*numbers)
            for _ in range(5):
                await asyncio.sleep(0)
            told.append(len(turns))
        await asyncio.wait_for(asyncio.gather(*tasks), 1)
        return told

    assert asyncio.run(run()) == ([1, 2, 2, 3] if known else [1, 2, 3, 3]), (
        "those of both groups are waited for where they are known"
    )
    assert turns[:2] == [[0, 1, 2, 3, 4], [5, 6, 7, 0, 1]]
    assert sorted(turns[2]) == ([0, 1, 2, 3, 4, 5, 6, 7] if known else [2, 3, 4, 5, 6])


def test_the_moment_begins_when_the_answers_are_written() -> None:
    """Writing takes longer than the moment, and the first who asks again came while the batch was answered."""
    turns: list[list[int]] = []
    again: list[asyncio.Future[int]] = []

    async def run() -> None:
        def answer(asked: Sequence[int]) -> list[int | Exception]:
            turns.append(list(asked))
            if len(turns) == 1:
                ask(10)
            return list(asked)

        waiting: Turns[int, int] = Turns(answer, 8, lambda waited, now: None, 0.02)

        def ask(number: int) -> None:
            again.append(asyncio.ensure_future(waiting.ask(number, time.monotonic())))

        async def client(number: int) -> None:
            await waiting.ask(number, time.monotonic())
            time.sleep(0.01)  # writes
            if number:
                asyncio.get_running_loop().call_soon(ask, 10 + number)

        await asyncio.gather(*(client(number) for number in range(4)))
        await asyncio.sleep(0)
        await asyncio.gather(*again)

    asyncio.run(run())
    assert turns == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_who_did_not_come_is_not_waited_for_again() -> None:
    async def run() -> list[float]:
        waiting: Turns[int, int] = Turns(list, 8, lambda waited, now: None, 0.05)
        took: list[float] = []
        for some in (("a", "b"), ("c", "d"), ("e", "f"), ("e", "f")):
            began = time.monotonic()
            await asyncio.gather(*(waiting.ask(number, began, who) for number, who in enumerate(some)))
            took.append(time.monotonic() - began)
        return took

    took = asyncio.run(run())
    assert min(took[2], took[1]) < 0.04 < took[2] + took[1], "a and b were waited for in vain, c and d were not"
    assert took[3] < 0.04


def test_where_answers_take_long_companions_are_waited_for_longer() -> None:
    turns: list[list[int]] = []

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        turns.append(list(asked))
        time.sleep(0.4 if len(turns) == 1 else 0.0)
        return list(asked)

    async def run() -> None:
        waiting: Turns[int, int] = Turns(answer, 8, lambda waited, now: None, 0.001)

        async def later(number: int, seconds: float) -> int:
            await asyncio.sleep(seconds)
            return await waiting.ask(number, time.monotonic())

        await asyncio.gather(later(0, 0.0), later(1, 0.0))
        await asyncio.gather(later(2, 0.0), later(3, 0.02))

    asyncio.run(run())
    assert turns == [[0, 1], [2, 3]], "for longer than a millisecond, as they took 400"
