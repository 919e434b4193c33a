"""The one place that speaks to Redis: short timeouts, no second attempts, a breaker, and sealed messages.

redis-py repeats a command by itself when its connection breaks, and so does it twice where only the answer was lost; here every command is sent
once, and what is not known to have worked is looked up before it is done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import redis
import xxhash
from redis.backoff import NoBackoff
from redis.retry import Retry

from tastemaker.schema.errors import InputError
from tastemaker.streaming.link import Entry, Unreachable

TIMEOUT = 0.05
"""Seconds that a command may take."""
PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds until a broken link is tried again: the first time, and at most."""
KEPT = 2_000
"""Messages of a stream that are kept for those who have not read them yet."""
PASSED = ("equal or smaller", "NOGROUP", "BUSYGROUP")
"""Refusals that a caller knows what to do about."""
PREFIX = "tastemaker"
Value = TypeVar("Value")


class RedisServer:
    """A connection with short timeouts and a breaker: it fails at once while the breaker is open.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`. timeout: seconds that a command may take.

    Attributes:
        client: redis-py's, for commands inside `call`.

    Raises:
        InputError: the address can't be read.
    """

    def __init__(self, url: str, timeout: float) -> None:
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
        try:
            pool = redis.ConnectionPool.from_url(
                url, protocol=2, socket_timeout=timeout, socket_connect_timeout=timeout, max_connections=1, **options
            )
        except ValueError as error:
            raise InputError(
                f"--state {url!r} is no address of a Redis server ({error}). Expected redis://HOST:PORT/0 or kafka://HOST:PORT/TOPIC."
            ) from None
        self.client: Any = redis.Redis(connection_pool=pool, retry=Retry(NoBackoff(), 0))
        self._open_until, self._pause = 0.0, PAUSE

    def close(self) -> None:
        """Lets go of the connection."""
        self.client.close()

    def call(self, command: Callable[[], Any]) -> Any:
        """What a command gives.

        Raises:
            Unreachable: it failed, took too long, or the breaker is open. redis.ResponseError: see `PASSED`.
        """
        if time.monotonic() < self._open_until:
            raise Unreachable("the breaker is open")
        try:
            found = command()
        except redis.ResponseError as error:
            if any(words in str(error) for words in PASSED):
                raise
            raise self.broken(error) from None
        except Exception as error:  # also what a parser makes of garbage: whatever the server does, it is the server's fault
            raise self.broken(error) from None
        self._pause = PAUSE
        return found

    def checked(self, read: Callable[[], Value]) -> Value:
        """What is read from an answer.

        Raises:
            Unreachable: it is not what was asked for.
        """
        try:
            return read()
        except Exception as error:  # a server that answers something else than it was asked for
            raise self.broken(error) from None

    def broken(self, error: Exception) -> Unreachable:
        """Opens the breaker; gives what is to be raised."""
        self._open_until = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.client.connection_pool.disconnect()
        return Unreachable(f"{type(error).__name__}: {error}")


class RedisLink:
    """Streams of messages between machines, over a Redis server.

    Args:
        url: as of `RedisServer`.

    Raises:
        InputError: the address can't be read.
    """

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url, TIMEOUT)
        self._redis = self._server.client

    def put(self, stream: str, entry: Entry) -> None:
        """Adds a message, whose number is larger than all before; one with a number that is there already is left out."""
        body = msgspec.msgpack.encode(entry)
        fields = {b"b": xxhash.xxh3_64_digest(body) + body}
        try:
            self._server.call(lambda: self._redis.xadd(f"{PREFIX}:{stream}", fields, f"{entry.upto}-0", KEPT, approximate=True))
        except redis.ResponseError as error:
            if "equal or smaller" not in str(error):
                raise Unreachable(str(error)) from None

    def last(self, stream: str) -> int:
        """Number of the newest message of a stream; 0 where there is none."""
        found = self._server.call(lambda: self._redis.xrevrange(f"{PREFIX}:{stream}", count=1))
        return self._number(found[0][0]) if found else 0

    def read(self, after: Mapping[str, int], wait: float) -> list[tuple[str, Entry]]:
        """New messages of several streams, by stream and number; where there are none, it waits some seconds here and looks again.

        The server is not asked to wait: an idle one looks at its clock ten times a second (`hz`), so `BLOCK 10` took 100 ms, which is beyond the timeout.
        """
        streams = {f"{PREFIX}:{stream}": f"{number}-0" for stream, number in after.items()}
        found = self._server.call(lambda: self._redis.xread(streams, 50))
        if not found and wait:
            time.sleep(wait)
            found = self._server.call(lambda: self._redis.xread(streams, 50))
        begin = len(PREFIX) + 1
        return self._server.checked(
            lambda: [(name.decode()[begin:], self._entry(fields[b"b"])) for name, rows in found or [] for _, fields in rows]
        )

    def names(self, table: str) -> dict[str, str]:
        """A table of small texts."""
        found = self._server.call(lambda: self._redis.hgetall(f"{PREFIX}:{table}"))
        return self._server.checked(lambda: {key.decode(): value.decode() for key, value in found.items()})

    def name(self, table: str, key: str, value: str) -> None:
        """Writes one row of a table of small texts."""
        self._server.call(lambda: self._redis.hset(f"{PREFIX}:{table}", key, value))

    def unname(self, table: str, key: str) -> None:
        """Removes a row of a table."""
        self._server.call(lambda: self._redis.hdel(f"{PREFIX}:{table}", key))

    def leave(self, place: str, entry: Entry, seconds: int) -> None:
        """Leaves a message at a place for somebody, for a while."""
        body = msgspec.msgpack.encode(entry)
        self._server.call(lambda: self._redis.set(f"{PREFIX}:{place}", xxhash.xxh3_64_digest(body) + body, ex=seconds))

    def fetch(self, place: str) -> Entry | None:
        """The message at a place."""
        found = self._server.call(lambda: self._redis.get(f"{PREFIX}:{place}"))
        return None if found is None else self._server.checked(lambda: self._entry(found))

    def close(self) -> None:
        """Lets go of the connection."""
        self._server.close()

    def _number(self, text: Any) -> int:
        return int(self._server.checked(lambda: int(text.split(b"-")[0])))

    def _entry(self, sealed: bytes) -> Entry:
        if xxhash.xxh3_64_digest(sealed[8:]) != sealed[:8]:
            raise ValueError("a message is not what was sent")
        return msgspec.msgpack.decode(sealed[8:], type=Entry)
