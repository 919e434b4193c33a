"""The one place that speaks to Kafka: a client in a thread of its own, and the link between machines over one topic of one partition.

aiokafka is asynchronous and a relay is a thread: calls are handed over and waited for, with a time limit. Every machine reads the whole topic from a
little before its end and keeps the newest messages of each stream; small tables and left messages are rows of the same topic, the newest counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import xxhash
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from tastemaker.schema.errors import InputError
from tastemaker.streaming.link import Entry, Unreachable

TIMEOUT = 1.0
"""Seconds that a call may take: no request waits for it, only the relay's thread."""
STARTING = 5.0
"""Seconds that a connection may take to come about."""
PAUSE = 0.25
"""Seconds until a broken connection is tried again."""
WINDOW, KEPT = 5_000, 2_000
"""Messages before the end of the topic from which a machine begins to read, and messages of a stream that it keeps."""
COPIES = 3
"""Of a topic that is made here, where there are so many brokers."""
FETCH_MS = 10
"""Milliseconds that the broker waits for new messages."""
SECURITY = ("security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
TOPIC = "tastemaker-state"
Value = TypeVar("Value")
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # whatever goes wrong is told by whoever called


class Address(NamedTuple):
    """A Kafka cluster and a topic; `options` are arguments of aiokafka's clients."""

    servers: str
    topic: str
    options: dict[str, Any]
    partitions: int

    @classmethod
    def read(cls, url: str, topic: str = TOPIC, partitions: int = 1) -> Address:
        """Of `kafka://HOST:PORT[,HOST:PORT]/TOPIC?partitions=8&security_protocol=SASL_SSL&…`.

        Raises:
            InputError: it can't be read.
        """
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        wrong = sorted(set(given) - {*SECURITY, "partitions"})
        if parts.scheme != "kafka" or not parts.netloc or wrong or not given.get("partitions", "1").isdigit():
            raise InputError(
                f"{_plain(url)!r} is no address of a Kafka cluster{f' ({wrong[0]}?)' if wrong else ''}. Expected kafka://HOST:PORT/TOPIC, "
                f"several hosts with commas; after a ? partitions, {', '.join(SECURITY)}."
            )
        options: dict[str, Any] = {name: unquote(given[name]) for name in SECURITY if name in given}
        if "SSL" in options.get("security_protocol", ""):
            from aiokafka.helpers import create_ssl_context

            options["ssl_context"] = create_ssl_context()
        many = int(given.get("partitions", partitions)) or 1
        return cls(parts.netloc, parts.path.strip("/") or topic, options, many)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Value], seconds: float = TIMEOUT) -> Value:
        """The result of a coroutine.

        Raises:
            Unreachable: it took longer, or failed.
        """
        future = asyncio.run_coroutine_threadsafe(_timed(work, seconds), self._loop)
        try:
            return future.result(seconds + 1.0)
        except (Unreachable, InputError):
            raise
        except Exception as error:  # whatever a broker does, it is the broker's fault
            future.cancel()
            raise Unreachable(f"{type(error).__name__}: {error}") from None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a coroutine that goes on beside."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Ends the thread, and what still goes on in it."""
        with contextlib.suppress(Unreachable):
            self.call(_cancel(), 1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1)


async def _timed(work: Coroutine[Any, Any, Value], seconds: float) -> Value:
    async with asyncio.timeout(seconds):
        return await work


async def _cancel() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def make_topic(address: Address) -> None:
    """Makes the topic where it is not there.

    Raises:
        Unreachable: the cluster does not let us.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=address.servers, request_timeout_ms=int(1e3 * STARTING), **address.options)
    await admin.start()
    try:
        copies = min(COPIES, len((await admin.describe_cluster())["brokers"]))
        answer = await admin.create_topics([NewTopic(address.topic, address.partitions, copies)])
        for _, code, *words in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise Unreachable(f"topic {address.topic}: {for_code(code).__name__} {words}")
    finally:
        await admin.close()


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A message of the topic: an entry of a stream or at a place, or a row of a table. `until`: epoch seconds after which it counts no more; 0: never."""

    kind: str
    name: str
    key: str = ""
    value: str | None = None
    entry: Entry | None = None
    until: float = 0.0


