"""Takes a consumer's share of a log of events into the journal, each event once, however often it is read.

First durable in the journal, then acknowledged: who dies in between is read again, and the event's id, its own or its place in the log, is in the journal
already. No more is read than the journal has taken, so a full disk or a burst fills no memory: the log waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tastemaker.journal.append import Journal
from tastemaker.journal.incoming import event_from
from tastemaker.schema.errors import InputError, JournalError
from tastemaker.schema.events import Event
from tastemaker.streaming.link import Unreachable
from tastemaker.streaming.log import EventLog, Piece, Reader

LAG_EVERY, PAUSE, WAIT = 0.5, 0.25, 0.1
"""Seconds between looks at the lag, after a failure, and for which new messages are waited for."""


@dataclass(frozen=True)
class Taken:
    """What a turn did.

    Attributes:
        accepted, duplicates, rejected: events that were new, that the journal had, and messages that are no events.
        lag: messages of the own partitions that are not acknowledged; None: not looked at. seconds: until they were durable.
        why: reasons of the rejected ones, some of them. error: why nothing could be done.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    lag: int | None = None
    seconds: float = 0.0
    why: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def read(self) -> int:
        """Messages that were done with."""
        return self.accepted + self.duplicates + self.rejected

    def __add__(self, other: Taken) -> Taken:
        lag = self.lag if other.lag is None else other.lag
        counts = (self.accepted + other.accepted, self.duplicates + other.duplicates, self.rejected + other.rejected)
        return Taken(*counts, lag, self.seconds + other.seconds, [*self.why, *other.why][:3])


Count = Callable[[Taken], None]


class Intake:
    """One consumer.

    Args:
        journal: opened for this alone. log: opened for this alone. group: whose share is taken. session: as in `log.SESSION`.
        count: told of every turn that took something, and twice a second of the lag.
    """

    def __init__(self, journal: Journal, log: EventLog, group: str, session: float, count: Count = lambda taken: None) -> None:
        self._journal, self._log, self._group, self._session, self._count = journal, log, group, session, count
        self._reader: Reader | None = None
        self._held: list[Piece] = []
        self._next_lag = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, name="intake", daemon=True)

    def start(self) -> Intake:
        """Begins, in a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """`run` ends after the turn under way."""
        self._stop.set()

    def close(self) -> None:
        """Ends after the turn under way, and leaves the group."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(5)
        elif self._reader is not None:
            self.leave()

    def run(self, once: bool = False) -> None:
        """Takes on and on, until `close`; whatever fails is tried again.

        Args:
            once: ends when nothing is left, and no partition of a dead consumer has turned up for the time of a session.
        """
        idle = time.monotonic()
        while not self._stop.is_set() and not (once and time.monotonic() > idle + self._session + LAG_EVERY):
            try:
                taken = self.turn(WAIT)
                if taken.read or taken.lag or not self.owned:
                    idle = time.monotonic()
            except (Unreachable, JournalError) as error:  # the log, or the disk: nothing is acknowledged meanwhile
                self._count(Taken(error=str(error)))
                if (
                    isinstance(error, Unreachable) and self._reader is not None
                ):  # joins anew: what is held is stored again, which changes nothing
                    reader, self._reader = self._reader, None
                    with contextlib.suppress(Unreachable):
                        reader.close()
                self._stop.wait(PAUSE)
                idle = time.monotonic()
        self.leave()
        self._journal.close()

    def turn(self, wait: float = 0.0) -> Taken:
        """Reads some messages, stores their events, and only then says that they are done with.

        Raises:
            Unreachable: the log can't be read. JournalError: the journal can't be written; the messages are held and tried again.
        """
        if self._reader is None:
            self._reader = self._log.reader(self._group, self._session)
        if not self._held:
            self._held = self._reader.poll(wait)
        taken = self._store(self._held) if self._held else Taken()
        held = self._held
        if held:
            self._reader.ack(held)  # where that fails they are stored again, which changes nothing, and acknowledged then
        self._held = []
        if time.monotonic() >= self._next_lag:
            self._next_lag = time.monotonic() + LAG_EVERY
            taken += Taken(lag=sum(self._reader.lag().values()))
        if held or taken.lag is not None:
            self._count(taken)
        return taken

    @property
    def owned(self) -> list[int]:
        """Partitions that are this consumer's."""
        return [] if self._reader is None else self._reader.owned

    def _store(self, pieces: list[Piece]) -> Taken:
        events, why = list[Event](), list[str]()
        rejected = 0
        for piece in pieces:
            for message in piece.messages:
                try:
                    event = event_from(message.body, message.time)
                except (msgspec.DecodeError, UnicodeError, InputError) as error:  # read again it would be no better
                    rejected += 1
                    why.append(f"{piece.partition}:{message.place}: {error}")
                    continue
                name = event.event_id or self._name(piece.partition, message.place)
                events.append(msgspec.structs.replace(event, event_id=name))
        began = time.perf_counter()
        done = self._journal.append(events)
        return Taken(done.accepted, done.duplicates, rejected, None, time.perf_counter() - began, why[:3])

    def _name(self, partition: int, place: str) -> str:
        """The id of an event that has none of its own: where it stands."""
        return f"{self._log.name}/{partition}/{place}"

    def leave(self) -> None:
        """Others take over at once."""
        with contextlib.suppress(Unreachable):
            if self._reader is not None:
                self._reader.close()
        self._log.close()
