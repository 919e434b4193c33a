"""A log of events in a topic of Kafka: its own groups, offsets and rebalancing. A message's key is the user, so all clients' partitioners agree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.streaming._kafka import FETCH_MS, STARTING, Address, Loop, make_topic
from tastemaker.streaming.link import Unreachable
from tastemaker.streaming.log import PARTITIONS, PIECE, SESSION, Message, Piece, digits, encode

TIMEOUT = 10.0
"""Seconds that a batch may take: no request waits for it."""
TOPIC = "tastemaker-events"
METADATA_MS = 30_000
"""Milliseconds after which a consumer looks anew what partitions there are."""


class KafkaLog:
    """A topic.

    Args:
        url: `kafka://HOST:PORT[,HOST:PORT]/TOPIC?partitions=8&…`, see `Address`; the topic is made where it is not there.

    Raises:
        InputError: the address can't be read.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.read(url, TOPIC, PARTITIONS)
        self.name = self._address.topic
        self._loop: Loop | None = None
        self._producer: Any = None
        self._partitions = 0

    @property
    def partitions(self) -> int:
        """As in `EventLog`."""
        self._connected()
        return self._partitions

    def send(self, events: Sequence[Event]) -> None:
        """As in `EventLog`. A topic is as long as its own retention says: the cluster never refuses because readers are behind."""
        try:
            self._connected().call(self._send(events), TIMEOUT)
        except Unreachable:  # the next one connects anew, and makes a topic that is gone
            self.close()
            raise

    def reader(self, group: str, session: float = SESSION) -> KafkaReader:
        """As in `EventLog`."""
        self._connected()
        return KafkaReader(self._address, group, session)

    def rewind(self, group: str, places: Mapping[int, str] | None = None) -> None:
        """As in `EventLog`."""
        wanted = dict.fromkeys(range(self.partitions), "0") if places is None else places
        offsets = {TopicPartition(self.name, part): digits(place, self.name) for part, place in wanted.items()}
        self._connected().call(_rewound(self._address, group, offsets), STARTING + SESSION)

    def close(self) -> None:
        """As in `EventLog`."""
        if self._loop is not None:
            loop, self._loop = self._loop, None
            with contextlib.suppress(Unreachable):
                loop.call(self._producer.stop(), 2.0)
            loop.close()

    def _connected(self) -> Loop:
        if self._loop is None:
            loop = Loop()
            try:
                loop.call(self._start(), STARTING)
            except Unreachable:
                loop.close()
                raise
            self._loop = loop
        return self._loop

    async def _start(self) -> None:
        await make_topic(self._address)
        servers, options = self._address.servers, self._address.options
        self._producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=2, **options)
        await self._producer.start()
        self._partitions = len(await self._producer.partitions_for(self.name))

    async def _send(self, events: Sequence[Event]) -> None:
        """All of it was acknowledged when it ends. The producer keeps a user's events in order, and waits while its own buffer is full."""
        sent = [
            await self._producer.send(self.name, encode(event), key=event.user_id.encode("utf-8", "surrogatepass"))
            for event in events
        ]
        await asyncio.gather(*sent)


class KafkaReader:
    """One consumer; as in `Reader`."""

    def __init__(self, address: Address, group: str, session: float) -> None:
        self._address, self._loop = address, Loop()
        self._consumer: Any = None
        self._group, self._session = group, session
        try:
            self._loop.call(self._start(), STARTING + session)
        except Unreachable:
            self._loop.close()
            raise

    @property
    def owned(self) -> list[int]:
        """As in `Reader`."""
        return sorted(at.partition for at in self._consumer.assignment())

    def poll(self, wait: float) -> list[Piece]:
        """As in `Reader`."""
        found = self._loop.call(self._consumer.getmany(timeout_ms=int(1e3 * wait), max_records=PIECE), wait + TIMEOUT)
        return [
            Piece(
                at.partition, [Message(f"{one.offset}@{one.timestamp}", one.timestamp / 1e3, one.value or b"") for one in records]
            )
            for at, records in found.items()
            if records
        ]

    def ack(self, pieces: Sequence[Piece]) -> None:
        """As in `Reader`."""
        self._loop.call(self._commit(pieces), TIMEOUT)

    def lag(self) -> dict[int, int]:
        """As in `Reader`."""
        return self._loop.call(self._lag(), TIMEOUT)

    def close(self) -> None:
        """As in `Reader`."""
        with contextlib.suppress(Unreachable):
            self._loop.call(self._consumer.stop(), 5.0)
        self._loop.close()

    async def _start(self) -> None:
        session = int(1e3 * self._session)
        self._consumer = AIOKafkaConsumer(
            self._address.topic, bootstrap_servers=self._address.servers, group_id=self._group, enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=session, heartbeat_interval_ms=max(session // 5, 100),
            rebalance_timeout_ms=session, fetch_max_wait_ms=FETCH_MS, metadata_max_age_ms=METADATA_MS, **self._address.options,
        )  # fmt: skip
        await self._consumer.start()

    async def _commit(self, pieces: Sequence[Piece]) -> None:
        owned = self._consumer.assignment()
        offsets = {
            TopicPartition(self._address.topic, piece.partition): digits(piece.messages[-1].place, "") + 1 for piece in pieces
        }
        if mine := {at: offset for at, offset in offsets.items() if at in owned}:
            with contextlib.suppress(CommitFailedError, IllegalStateError):  # they are another's now, who reads them again
                await self._consumer.commit(mine)

    async def _lag(self) -> dict[int, int]:
        """By the end that the last fetch told of: asking for the end of a topic is not answered right by every compatible broker."""
        found = {}
        for at in self._consumer.assignment():
            done = await self._consumer.committed(at) or 0
            end = self._consumer.highwater(at)
            found[at.partition] = max((end if end is not None else done) - done, 0)
        return found


async def _rewound(address: Address, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Joins the group as its only consumer and commits: offsets from outside of a group are not taken by every compatible broker."""
    consumer = AIOKafkaConsumer(
        address.topic, bootstrap_servers=address.servers, group_id=group, enable_auto_commit=False, **address.options
    )
    await consumer.start()
    try:
        if not set(offsets) <= consumer.assignment():
            raise InputError(f"The group {group} can't be rewound while it has consumers. Stop all of them first.")
        await consumer.commit(dict(offsets))
    finally:
        await consumer.stop()
