"""One contract for logs of events: another workspace's journal, streams of a real Redis server, a topic of a Kafka-compatible broker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from consumer_to_kill import Mortal

from live_kafka import kafka_broker
from live_redis import RedisServer, redis_server
from tastemaker.features.base import FeatureQuery
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError, JournalError
from tastemaker.schema.events import Event
from tastemaker.serving.wire import open_live
from tastemaker.streaming.intake import Intake, Taken
from tastemaker.streaming.link import Unreachable
from tastemaker.streaming.log import EventLog, Full, Message, Piece, Reader, open_log, share
from toy_bundle import write_features, write_workspace

MORTAL = Path(__file__).with_name("consumer_to_kill.py")


class Place(NamedTuple):
    """A log that nobody else uses."""

    kind: str
    url: str
    session: float


@pytest.fixture(params=["journal", "redis", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    name = uuid.uuid4().hex
    if request.param == "redis":
        return Place("redis", f"{request.getfixturevalue('redis').url}?stream=shop%26{name}", 0.5)
    if request.param == "kafka":
        return Place("kafka", request.getfixturevalue("kafka").url(name), 2.0)
    (tmp_path / "source").mkdir()
    return Place("journal", f"journal:{tmp_path / 'source'}", 0.5)


@pytest.fixture
def log(place: Place) -> Iterator[EventLog]:
    found = open_log(place.url)
    yield found
    found.close()


def told(number: int, users: int = 30) -> Event:
    """An event without a name of its own, as many senders write them: only its place tells it from its like."""
    return Event(user_id=f"u{number % users}", item_id=f"boots-{number % 7}", timestamp=1e9 + number)


def bodies(pieces: list[Piece]) -> list[tuple[int, str]]:
    return [(piece.partition, message.body.decode()) for piece in pieces for message in piece.messages]


def drained(readers: list[Reader], count: int, acknowledge: bool = True, seconds: float = 15.0) -> list[list[Piece]]:
    """What each reader was given until there are so many messages together."""
    found: list[list[Piece]] = [[] for _ in readers]
    end = time.monotonic() + seconds
    while sum(len(bodies(pieces)) for pieces in found) < count:
        assert time.monotonic() < end, [len(bodies(pieces)) for pieces in found]
        for pieces, reader in zip(found, readers, strict=True):
            new = reader.poll(0.05)
            pieces += new
            if acknowledge:
                reader.ack(new)
    return found


def test_all_is_read_once_by_a_group_each_users_events_in_order(place: Place, log: EventLog) -> None:
    log.send([told(number) for number in range(300)])
    reader = log.reader("one", place.session)
    [pieces] = drained([reader], 300, acknowledge=False)
    assert sorted(reader.owned) == list(range(log.partitions))
    assert sum(reader.lag().values()) == 300
    reader.ack(pieces)
    assert sum(reader.lag().values()) == 0
    assert reader.poll(0.1) == []
    of_user: dict[str, list[float]] = {}
    where: dict[str, set[int]] = {}
    for partition, body in bodies(pieces):
        event = _event(body)
        of_user.setdefault(event.user_id, []).append(event.timestamp or 0.0)
        where.setdefault(event.user_id, set()).add(partition)
    assert sum(len(times) for times in of_user.values()) == 300
    assert all(times == sorted(times) for times in of_user.values())
    assert all(len(partitions) == 1 for partitions in where.values())
    log.send([told(300)])
    assert len(bodies(drained([reader], 1)[0])) == 1
    reader.close()


def test_consumers_share_and_who_leaves_or_dies_is_replaced_and_nothing_is_lost(place: Place, log: EventLog) -> None:
    first = log.reader("two", place.session)
    log.send([told(number) for number in range(200)])
    drained([first], 200)
    second, going = None, threading.Event()
    keeper = threading.Thread(target=_polled, args=(first, going))  # a consumer is asked on and on while another comes
    keeper.start()
    try:
        second = log.reader("two", place.session)
        until(lambda: bool(second.poll(0.05) or second.owned))
    finally:
        going.set()
        keeper.join()
    until(lambda: _settled(log, [first, second]))
    log.send([told(number) for number in range(200)])
    parts = drained([first, second], 200, acknowledge=False)
    assert min(len(bodies(pieces)) for pieces in parts) > 0
    held = [{partition for partition, _ in bodies(pieces)} for pieces in parts]
    assert not held[0] & held[1], "a partition was read by two"
    first.ack(parts[0])
    second.close()  # without having acknowledged
    again = drained([first], len(bodies(parts[1])))[0]
    assert Counter(bodies(again)) == Counter(bodies(parts[1])), "what was not acknowledged comes again, and nothing else"
    first.close()


def _polled(reader: Reader, stop: threading.Event) -> None:
    while not stop.is_set():
        assert reader.poll(0.02) == []


def _settled(log: EventLog, readers: list[Reader]) -> bool:
    for reader in readers:
        assert reader.poll(0.02) == []
    owned = [set(reader.owned) for reader in readers]
    return all(owned) and not owned[0] & owned[1] and len(owned[0] | owned[1]) == log.partitions


def test_a_group_is_rewound_and_a_new_one_begins_at_the_beginning(place: Place, log: EventLog, tmp_path: Path) -> None:
    log.send([told(number) for number in range(120)])
    journal = tmp_path / "journal"
    assert taken(place, "g", journal, 120).accepted == 120
    log.rewind("g")
    again = taken(place, "g", journal, 120)
    assert (again.accepted, again.duplicates) == (0, 120), "what the journal has is not taken twice"
    other = log.reader("h", place.session)
    [pieces] = drained([other], 120)
    other.close()
    whole: dict[int, list[Message]] = {}
    for piece in pieces:
        whole.setdefault(piece.partition, []).extend(piece.messages)
    part, messages = max(whole.items(), key=lambda one: len(one[1]))  # of any other there may be too few
    log.rewind("h", {part: messages[4].place})
    third = log.reader("h", place.session)
    left = messages[5:] if place.kind != "kafka" else messages[4:]  # an offset of Kafka's names the next message to read
    assert [m.body for piece in drained([third], len(left))[0] for m in piece.messages] == [m.body for m in left]
    third.close()
    with pytest.raises(InputError, match="no place"):
        log.rewind("h", {0: "yesterday"})


@pytest.mark.parametrize(
    ("place", "guarded"), [("journal", True), ("redis", True), ("redis", False), ("kafka", True)], indirect=["place"]
)
def test_a_consumer_that_is_killed_beside_another_loses_and_doubles_nothing(
    place: Place, log: EventLog, tmp_path: Path, guarded: bool
) -> None:
    """The journal's count and the counters folded from it; without the names of events the same kill is seen to double."""
    write_workspace(tmp_path / "w", besides=write_features)
    journal, sent = tmp_path / "w" / "journal", 3_000
    own = Journal.open(journal)
    command = [
        sys.executable,
        str(MORTAL),
        str(journal),
        place.url,
        "g",
        str(place.session),
        "8",
        *([] if guarded else ["unguarded"]),
    ]
    with subprocess.Popen(command, env=os.environ) as dies:
        until(lambda: dies.poll() is None and _trickled(log, own), 20)  # it has begun
        other = Mortal(journal, place.url, "g", place.session, -1, guarded)
        lives = threading.Thread(target=other.run, kwargs={"once": True})
        lives.start()
        for first in range(100, sent, 100):
            log.send([told(number) for number in range(first, first + 100)])
            time.sleep(0.02)
        assert dies.wait(20) == -9
    assert own.position() > 0
    lives.join(60)
    assert not lives.is_alive()
    if not guarded:
        assert own.position() > sent, "the fault was not seen"
        own.close()
        return
    assert own.position() == sent
    times = own.read()["timestamp"].to_list()
    assert sorted(times) == [1e9 + number for number in range(sent)]
    live = open_live(tmp_path / "w" / "bundles", own).state.features
    assert live is not None
    column, some = live.features.names.index("item_events"), [f"boots-{number}" for number in range(7)]
    other = Journal.open(tmp_path / "other")
    other.append([told(number) for number in range(sent)])  # the same events, sent once
    once = open_live(tmp_path / "w" / "bundles", other).state.features
    assert once is not None
    counted, expected = (one.features.gives(one._state, FeatureQuery("u0", some, 2e9))[:, column] for one in (live, once))
    assert expected.sum() > 0
    np.testing.assert_allclose(counted, expected, rtol=1e-6)
    own.close()
    other.close()