class KafkaLink:
    """Streams of messages between machines, over a topic of a Kafka cluster. Fails at once for a moment after it broke.

    Args:
        url: `kafka://HOST:PORT/TOPIC`.

    Raises:
        InputError: the address can't be read.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.read(url)
        self._loop: Loop | None = None
        self._producer: Any = None
        self._consumer: Any = None
        self._open_until, self._error = 0.0, ""
        self._news = threading.Condition()
        self._forget()

    def put(self, stream: str, entry: Entry) -> None:
        """Adds a message; readers leave out one whose number is not larger than all before."""
        self._send(Row("stream", stream, entry=entry))

    def last(self, stream: str) -> int:
        """Number of the newest message of a stream; 0 where there is none."""
        self._connected()
        with self._news:
            found = self._streams.get(stream)
            return found[-1].upto if found else 0

    def read(self, after: Mapping[str, int], wait: float) -> list[tuple[str, Entry]]:
        """New messages of several streams, by stream and number; waits some seconds for the first."""
        self._connected()
        with self._news:
            self._news.wait_for(lambda: self._failed or any(self._newer(*one) for one in after.items()), wait)
            if self._failed:
                raise self._broken()
            return [(stream, entry) for stream, number in after.items() for entry in self._newer(stream, number)[:50]]

    def names(self, table: str) -> dict[str, str]:
        """A table of small texts."""
        self._connected()
        with self._news:
            return dict(self._tables[table])

    def name(self, table: str, key: str, value: str) -> None:
        """Writes one row of a table of small texts; returns when it has been read again, so that what is known here is not old."""
        self._seen(self._send(Row("table", table, key, value)))

    def unname(self, table: str, key: str) -> None:
        """Removes a row of a table."""
        self._send(Row("table", table, key))

    def leave(self, place: str, entry: Entry, seconds: int) -> None:
        """Leaves a message at a place for somebody, for a while."""
        self._send(Row("place", place, entry=entry, until=time.time() + seconds))

    def fetch(self, place: str) -> Entry | None:
        """The message at a place."""
        self._connected()
        with self._news:
            found = self._places.get(place)
            return found.entry if found is not None and found.until > time.time() else None

    def close(self) -> None:
        """Lets go of the connection."""
        if self._loop is not None:
            loop, self._loop, self._stopped = self._loop, None, True
            with contextlib.suppress(Unreachable):
                loop.call(self._stop(), 2.0)
            loop.close()

    # ---- inside

    def _forget(self) -> None:
        self._streams: dict[str, deque[Entry]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._tables: dict[str, dict[str, str]] = defaultdict(dict)
        self._places: dict[str, Row] = {}
        self._failed, self._stopped, self._offset = False, False, -1

    def _newer(self, stream: str, number: int) -> list[Entry]:
        return [entry for entry in self._streams.get(stream, ()) if entry.upto > number]

    def _connected(self) -> Loop:
        if time.monotonic() < self._open_until:
            raise Unreachable(f"Kafka was asked a moment ago ({self._error})")
        if self._failed:
            raise self._broken()
        if self._loop is None:
            self._forget()
            loop = Loop()
            try:
                consumer = loop.call(self._start(), STARTING)
            except Unreachable as error:
                self._loop = loop
                raise self._broken(str(error)) from None
            self._loop = loop
            loop.begin(self._follow(consumer))
        return self._loop

    def _broken(self, words: str = "") -> Unreachable:
        self._error = words or self._error
        self.close()
        self._failed, self._open_until = False, time.monotonic() + PAUSE
        return Unreachable(self._error)

    async def _start(self) -> Any:
        await make_topic(self._address)
        servers, options = self._address.servers, self._address.options
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers, acks="all", linger_ms=0, request_timeout_ms=int(1e3 * TIMEOUT), **options
        )
        await self._producer.start()
        consumer = self._consumer = AIOKafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=FETCH_MS, **options
        )
        await consumer.start()
        at = TopicPartition(self._address.topic, 0)
        consumer.assign([at])
        first, end = (await consumer.beginning_offsets([at]))[at], (await consumer.end_offsets([at]))[at]
        consumer.seek(at, max(first, end - WINDOW))
        return consumer

    async def _stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in (self._consumer, self._producer) if one is not None), return_exceptions=True)
        self._consumer = self._producer = None

    async def _follow(self, consumer: Any) -> None:
        """Takes what comes, until the end."""
        try:
            while not self._stopped:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    with self._news:
                        for record in records:
                            self._take(record.value)
                            self._offset = record.offset
                        self._news.notify_all()
        except Exception as error:
            with self._news:
                self._failed, self._error = not self._stopped, f"{type(error).__name__}: {error}"
                self._news.notify_all()

    def _take(self, sealed: bytes) -> None:
        if xxhash.xxh3_64_digest(sealed[8:]) != sealed[:8]:
            return  # not what was sent: a gap, which is filled by asking the writer
        row = msgspec.msgpack.decode(sealed[8:], type=Row)
        if row.kind == "stream" and row.entry is not None:
            stream = self._streams[row.name]
            if not stream or row.entry.upto > stream[-1].upto:
                stream.append(row.entry)
        elif row.kind == "table" and row.value is not None:
            self._tables[row.name][row.key] = row.value
        elif row.kind == "table":
            self._tables[row.name].pop(row.key, None)
        else:
            self._places = {place: one for place, one in self._places.items() if one.until > time.time()} | {row.name: row}

    def _send(self, row: Row) -> int:
        """Durable when it returns; gives the offset."""
        loop, body = self._connected(), msgspec.msgpack.encode(row)
        sealed = xxhash.xxh3_64_digest(body) + body
        try:
            done = loop.call(self._producer.send_and_wait(self._address.topic, sealed, partition=0))
        except Unreachable as error:
            raise self._broken(str(error)) from None
        return int(done.offset)

    def _seen(self, offset: int) -> None:
        with self._news:
            known = self._news.wait_for(lambda: self._failed or self._offset >= offset, TIMEOUT)
        if self._failed or not known:
            raise self._broken("" if self._failed else "what was sent does not come back")


def _plain(url: str) -> str:
    """An address without what is secret in it."""
    return url.partition("?")[0].rpartition("@")[2] if "@" in url else url.partition("?")[0]
