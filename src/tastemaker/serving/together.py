"""Micro-batches: questions that wait for the same turn of the event loop are answered together.

While one batch is answered, requests arrive in the sockets; the next turn reads all of them. So batches grow with the load by themselves, and a question that
comes alone is answered at once.

Those who were answered together ask again at about the same time, but not in the same turn: the first of them would be answered alone, while the others wait for that. So
for a moment after a batch the next one waits until as many have come. And those who ask in two groups, each while the other one is answered, would do so for ever: whoever was
answered in the last two batches is waited for, unless that was in vain the last time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

WORTH = 0.4
"""Of the time that the latest answers took: so long those who were answered together are waited for at least. Two turns for what could have been one cost more."""
Question = TypeVar("Question")
Reply = TypeVar("Reply")


class Turns(Generic[Question, Reply]):
    """Gathers questions and has them answered.

    Args:
        answer: gives an answer, or what is wrong, for each question. most: questions that are answered together.
        moment: after a batch was told, in seconds, in which those of the last two are waited for; longer where answers take long. 0: nobody is waited for.
        admit: is told how long a question has waited for its turn, in seconds, and the time; raises where that was too long.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Reply | Exception]],
        most: int,
        admit: Callable[[float, float], None],
        moment: float = 0.0,
    ) -> None:
        self._answer, self._most, self._admit, self._moment = answer, most, admit, moment
        self._companions, self._until, self._took = 1, 0.0, 0.0
        self._latest: frozenset[Hashable] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._called = self._telling = False  # a turn comes next; answers are on their way to those who asked
        self._waiting: deque[tuple[Question, float, Hashable, asyncio.Future[Reply]]] = deque()

    async def ask(self, question: Question, arrived: float, who: Hashable = None) -> Reply:
        """The answer, in the next turn.

        Args:
            arrived: when its first byte came, seconds of `time.monotonic`. who: asks, by whom it is known again; None: nobody knows.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, arrived, who, future))
        if not self._telling:
            self._arrange()
        return await future

    def _arrange(self) -> None:
        """Sees to it that those who wait have their turn: now, or at the end of the moment."""
        loop, count = asyncio.get_running_loop(), len(self._waiting)
        if self._timer is not None:
            if count >= self._companions:
                self._timer.cancel()
                self._timer, self._called = None, True
                loop.call_soon(self._turn)
        elif not self._called:
            left = self._until - time.monotonic()
            if count < self._companions and left > 0:
                self._timer = loop.call_later(left, self._turn)
            else:
                self._called = True
                loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Answers those who wait, `most` of them; the others' turn is the next one, after what else the loop has to do."""
        in_vain, self._timer, self._called = self._timer is not None, None, False
        asked: list[tuple[Question, Hashable, asyncio.Future[Reply]]] = []
        while self._waiting and len(asked) < self._most:
            question, arrived, who, future = self._waiting.popleft()
            if future.done():  # the client has gone
                continue
            now = time.monotonic()
            try:
                self._admit(now - arrived, now)
            except Exception as error:
                future.set_exception(error)
                continue
            asked.append((question, who, future))
        if asked:
            self._tell(asked)
            known = frozenset(who for _, who, _ in asked if who is not None)
            self._companions = min(max(len(asked), len(known if in_vain else known | self._latest)), self._most)
            self._latest = known
            self._telling = True
            asyncio.get_running_loop().call_soon(self._begin_moment)  # behind those who are told now: their answers leave first
        elif self._waiting:
            self._arrange()

    def _tell(self, asked: Sequence[tuple[Question, Hashable, asyncio.Future[Reply]]]) -> None:
        began = time.monotonic()
        try:
            replies = self._answer([question for question, _, _ in asked])
        except Exception as error:
            replies = [error] * len(asked)
        self._took = time.monotonic() - began
        for (_, _, future), reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def _begin_moment(self) -> None:
        """The answers have been written: from now on those who got them can ask again."""
        moment = max(self._moment, WORTH * self._took) if self._moment else 0.0
        self._telling, self._until = False, time.monotonic() + moment
        if self._waiting:
            self._arrange()
