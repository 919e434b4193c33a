"""A log of events that many write and groups of consumers read: partitions by user, at least once, and the place of every message.

A message is one event as JSON, as `POST /v1/events` takes it. All events of a user are in one partition, and a partition has one consumer of a group at a
time, so a user's events are read in the order in which they were sent, however many consumers there are. A message is read again if its reader dies
before it has said that it is done, so each has a name by which its event is stored once: the event's own id, or else its place in the log.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.events import Event

PARTITIONS = 8
"""Of a log that is made here: the most consumers of a group that work at the same time."""
LIMIT = 100_000
"""Messages that a partition may hold which some group has not read; then writers are refused."""
SESSION = 10.0
"""Seconds without a sign of a consumer after which others take its partitions."""
PIECE = 500
"""Messages that are read at once."""
START = "0"
"""The place before the first message."""
encode = msgspec.json.Encoder().encode


class Full(TastemakerError):
    """Readers are so far behind that nothing more is taken; nothing of what was sent was kept. Try again in `wait` seconds."""

    wait = 1

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(f"{name} holds {limit:,} events that have not been read; nothing was taken. Try again in {self.wait} s.")


class Message(NamedTuple):
    """One message: its place in the partition, when it was written (epoch seconds), and what it says."""

    place: str
    time: float
    body: bytes


class Piece(NamedTuple):
    """Messages of one partition, in order."""

    partition: int
    messages: list[Message]


class Reader(Protocol):
    """One consumer of a group. Not for several threads."""

    @property
    def owned(self) -> list[int]:
        """Partitions that are this one's now."""

    def poll(self, wait: float) -> list[Piece]:
        """New messages of the own partitions; waits some seconds for the first. What was read and not acknowledged by a dead reader comes again.

        Raises:
            Unreachable: the log can't be read now.
        """

    def ack(self, pieces: Sequence[Piece]) -> None:
        """These are done with: durable elsewhere. Of partitions that have gone to another reader it does nothing; they are read there again."""

    def lag(self) -> dict[int, int]:
        """Messages of each own partition that are not acknowledged; what is beyond 10,000 may be told as 10,000."""

    def close(self) -> None:
        """Leaves the group, so that others take over at once."""


class EventLog(Protocol):
    """What writes and reads such a log."""

    name: str

    @property
    def partitions(self) -> int:
        """How many there are."""

    def send(self, events: Sequence[Event]) -> None:
        """Adds events; when it returns they are as durable as the log. What fails may be sent again: events are stored once by their ids.

        Raises:
            Full: readers are too far behind; nothing was added. Unreachable: it is not known whether they were added.
        """

    def reader(self, group: str, session: float = SESSION) -> Reader:
        """Joins a group; its consumers share the partitions. A new group begins with the first message that is still there."""

    def rewind(self, group: str, places: Mapping[int, str] | None = None) -> None:
        """The group reads again what comes after these places, by partition; None: everything that is still there.

        Raises:
            InputError: a place can't be read, or the log can't do it now; the message says what to do.
        """

    def close(self) -> None:
        """Lets go of the connection."""


def open_log(url: str) -> EventLog:
    """The log of an address: `redis://HOST:PORT/0?stream=NAME`, `kafka://HOST:PORT/TOPIC`, or `journal:FOLDER`, the journal of another workspace.

    Raises:
        InputError: the address can't be read. ModuleNotFoundError: the extra `redis` or `kafka` is not installed.
    """
    scheme = url.partition(":")[0]
    if scheme == "kafka":
        from tastemaker.streaming._kafka_log import KafkaLog

        return KafkaLog(url)
    if scheme in ("redis", "rediss", "unix"):
        from tastemaker.streaming._redis_log import RedisLog

        return RedisLog(url)
    if scheme == "journal":
        from tastemaker.streaming.journal_log import JournalLog

        return JournalLog(url.partition(":")[2])
    raise InputError(
        f"{url.partition('?')[0]!r} is no address of a log of events. Expected redis://…, kafka://HOST:PORT/TOPIC or journal:FOLDER."
    )


def partition_of(user_id: str, partitions: int) -> int:
    """The partition of a user's events: CRC-32 of the id's UTF-8, modulo the number of partitions."""
    return zlib.crc32(user_id.encode("utf-8", "surrogatepass")) % partitions


def share(members: Iterable[str], name: str, partitions: int) -> set[int]:
    """The partitions of one of a group's members: each partition has one member, and members differ by at most one partition."""
    known = sorted({*members, name})
    return set(range(known.index(name), partitions, len(known)))


def by_partition(events: Sequence[Event], partitions: int) -> dict[int, list[Event]]:
    """Events by the partition of their user, in order."""
    found: dict[int, list[Event]] = {}
    for event in events:
        found.setdefault(partition_of(event.user_id, partitions), []).append(event)
    return found


def digits(place: str, name: str) -> int:
    """A place that is a number.

    Raises:
        InputError: it is none.
    """
    number = place.partition("@")[0]
    if not (number.isascii() and number.isdigit()):
        raise InputError(f"{place[:40]!r} is no place in {name}. Expected a whole number, 0 for the beginning.")
    return int(number)
