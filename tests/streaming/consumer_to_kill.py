"""A consumer that is killed between what it stores and what it acknowledges: python consumer_to_kill.py JOURNAL LOG GROUP SESSION ACKS [unguarded].

ACKS below 1: it lives until nothing is left.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from tastemaker.journal.append import Journal
from tastemaker.streaming.intake import Intake
from tastemaker.streaming.log import Piece, open_log


class Mortal(Intake):
    """Dies instead of its n-th acknowledgement; unguarded, it gives every event a new name whenever it reads it."""

    def __init__(self, journal: Path, url: str, group: str, session: float, acks: int, guarded: bool) -> None:
        super().__init__(Journal.open(journal), open_log(url), group, session)
        self._acks, self._guarded = acks, guarded

    def turn(self, wait: float = 0.0):  # type: ignore[no-untyped-def]
        if self._reader is None:
            self._reader = self._log.reader(self._group, self._session)
            acknowledge = self._reader.ack

            def ack(pieces: Sequence[Piece]) -> None:
                self._acks -= 1
                if self._acks == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                acknowledge(pieces)

            self._reader.ack = ack  # type: ignore[method-assign]
        return super().turn(wait)

    def _name(self, partition: int, place: str) -> str:
        return super()._name(partition, place) if self._guarded else uuid.uuid4().hex


if __name__ == "__main__":
    Mortal(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]), "unguarded" not in sys.argv).run(
        once=True
    )
