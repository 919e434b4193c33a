"""How busy this worker is: which rung of the ladder it answers from, and when it refuses.

What counts is how long requests wait for their turn, from their first byte to the moment that somebody looks at them (M. Welsh and D. Culler, 2003: a
delay says more than a queue's length). A smoothed wait chooses the rung; a request that has itself waited too long is refused, as its client has
given up or soon will.
"""

from __future__ import annotations

from tastemaker.schema.errors import TastemakerError
from tastemaker.schema.queries import FEWER, NO_RANKER, POPULAR, PRECOMPUTED

RUNGS = ((1.0, FEWER), (1.5, NO_RANKER), (2.5, PRECOMPUTED), (3.5, POPULAR))
"""From how many times the setting on a rung is stepped on."""
REFUSED, AT_THE_DOOR = 5.0, 3.5
"""A request is refused from so many times the setting on: when its turn comes, and before it is read, as then its turn is still to be waited for."""
WEIGHT, FORGET_SECONDS = 0.1, 1.0
"""Of the latest wait in the smoothed one; after so many seconds without a request the latest is all that counts."""


class Busy(TastemakerError):
    """Too many requests wait; `wait` is in seconds."""

    wait = 1

    def __init__(self, waited: float) -> None:
        super().__init__(
            f"The service is busy: this request has waited {1e3 * waited:.0f} ms for its turn. Try again in {self.wait} s."
        )


class Ladder:
    """Watches how long requests wait.

    Args:
        seconds: the wait from which on answers step down; 0: never.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._wait, self._last = seconds, 0.0, 0.0

    @property
    def level(self) -> int:
        """The rung to answer from now, one of `queries.LEVELS`."""
        if not self._seconds or self._wait < self._seconds:
            return 0
        return max(level for times, level in RUNGS if self._wait >= times * self._seconds)

    def too_long(self, waited: float) -> bool:
        """Whether who has waited so many seconds to be let in need not come in."""
        return 0 < self._seconds < waited / AT_THE_DOOR

    def take(self, waited: float, now: float, most: float = REFUSED) -> None:
        """Counts a request.

        Args:
            waited: seconds since its first byte. now: seconds of a clock that never goes back. most: times the setting that it may have waited.

        Raises:
            Busy: it has waited too long.
        """
        if not self._seconds:
            return
        weight = min(max(WEIGHT, (now - self._last) / FORGET_SECONDS), 1.0)
        self._wait += weight * (waited - self._wait)
        self._last = now
        if waited > most * self._seconds:
            raise Busy(waited)
