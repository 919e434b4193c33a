"""A log of events in Redis: a stream for each partition, a consumer group on each, and leases that say whose a partition is.

Every partition has one consumer of the group, called `owner` whoever that is: who gets the lease first reads what the one before was given and has not
acknowledged (the group's pending entries), then what is new. A lease that ended while its holder was asleep can let two read the same for a moment;
what they store is stored once, as every event has a name.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis

from tastemaker.schema.errors import InputError
from tastemaker.schema.events import Event
from tastemaker.streaming._redis import RedisServer
from tastemaker.streaming.link import Unreachable
from tastemaker.streaming.log import LIMIT, PARTITIONS, PIECE, SESSION, START, Full, Message, Piece, by_partition, encode, share

TIMEOUT = 1.0
"""Seconds that a command may take: no request waits for it."""
STREAM = "tastemaker-events"
OWNER, FIELD, COUNTED = "owner", "event", 10_000
_ADD = """
local limit = tonumber(ARGV[1])
for place, key in ipairs(KEYS) do
  local room = limit - tonumber(ARGV[1 + place])
  if redis.call('XLEN', key) > room then
    local low = redis.call('EXISTS', key) == 1 and redis.call('XINFO', 'GROUPS', key) or {}
    local oldest = nil
    for _, group in ipairs(low) do
      local told = {}
      for at = 1, #group, 2 do told[group[at]] = group[at + 1] end
      local waits = redis.call('XPENDING', key, told['name'])
      local at = waits[1] > 0 and waits[2] or told['last-delivered-id']
      local ms, number = string.match(at, '(%d+)-(%d+)')
      ms, number = tonumber(ms), tonumber(number)
      if oldest == nil or ms < oldest[1] or (ms == oldest[1] and number < oldest[2]) then oldest = {ms, number, at} end
    end
    local kept = redis.call('XREVRANGE', key, '+', '-', 'COUNT', math.floor(limit / 2))
    if oldest ~= nil and #kept > 0 then
      local ms, number = string.match(kept[#kept][1], '(%d+)-(%d+)')
      ms, number = tonumber(ms), tonumber(number)
      local half = ms < oldest[1] or (ms == oldest[1] and number < oldest[2])
      redis.call('XTRIM', key, 'MINID', half and kept[#kept][1] or oldest[3])
    end
    if redis.call('XLEN', key) > room then return 0 end
  end
end
local at = 1 + #KEYS
for place, key in ipairs(KEYS) do
  for _ = 1, tonumber(ARGV[1 + place]) do
    at = at + 1
    redis.call('XADD', key, '*', 'event', ARGV[at])
  end
end
return 1
"""
"""Adds all or nothing. A partition without room first loses what every group has acknowledged, its newest half excepted."""
_MEMBERS = """
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
_HOLD = """
local held = redis.call('GET', KEYS[1])
if held == false or held == ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]); return held == false and 2 or 1 end
return 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_UNREAD = "return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])"


class RedisLog:
    """Streams `{NAME}:0`, `{NAME}:1`, … of a Redis server (6.2 or newer, or Valkey), an event as JSON in the field `event` of each entry.

    Args:
        url: `redis://HOST:PORT/0?stream=NAME&partitions=8&limit=100000`; `rediss` and `unix` as well. The number of partitions is agreed with the first use.

    Raises:
        InputError: the address can't be read.
    """

    def __init__(self, url: str, limit: int = LIMIT) -> None:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        self.name = given.pop("stream", STREAM)
        numbers = {name: given.pop(name, str(default)) for name, default in (("partitions", PARTITIONS), ("limit", limit))}
        if not all(text.isdigit() and int(text) for text in numbers.values()):
            raise InputError(f"{numbers} of the log {self.name} can't be read. Expected whole numbers above 0.")
        self._wanted, self.limit = int(numbers["partitions"]), int(numbers["limit"])
        self._url = urlunsplit(parts._replace(query=urlencode(given)))
        self.server = RedisServer(self._url, TIMEOUT)
        self._partitions = 0

    @property
    def partitions(self) -> int:
        """As in `EventLog`."""
        if not self._partitions:
            client, key = self.server.client, f"{{{self.name}}}:partitions"
            self.server.call(lambda: client.setnx(key, self._wanted))
            self._partitions = self.server.checked(lambda: int(self.server.call(lambda: client.get(key))))
        return self._partitions

    def key(self, partition: int) -> str:
        """A partition's stream."""
        return f"{{{self.name}}}:{partition}"

    def send(self, events: Sequence[Event]) -> None:
        """As in `EventLog`."""
        parts = by_partition(events, self.partitions)
        keys = [self.key(part) for part in parts]
        bodies = [encode(event) for rows in parts.values() for event in rows]
        words = [self.limit, *(len(rows) for rows in parts.values()), *bodies]
        if keys and not self.server.call(lambda: self.server.client.eval(_ADD, len(keys), *keys, *words)):
            raise Full(self.name, self.limit)

    def reader(self, group: str, session: float = SESSION) -> RedisReader:
        """As in `EventLog`."""
        own = urlencode({"stream": self.name, "partitions": self.partitions})
        return RedisReader(RedisLog(f"{self._url}{'&' if '?' in self._url else '?'}{own}"), group, session)

    def rewind(self, group: str, places: Mapping[int, str] | None = None) -> None:
        """As in `EventLog`."""
        wanted = dict.fromkeys(range(self.partitions), START) if places is None else places
        for part, place in wanted.items():
            if not all(number.isdigit() for number in place.split("-")) or part not in range(self.partitions):
                raise InputError(
                    f"{part}:{place[:40]} is no place in {self.name}. Expected PARTITION:MILLISECONDS-NUMBER, or 0 for the beginning."
                )
            make_group(self.server, self.key(part), group)
            self.server.call(partial(self.server.client.xgroup_setid, self.key(part), group, place))

    def close(self) -> None:
        """As in `EventLog`."""
        self.server.close()


class RedisReader:
    """One consumer; as in `Reader`."""

    def __init__(self, log: RedisLog, group: str, session: float) -> None:
        self._log, self._server, self._redis, self._group, self._session = log, log.server, log.server.client, group, session
        self._name, self._next_look = f"{os.getpid()}-{uuid.uuid4().hex[:8]}", 0.0
        self._next: dict[int, str] = {}

    @property
    def owned(self) -> list[int]:
        """As in `Reader`."""
        return sorted(self._next)

    def poll(self, wait: float) -> list[Piece]:
        """As in `Reader`."""
        if monotonic() >= self._next_look:
            self._look()
        if not self._next:
            sleep(min(wait, 0.05))
            return []
        streams, most = {self._log.key(part): at for part, at in self._next.items()}, max(PIECE // len(self._next), 1)
        try:
            found = self._server.call(
                lambda: self._redis.xreadgroup(self._group, OWNER, streams, most, max(int(1e3 * min(wait, TIMEOUT / 2)), 1))
            )
        except redis.ResponseError:  # the server has forgotten everything
            self._next_look, self._next = 0.0, {}
            return []
        except Unreachable:  # what was on its way is pending
            self._next = dict.fromkeys(self._next, START)
            raise
        pending = any(at != ">" for at in self._next.values())
        pieces = self._server.checked(lambda: self._pieces(found or []))
        return self.poll(wait) if pending and not pieces else pieces  # nothing was pending: what is new

    def ack(self, pieces: Sequence[Piece]) -> None:
        """As in `Reader`."""
        for piece in pieces:
            if piece.partition in self._next:
                places = [message.place for message in piece.messages]
                self._server.call(partial(self._redis.xack, self._log.key(piece.partition), self._group, *places))

    def lag(self) -> dict[int, int]:
        """As in `Reader`."""
        return {part: self._server.checked(partial(self._unacked, part)) for part in self._next}

    def close(self) -> None:
        """As in `Reader`."""
        with contextlib.suppress(Unreachable):  # leases end by themselves
            for part in self._next:
                self._release(part)
            self._server.call(lambda: self._redis.zrem(self._member_key, self._name))
        self._log.close()

    @property
    def _member_key(self) -> str:
        return f"{{{self._log.name}}}:members:{self._group}"

    def _look(self) -> None:
        """Who is there, and which partitions are this one's."""
        session = int(1e3 * self._session)
        members = self._server.call(lambda: self._redis.eval(_MEMBERS, 1, self._member_key, self._name, session))
        names = self._server.checked(lambda: [name.decode() for name in members])
        mine = share(names, self._name, self._log.partitions)
        for part in set(self._next) - mine:
            self._release(part)
        held: dict[int, str] = {}
        for part in mine:
            got = self._server.call(partial(self._redis.eval, _HOLD, 1, self._lease(part), self._name, session))
            if got == 2 or (got and part not in self._next):  # new, or lost for a while: first what is pending
                make_group(self._server, self._log.key(part), self._group)
                held[part] = START
            elif got:
                held[part] = self._next[part]
        self._next, self._next_look = held, monotonic() + self._session / 4

    def _lease(self, part: int) -> str:
        return f"{{{self._log.name}}}:lease:{self._group}:{part}"

    def _release(self, part: int) -> None:
        self._server.call(lambda: self._redis.eval(_RELEASE, 1, self._lease(part), self._name))

    def _pieces(self, found: Any) -> list[Piece]:
        pieces, begin = [], len(self._log.key(0)) - 1
        for key, rows in found:
            part = int(key[begin:])
            if self._next[part] != ">":  # pending ones are read once, then what is new
                self._next[part] = rows[-1][0].decode() if rows else ">"
            messages = [
                Message(place.decode(), int(place.split(b"-")[0]) / 1e3, fields.get(FIELD.encode(), b""))
                for place, fields in rows
                if fields is not None  # trimmed since
            ]
            if messages:
                pieces.append(Piece(part, messages))
        return pieces

    def _unacked(self, part: int) -> int:
        key = self._log.key(part)
        for row in self._server.call(lambda: self._redis.xinfo_groups(key)):
            if row["name"] == self._group.encode():
                unread = row.get("lag")
                if unread is None:  # before Redis 7, or after a rewind
                    last = row["last-delivered-id"]
                    unread = self._server.call(partial(self._redis.eval, _UNREAD, 1, key, last, COUNTED))
                return int(row["pending"]) + int(unread)
        return 0


def make_group(server: RedisServer, key: str, group: str) -> None:
    """Makes a group that begins with the first message, where there is none."""
    try:
        server.call(lambda: server.client.xgroup_create(key, group, START, mkstream=True))
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
