"""Erases people while the service answers: on a connection of its own, so that neither answers nor events wait for long."""

from __future__ import annotations

from pathlib import Path

from tastemaker.journal.append import Journal
from tastemaker.journal.erase import Erased, asked_since, erase, finish, pending
from tastemaker.monitoring.metrics import Metrics
from tastemaker.serving.wire import Live

WAIT_MS = 2_000
"""Milliseconds that readers of the database are waited for, while writers wait; what is not finished then is finished by the next look."""


def erase_now(journal: Path, user_id: str, reports: Path | None = None, bundles: Path | None = None) -> Erased:
    """Erases a person from a workspace; arguments as of `journal.erase.erase`."""
    own = Journal.open(journal)
    try:
        own._database.execute(f"PRAGMA busy_timeout={WAIT_MS}")
        return erase(own, user_id, reports, bundles)
    finally:
        own.close()


def look(journal: Journal, bundles: Path, reports: Path | None, metrics: Metrics, now: float) -> None:
    """Finishes what was cut short, and tells how many erasures are pending and for how long."""
    finish(journal, reports)
    waiting = pending(journal, bundles)
    metrics.set("tastemaker_erasures_pending", float(len(waiting)))
    metrics.set("tastemaker_erasure_pending_seconds", max((now - one.time for one in waiting), default=0.0))


class Forgetting:
    """What one worker has heard of erasures.

    Args:
        journal: for reading.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal, self._number = journal, 0
        self._number = max(
            (one.number for one in asked_since(journal)), default=0
        )  # what was before, bundles forget as they are loaded

    def tell(self, lives: list[Live]) -> None:
        """Has bundles that answer forget whoever was erased since the last call."""
        new = asked_since(self._journal, self._number)
        if not new:
            return
        self._number = new[-1].number
        for live in lives:
            live.forget(new)
