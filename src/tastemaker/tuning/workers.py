"""Where folds are judged: in this process, or in several of this machine. Another place fits in that has `size` and `submit`."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Protocol

from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.tuning.objective import FoldScore, Objective
from tastemaker.tuning.race import Curve

_given: list[Objective] = []


class Workers(Protocol):
    """Judges folds somewhere."""

    @property
    def size(self) -> int:
        """Folds at the same time."""

    def submit(self, settings: Settings, fold: int, rivals: Sequence[Curve] = ()) -> Future[FoldScore]:
        """The score of one fold, when it is there."""


class Here:
    """Judges in this process, one fold at a time."""

    size = 1

    def __init__(self, objective: Objective, progress: Progress | None = None) -> None:
        self._objective, self._progress = objective, progress

    def submit(self, settings: Settings, fold: int, rivals: Sequence[Curve] = ()) -> Future[FoldScore]:
        """Judges at once; the future is done."""
        done: Future[FoldScore] = Future()
        try:
            done.set_result(judged(self._objective, settings, fold, rivals, self._progress))
        except Exception as error:  # whoever asks for the result meets it
            done.set_exception(error)
        return done


class Processes:
    """Judges in processes of this machine, each with the objective in its memory."""

    def __init__(self, pool: ProcessPoolExecutor, size: int) -> None:
        self._pool, self.size = pool, size

    def submit(self, settings: Settings, fold: int, rivals: Sequence[Curve] = ()) -> Future[FoldScore]:
        """Judges in the next free process."""
        return self._pool.submit(_judge, settings, fold, rivals)


@contextmanager
def processes(objective: Objective, count: int) -> Iterator[Processes]:
    """`count` processes; they are started anew, not forked, as torch's threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (objective,)) as pool:
        yield Processes(pool, count)


def _begin(objective: Objective) -> None:
    _given.append(objective)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """A search that is killed must not leave processes behind that go on training for nobody."""
    wait([sentinel])
    os._exit(1)


def judged(
    objective: Objective, settings: Settings, fold: int, rivals: Sequence[Curve], progress: Progress | None = None
) -> FoldScore:
    """The score of one fold; an objective that knows no rivals is not told of any where there are none."""
    return objective.judge(settings, fold, progress, rivals) if rivals else objective.judge(settings, fold, progress)


def _judge(settings: Settings, fold: int, rivals: Sequence[Curve]) -> FoldScore:
    return judged(_given[-1], settings, fold, rivals)