@pytest.mark.parametrize("kind", ["redis", "kafka"])
def test_a_log_that_was_away_is_read_on_by_the_same_consumer(tmp_path: Path, kind: str) -> None:
    with (redis_server if kind == "redis" else kafka_broker)(tmp_path / "server") as server:
        url = server.url if isinstance(server, RedisServer) else server.url("events")
        log, own = open_log(url), Journal.open(tmp_path / "journal")
        log.send([told(number) for number in range(10)])
        failures: list[str] = []
        intake = Intake(
            Journal.open(tmp_path / "journal"), open_log(url), "g", 2.0, lambda turn: failures.append(turn.error)
        ).start()
        until(lambda: own.position() == 10)
        server.kill()
        if kind == "redis":
            until(lambda: any(failures))
        server.start()
        named = [
            msgspec.structs.replace(told(number), event_id=f"e{number}") for number in range(10, 20)
        ]  # an attempt may have arrived
        until(lambda: _sent(log, named))
        until(lambda: own.position() >= 20)
        intake.close()
        log.close()
        found = own.read().select("user_id", "item_id").rows()
        own.close()
    assert sorted(found) == sorted((event.user_id, event.item_id) for event in map(told, range(20))), "each once"


def _sent(log: EventLog, events: list[Event]) -> bool:
    try:
        log.send(events)
    except Unreachable:
        return False
    return True


