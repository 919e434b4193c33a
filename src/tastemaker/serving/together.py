"""Micro-batches: questions that wait for the same turn of the event loop are answered together.

While one batch is answered, requests arrive in the sockets; the next turn reads all of them. So batches grow with the load by themselves, and a question that
comes alone is answered at once.

Those who were answered together ask again at about the same time, but not in the same turn: the first of them would be answered alone, while the others wait for that. So
for a moment after a batch the next one waits until as many have come.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")


class Turns(Generic[Question, Reply]):
    """Gathers questions and has them answered.

    Args:
        answer: gives an answer, or what is wrong, for each question. most: questions that are answered together.
        moment: after a batch, in seconds, in which as many are waited for as it had.
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
        self._companions, self._until = 1, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Question, float, asyncio.Future[Reply]]] = deque()

    async def ask(self, question: Question, arrived: float) -> Reply:
        """The answer, in the next turn.

        Args:
            arrived: when its first byte came, seconds of `time.monotonic`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((question, arrived, future))
        if self._timer is not None:
            if len(self._waiting) >= self._companions:
                self._timer.cancel()
                self._timer = None
                loop.call_soon(self._turn)
        elif len(self._waiting) == 1:
            left = self._until - time.monotonic()
            if self._companions > 1 and left > 0:
                self._timer = loop.call_later(left, self._turn)
            else:
                loop.call_soon(self._turn)
        return await future

    def _turn(self) -> None:
        """Answers those who wait, `most` of them; the others' turn is the next one, after what else the loop has to do."""
        self._timer = None
        asked: list[tuple[Question, asyncio.Future[Reply]]] = []
        while self._waiting and len(asked) < self._most:
            question, arrived, future = self._waiting.popleft()
            if future.done():  # the client has gone
                continue
            now = time.monotonic()
            try:
                self._admit(now - arrived, now)
            except Exception as error:
                future.set_exception(error)
                continue
            asked.append((question, future))
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        if not asked:
            return
        try:
            replies = self._answer([question for question, _ in asked])
        except Exception as error:
            replies = [error] * len(asked)
        self._companions, self._until = len(asked), time.monotonic() + self._moment
        for (_, future), reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
