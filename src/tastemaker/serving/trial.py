"""A bundle on trial beside the live one, in one worker: who is answered by it, and what it did.

In the shadow it makes lists that nobody sees, after the answers were sent, in a thread that takes a bounded share of a core. In the canary it answers some
users, always the same ones; where it fails, the live bundle answers instead, so that a trial costs nobody an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tastemaker.bundle.rollout import CANARY, LIVE, SHADOW, Rollout
from tastemaker.evaluation.experiment import variant_of
from tastemaker.journal.sampled import in_sample
from tastemaker.journal.served import ServedLog
from tastemaker.journal.trial import Tried
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.queries import PRECOMPUTED, Answer, RecommendQuery
from tastemaker.serving.wire import Live

OVERLAP_K = 10
FAR, IN_A_ROW, USUAL = 5.0, 10, 30
"""A worker gives a bundle up at once when so many lists in a row took so many times the median of the latest so many of the control group."""
SLOW = "slow"
FALLBACK = "The bundle on trial failed; the live one answered."
Make = Callable[[Live], Answer]


class GaveUp(Exception):
    """A bundle on trial fell to a list without its models; the live one is asked instead."""


class Trial:
    """One worker's part of a release in stages.

    Args:
        rollout: how far it is. live: the bundle on trial, in nobody else's hands.
        log: where lists are noted. metrics: counts by variant. clock: epoch seconds.
    """

    def __init__(
        self,
        rollout: Rollout,
        live: Live,
        log: ServedLog,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rollout, self.live = rollout, live
        self._log, self._metrics, self._clock = log, metrics, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_yielding)
        self._waiting, self._free_at = 0, 0.0
        self._usual: deque[float] = deque(maxlen=USUAL)
        self._slow, self._given_up = 0, False
        self._deadline = live.road.gatherer.seconds
        self.move(rollout)

    @property
    def answers(self) -> bool:
        """Whether somebody is answered by it."""
        return self.rollout.stage == CANARY

    def move(self, rollout: Rollout) -> None:
        """Another stage; from the shadow to the canary only when `close` was waited for."""
        self.rollout = rollout
        self.live.road.gatherer.seconds = (
            self._deadline if self.answers else 0.0
        )  # in the shadow all of it runs in one thread, whose time is taken

    def variant(self, user_id: str | None) -> str:
        """`canary`, `control` or `live`, always the same for a user in a step; without a user `live`."""
        if not user_id or not self.answers:
            return LIVE
        return variant_of(user_id, self.rollout.experiment, self.rollout.dealt)

    def answer(self, user_id: str | None, live: Live, make: Make, counts: bool, poll: Callable[[Live], object]) -> Answer:
        """An answer by the user's variant.

        Args:
            live: the live bundle. make: the answer of a bundle. counts: it is a list, whose time and use are compared. poll: brings a bundle up to date.
        """
        variant = self.variant(user_id)
        if variant == LIVE or (variant == CANARY and self._given_up):
            return make(live)
        asked, error = self.live if variant == CANARY else live, ""
        if variant == CANARY:
            with contextlib.suppress(Exception):  # what is wrong shows in the answer
                poll(asked)
        began, busy = time.perf_counter(), spent(asked)
        try:
            found = make(asked)
        except Exception as failure:  # whatever the bundle does, its users are answered
            if variant != CANARY:
                raise
            found = make(live)  # raises what is the question's own fault
            error = type(failure).__name__
            found = msgspec.structs.replace(found, notes=[*(found.notes or []), FALLBACK])
        found = msgspec.structs.replace(found, variant=variant)
        if counts or error:
            self._tell(variant, found, user_id or "", time.perf_counter() - began, spent(asked) - busy, error)
        return found

    def mirror(self, query: RecommendQuery, answer: Answer, cpu: float, make: Make) -> None:
        """Has the bundle make the same list, when the answer is on its way; nobody waits for it, and if it has enough to do it is left out.

        Args:
            answer: what was answered. cpu: seconds of the processor that its list took. make: the list of a bundle, without a trace.
        """
        if self.rollout.stage != SHADOW or self._waiting or time.monotonic() < self._free_at:
            return
        if in_sample(f"shadow:{answer.request_id}", self.rollout.limits.mirror):
            self._waiting += 1
            asyncio.get_running_loop().call_soon(
                self._begin, query, answer, cpu, make, self.rollout
            )  # the answer is written before

    def close(self) -> None:
        """Waits for the list that the shadow is making."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _begin(self, query: RecommendQuery, answer: Answer, cpu: float, make: Make, rollout: Rollout) -> None:
        try:
            self._thread.submit(self._shadow, query, answer, cpu, make, rollout)
        except RuntimeError:  # closed meanwhile
            self._waiting -= 1

    def _shadow(self, query: RecommendQuery, answer: Answer, cpu: float, make: Make, rollout: Rollout) -> None:
        wall = time.perf_counter()
        try:
            self.live.poll()
            began, error, found = spent(self.live), "", None
            try:
                found = make(self.live)
                error = GaveUp.__name__ if gave_up(found, answer.level) else ""
            except Exception as failure:  # it is noted, and that is all that it does
                error = type(failure).__name__
            taken = spent(self.live) - began
            told = Tried(
                experiment=rollout.experiment, step=rollout.step, variant=SHADOW, request_id=answer.request_id, user_id=query.user_id or "",
                time=self._clock(), cpu=taken, level=found.level if found is not None else 0, error=error, live_cpu=cpu,
                live_level=answer.level, overlap=None if found is None else overlap(answer, found),
            )  # fmt: skip
            self._log.write(told)
            self._metrics.tried(SHADOW, taken, "failed" if error else "degraded" if told.level else "ok")
        finally:
            self._free_at = time.monotonic() + (time.perf_counter() - wall) * (1 / self.rollout.limits.mirror_busy - 1)
            self._waiting -= 1

    def _tell(self, variant: str, found: Answer, user_id: str, seconds: float, cpu: float, error: str) -> None:
        rollout, now = self.rollout, self._clock()
        told = Tried(
            experiment=rollout.experiment, step=rollout.step, variant=variant, request_id=found.request_id, user_id=user_id, time=now,
            seconds=seconds, cpu=cpu, level=found.level, error=error,
        )  # fmt: skip
        self._log.write(told)
        self._metrics.tried(variant, seconds, "failed" if error else "degraded" if found.level else "ok")
        if self._far_too_slow(variant, cpu):
            self._given_up = True
            self._log.write(Tried(experiment=rollout.experiment, step=rollout.step, variant=variant, time=now, error=SLOW))

    def _far_too_slow(self, variant: str, cpu: float) -> bool:
        """Whether the last lists of the canary all took many times as long as usual: every further one would hold up everybody in this worker."""
        if variant != CANARY:
            self._usual.append(cpu)
            return False
        if len(self._usual) < USUAL:
            return False
        self._slow = self._slow + 1 if cpu > FAR * statistics.median(self._usual) else 0
        return self._slow >= IN_A_ROW


def gave_up(answer: Answer, level: int) -> bool:
    """Whether a list was made without the bundle's models though nothing but the bundle was in the way: the service asked for `level`."""
    return answer.level >= PRECOMPUTED > level


def spent(live: Live) -> float:
    """Seconds of the processor that this thread took, and the threads that work for a bundle's lists: a clock that other processes do not hurry."""
    return time.thread_time() + live.road.gatherer.spent


def _yielding() -> None:
    """This thread goes behind those that answer, where the system lets a thread."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def overlap(one: Answer, other: Answer, k: int = OVERLAP_K) -> float | None:
    """Share of the first k items of one list that are among the first k of the other; None where the one is empty."""
    first, second = ([item.item_id for item in answer.items[:k]] for answer in (one, other))
    return len(set(first) & set(second)) / len(first) if first else None