@pytest.mark.parametrize("place", ["journal", "redis"], indirect=True)
def test_who_comes_waits_for_a_partition_until_its_reader_has_let_go(place: Place, log: EventLog) -> None:
    first, second = log.reader("g", 60.0), log.reader("g", 60.0)
    first.poll(0.0)
    second.poll(0.0)
    assert len(first.owned) == log.partitions
    assert second.owned == []
    first.close()
    second.close()


@pytest.mark.parametrize("place", ["journal", "redis"], indirect=True)
def test_what_a_disk_refuses_is_held_and_comes_to_another_if_its_reader_ends(
    place: Place, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.send([told(number) for number in range(50)])
    full = Journal.open(tmp_path / "full")
    monkeypatch.setattr(full, "append", _refused)
    intake = Intake(full, open_log(place.url), "g", place.session)
    for _ in range(3):
        with pytest.raises(JournalError):
            intake.turn(0.2)
    intake.close()
    assert taken(place, "g", tmp_path / "other", 50).accepted == 50


def _refused(events: list[Event]) -> None:
    raise JournalError("the disk is full")


@pytest.mark.parametrize("place", ["journal", "redis"], indirect=True)
def test_a_writer_is_refused_where_readers_are_too_far_behind_and_nothing_is_lost(place: Place) -> None:
    """A topic of Kafka is as long as its retention says and never refuses for its readers' sake."""
    log = limited(place, 100)
    reader = log.reader("slow", place.session)
    assert reader.poll(0.0) == []
    sent, asked = list[Event](), [[told(number, 1) for number in range(first, first + 40)] for first in range(0, 4_000, 40)]
    for batch in asked:
        try:
            log.send(batch)
        except Full:
            break
        sent += batch
    assert 0 < len(sent) < 4_000
    [pieces] = drained([reader], len(sent))
    assert [_event(body).timestamp for _, body in bodies(pieces)] == [event.timestamp for event in sent], (
        "all or nothing of a batch"
    )
    log.send(asked[len(sent) // 40])  # the same again, as it was told
    assert len(bodies(drained([reader], 40)[0])) == 40
    reader.close()
    log.close()


def limited(place: Place, limit: int) -> EventLog:
    if place.kind == "redis":
        return open_log(f"{place.url}&limit={limit}")
    from tastemaker.streaming.journal_log import JournalLog

    return JournalLog(place.url.partition(":")[2], limit)


def test_partitions_are_shared_fairly_and_a_user_stays_in_one() -> None:
    for members in range(1, 12):
        names = [f"m{number}" for number in range(members)]
        parts = [share(names, name, 8) for name in names]
        assert sorted(part for mine in parts for part in mine) == list(range(8))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _trickled(log: EventLog, own: Journal) -> bool:
    """Sends the first events and waits until some are stored."""
    log.send([told(number) for number in range(100)])
    until(lambda: own.position() > 0, 20)
    return True


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def taken(place: Place, group: str, journal: Path, count: int) -> Taken:
    """What a consumer takes until it has seen so many messages and acknowledged all."""
    intake = Intake(Journal.open(journal), open_log(place.url), group, place.session)
    found, end = Taken(), time.monotonic() + 15
    while found.accepted + found.duplicates + found.rejected < count:
        assert time.monotonic() < end, found
        found += intake.turn(0.05)
    intake.close()
    return found


def _event(body: str) -> Event:
    from tastemaker.journal.incoming import event_from

    return event_from(body.encode(), 0.0)
