"""One contract for machines that serve together: in one journal (the embedded store), or in journals of their own that a real Redis server joins."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from live_kafka import kafka_broker
from live_redis import FaultProxy, RedisServer, redis_server
from tastemaker.features.base import FeatureQuery
from tastemaker.journal.append import Journal
from tastemaker.journal.erase import erase
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item, User
from tastemaker.serving.wire import Live, open_live
from tastemaker.streaming.link import Link, Pulse, Unreachable
from tastemaker.streaming.relay import Relay, relay_of
from toy_bundle import write_features, write_workspace


class Machine:
    """A workspace's journal and what answers know."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self.journal = folder, Journal.open(folder / "journal")
        self.live: Live = open_live(folder / "bundles", self.journal)
        self.pulse = Pulse(folder / "journal" / "relay.pulse")
        self.relay: Relay | None = (
            relay_of(url, folder / "journal", self.pulse, lambda sent, received: None).start() if url else None
        )

    def knows(self, user: str) -> list[str]:
        self.live.poll()
        return [str(row["item_id"]) for row in self.live.state.recent(user, 100)]

    def counts(self, user: str, some: list[str]) -> np.ndarray:
        self.live.poll()
        assert self.live.state.features is not None
        told = self.live.state.features
        return told.features.gives(told._state, FeatureQuery(user, some, 2e9))

    def close(self) -> None:
        if self.relay is not None:
            self.relay.close()
        self.journal.close()


def until(holds: Callable[[], bool], seconds: float = 10.0) -> float:
    """Seconds until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it did not come true"
        time.sleep(0.002)
    return time.monotonic() - began


@contextmanager
def two(folder: Path, url: str | None) -> Iterator[tuple[Machine, Machine]]:
    write_workspace(folder / "a", besides=write_features)
    if url is None:
        made = Machine(folder / "a"), Machine(folder / "a")
    else:
        shutil.copytree(folder / "a", folder / "b")
        made = Machine(folder / "a", url), Machine(folder / "b", url)
    try:
        yield made
    finally:
        for machine in made:
            machine.close()


@pytest.fixture(params=["embedded", "redis", "kafka"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    url = None
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        emptied(server)
        url = server.url
    elif request.param == "kafka":
        url = request.getfixturevalue("kafka").url(uuid.uuid4().hex)
    with two(tmp_path, url) as made:
        yield made


def emptied(server: RedisServer) -> None:
    import redis as client

    client.Redis(port=server.port).flushall()


def said(number: int, user: str = "x", item: str = "coffee-1") -> Event:
    return Event(event_id=f"e{number}", user_id=user, item_id=item, timestamp=1e9 + number)


def test_what_one_acknowledges_the_other_answers_with_once_and_in_order(pair: tuple[Machine, Machine]) -> None:
    here, there = pair
    told = [f"{kind}-{number}" for number in range(20) for kind in ("boots", "coffee", "guitar")]
    for number, item in enumerate(told):
        here.journal.append([said(number, item=item)])
    until(lambda: len(there.knows("x")) == len(told))
    assert there.knows("x") == told[::-1]
    there.journal.append([said(0, item=told[0]), said(99, "y")])  # a client that tries again at another machine
    until(lambda: here.knows("y") == ["coffee-1"])
    assert here.knows("x") == there.knows("x") == told[::-1]
    for machine in pair:
        ids = machine.journal.read()["event_id"].to_list()
        assert sorted(ids) == sorted([f"e{number}" for number in range(len(told))] + ["e99"])


def test_counters_and_features_are_the_same_everywhere(pair: tuple[Machine, Machine]) -> None:
    here, there = pair
    for number in range(200):
        pair[number % 2].journal.append([said(number, f"u{number % 3}", f"boots-{number % 5}")])
    some = [f"boots-{number}" for number in range(6)]
    until(lambda: all(machine.journal.read().height == 200 for machine in pair))
    for user in ("u0", "u1", "nobody"):
        np.testing.assert_allclose(here.counts(user, some), there.counts(user, some), rtol=1e-6)
    names = here.live.state.features.features.names if here.live.state.features else []
    assert here.counts("u0", some)[:, names.index("item_events")].sum() > 0


def test_items_are_put_changed_and_deleted_everywhere_and_the_last_word_stays(pair: tuple[Machine, Machine]) -> None:
    here, there = pair
    here.journal.put_items([Item(item_id="new", title="hiking boots")])
    until(lambda: there.journal.item("new") is not None)
    there.live.poll()
    assert not there.live.state.barred[there.live.state.index_of["new"]]
    there.journal.put_items([Item(item_id="new", title="espresso machine")])
    until(lambda: (found := here.journal.item("new")) is not None and found.title == "espresso machine")
    here.journal.delete_items(["new"])
    until(lambda: there.journal.item("new") is None)
    for number in range(20):  # both write the same items at once
        for machine, word in zip(pair, ("one", "two"), strict=True):
            machine.journal.put_items([Item(item_id=f"both-{number}", title=word)])
    until(lambda: [here.journal.item(f"both-{n}") for n in range(20)] == [there.journal.item(f"both-{n}") for n in range(20)])
    time.sleep(0.1)
    marks = [machine.journal.marks() for machine in pair]
    time.sleep(0.2)
    assert marks == [machine.journal.marks() for machine in pair], "they answer each other for ever"


def test_users_and_edges_are_the_same_everywhere_and_the_last_word_stays(pair: tuple[Machine, Machine]) -> None:
    here, there = pair
    here.journal.put_users([User(user_id="x", extra={"country": "de"}), User(user_id="z", extra={"age": 7})])
    here.journal.put_edges(edges(("user:x", 1.0), ("user:z", 0.5)))
    until(lambda: there.journal.user("x") is not None and there.journal.edges().height == 2)
    assert there.live._profile_of is not None
    assert there.live._profile_of("x") == {"country": "de"}, "answers know a stranger by what the other machine was told"
    there.journal.put_users([User(user_id="x", extra={"country": "fr"})])
    there.journal.put_edges(edges(("user:x", 0.0), ("user:z", 0.25)))  # one taken away, one with another weight
    erase(there.journal, "z")
    until(lambda: here.journal.user("z") is None and here.journal.user("x") == User(user_id="x", extra={"country": "fr"}))
    until(lambda: here.journal.edges().rows() == there.journal.edges().rows() == [])
    for number in range(20):  # both write the same users and edges at once
        for machine, word in zip(pair, (1.0, 2.0), strict=True):
            machine.journal.put_users([User(user_id=f"both-{number}", extra={"word": word})])
            machine.journal.put_edges(edges((f"user:both-{number}", word)))
    until(lambda: here.journal.users().rows() == there.journal.users().rows() and same_edges(here, there))
    assert here.journal.users().height == 21
    assert here.journal.edges().height == 20
    time.sleep(0.1)
    marks = [machine.journal.peers().marks() for machine in pair]
    time.sleep(0.2)
    assert marks == [machine.journal.peers().marks() for machine in pair], "they answer each other for ever"


def test_a_copy_does_not_tell_again_what_it_had_when_it_was_copied(tmp_path: Path) -> None:
    first = Journal.open(tmp_path / "a")
    first.peers()
    first.put_users([User(user_id="x", extra={"word": "old"})])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = Journal.open(tmp_path / "b")
    here, there = first.peers(), second.peers()
    assert there.own_facts(0, 9)[1] == [], "a copy would overwrite what its original learned since"
    first.put_users([User(user_id="x", extra={"word": "new"})])
    upto, facts = here.own_facts(0, 9)
    assert there.receive_facts(here.name, upto, facts) == 1
    assert second.user("x") == User(user_id="x", extra={"word": "new"})
    assert there.receive_facts(here.name, upto, facts) == 0
    assert there.own_facts(0, 9)[1] == []
    first.close()
    second.close()


def test_what_was_written_here_a_moment_ago_is_later_than_what_comes(tmp_path: Path) -> None:
    first, second = Journal.open(tmp_path / "a"), Journal.open(tmp_path / "b")
    here, there = first.peers(), second.peers()
    second.put_users([User(user_id="x", extra={"word": "early"})])
    upto, early = there.own_facts(0, 9)
    first.put_users([User(user_id="x", extra={"word": "late"})])  # not told to anybody yet
    assert here.receive_facts(there.name, upto, early) == 0
    assert there.receive_facts(here.name, *here.own_facts(0, 9)) == 1
    for journal in (first, second):
        assert journal.user("x") == User(user_id="x", extra={"word": "late"})
        journal.close()


def edges(*rows: tuple[str, float]) -> pl.DataFrame:
    heads, weights = [head for head, _ in rows], [weight for _, weight in rows]
    return pl.DataFrame({"head": heads, "relation": ["knows"] * len(rows), "tail": ["user:y"] * len(rows), "weight": weights})


def same_edges(here: Machine, there: Machine) -> bool:
    return sorted(here.journal.edges().rows()) == sorted(there.journal.edges().rows())


def test_a_restart_knows_the_same_and_a_bundle_is_told_what_it_does_not_know(tmp_path: Path, redis: RedisServer) -> None:
    emptied(redis)
    with two(tmp_path, redis.url) as (here, there):
        for number in range(40):
            (here, there)[number % 2].journal.append([said(number, item=f"boots-{number % 20}")])
        until(lambda: all(machine.journal.position() == 40 for machine in (here, there)))
        again = open_live(there.folder / "bundles", there.journal)
        here.live.poll()
        assert len(again.state.history("x")) == 40
        assert sorted(again.state.history("x").tolist()) == sorted(here.live.state.history("x").tolist())
        clock = here.journal.clock(30)  # of 40, so at least ten are the other's
        position, change, known = there.journal.since(30, 0, clock)
        learned = set(here.journal.read(upto=30)["event_id"])
        later = [row.event.event_id for row in there.journal.tail(position) if row.seq not in known]
        assert sorted([*learned, *later]) == sorted(f"e{number}" for number in range(40)), "each event is known or told, once"
        assert change == 0
        assert here.journal.since(30, 7, clock) == (30, 7, set())


@pytest.mark.parametrize("fault", [pytest.param("killed", marks=pytest.mark.long), "emptied"])
def test_a_redis_that_forgets_is_filled_from_the_journals(tmp_path: Path, fault: str) -> None:
    with redis_server(tmp_path / "redis") as server, two(tmp_path, server.url) as (here, there):
        here.journal.append([said(number) for number in range(100)])
        until(lambda: there.journal.position() == 100)
        if fault == "killed":
            server.kill()
            until(lambda: not here.pulse.alive, 3)
        else:
            emptied(server)
        here.journal.append([said(number) for number in range(100, 200)])
        there.journal.append([said(number) for number in range(200, 300)])
        if fault == "killed":
            server.start()
        until(lambda: here.journal.position() == there.journal.position() == 300)
        for machine in (here, there):
            assert machine.journal.read()["event_id"].n_unique() == 300
        until(lambda: here.pulse.alive and there.pulse.alive)


def test_a_kafka_that_is_killed_and_forgets_is_filled_from_the_journals(tmp_path: Path) -> None:
    with kafka_broker() as broker, two(tmp_path, broker.url("state")) as (here, there):
        here.journal.append([said(number) for number in range(100)])
        until(lambda: there.journal.position() == 100)
        broker.kill()
        until(lambda: not here.pulse.alive and not there.pulse.alive, 5)
        here.journal.append([said(number) for number in range(100, 200)])
        there.journal.append([said(number) for number in range(200, 300)])
        assert here.knows("x"), "answers go on"
        broker.start()
        until(lambda: here.journal.position() == there.journal.position() == 300)
        for machine in (here, there):
            assert machine.journal.read()["event_id"].n_unique() == 300
        until(lambda: here.pulse.alive and there.pulse.alive)


def test_what_an_emptied_redis_had_and_nobody_has_read_is_sent_again(tmp_path: Path, redis: RedisServer) -> None:
    emptied(redis)
    with two(tmp_path, redis.url) as (here, there):
        assert there.relay is not None
        until(lambda: there.pulse.alive)
        there.relay.close()
        here.journal.append([said(number) for number in range(10)])
        until(lambda: here.journal.peers().name in _read_by(redis))
        emptied(redis)
        there.relay = relay_of(redis.url, there.folder / "journal", there.pulse, lambda sent, received: None).start()
        until(lambda: there.journal.position() == 10)


def _read_by(server: RedisServer) -> str:
    import redis as client

    return str(client.Redis(port=server.port).keys("tastemaker:log:*"))


def test_a_machine_that_was_away_gets_what_the_link_has_long_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.streaming._redis.KEPT", 3)
    monkeypatch.setattr("tastemaker.streaming.relay.WINDOW", 10)
    monkeypatch.setattr("tastemaker.streaming.relay.BATCH", 20)
    with redis_server(tmp_path / "redis") as server:
        write_workspace(tmp_path / "a", besides=write_features)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        here = Machine(tmp_path / "a", server.url)
        for number in range(150):
            here.journal.append([said(number)])
        until(lambda: here.pulse.alive)
        server.kill()  # and its memory with it
        server.start()
        there = Machine(tmp_path / "b", server.url)
        until(lambda: there.journal.position() == 150, 20)
        assert [row.event.event_id for row in there.journal.tail(0)] == [f"e{number}" for number in range(150)]
        here.close()
        there.close()


def test_an_idle_server_is_not_taken_for_a_dead_one(redis: RedisServer) -> None:
    """Redis ends a blocking command at the tick of its own clock, ten a second as a rule: waiting for it would be longer than the timeout."""
    import redis as client

    from tastemaker.streaming._redis import RedisLink

    server = client.Redis(port=redis.port)
    server.config_set("hz", 1)
    heard = 0
    for _ in range(6):
        link = RedisLink(redis.url)
        try:
            assert link.read({"log:nobody": 0}, 0.01) == []
            heard += 1
        except Unreachable:  # a busy machine may be late now and then
            continue
        finally:
            link.close()
    server.config_set("hz", 10)
    assert heard >= 4


def test_a_call_to_a_black_hole_ends_in_time_and_the_breaker_spares_the_next(redis: RedisServer) -> None:
    from tastemaker.streaming._redis import RedisLink

    proxy = FaultProxy(redis.port)
    link = RedisLink(proxy.url)
    assert link.last("log:nobody") == 0
    proxy.mode = "hang"
    began = time.monotonic()
    with pytest.raises(Unreachable, match="Timeout"):
        link.last("log:nobody")
    assert time.monotonic() - began < 10, "it waited longer than its timeout, or asked again"
    with pytest.raises(Unreachable, match="breaker is open"):
        link.last("log:nobody")
    proxy.mode = "pass"
    until(lambda: _works(link), 3)
    link.close()
    proxy.close()


def _works(link: Link) -> bool:
    try:
        return link.last("log:nobody") == 0
    except Unreachable:
        return False


def test_an_event_that_was_imported_here_is_not_stored_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal")
    with journal.importing() as staging:
        part = staging / "part.parquet"
        pl.DataFrame({"event_id": ["e5"], "user_id": ["x"], "item_id": ["coffee-1"], "timestamp": [1e9]}).write_parquet(part)
        journal.commit_import("events", [("sha", "file")], [part], [1])
    journal.append([said(6)])
    peers = journal.peers()
    assert peers.receive_events("other", 9, [(7, said(5)), (8, said(6)), (9, said(7))]) == 1
    assert peers.heard("other") == (9, 0, 0)
    assert sorted(journal.read()["event_id"]) == ["e5", "e6", "e7"]
    journal.append([said(8)])
    assert [event.event_id for _, event in peers.own_events(0, 100)[1]] == ["e8"], (
        "what came from a peer, or before all, is not told"
    )
    journal.close()


@pytest.mark.parametrize(
    "mode", ["hang", "garbage", "lie", *(pytest.param(mode, marks=pytest.mark.long) for mode in ("drop", "slow", "flip"))]
)
def test_a_bad_link_is_noticed_and_nothing_is_invented_or_lost(tmp_path: Path, redis: RedisServer, mode: str) -> None:
    emptied(redis)
    proxy = FaultProxy(redis.port)
    write_workspace(tmp_path / "a", besides=write_features)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    here, there = Machine(tmp_path / "a", proxy.url), Machine(tmp_path / "b", redis.url)
    try:
        here.journal.append([said(0)])
        until(lambda: there.journal.position() == 1)
        proxy.mode = mode
        for number in range(1, 60):
            here.journal.append([said(number)])
            there.journal.append([said(1000 + number, "y")])
        if mode not in ("lie", "flip"):
            until(lambda: not here.pulse.alive, 15)
        assert here.knows("x"), "answers go on"
        until(lambda: there.pulse.alive, 15)  # the machine with a good link; on a busy one it may lose it for a moment
        time.sleep(0.3)
        assert set(here.journal.read()["event_id"]) <= {f"e{n}" for n in range(60)} | {f"e{n}" for n in range(1001, 1060)}
        proxy.mode = "pass"
        until(lambda: here.journal.position() == there.journal.position() == 119 and here.pulse.alive, 15)
        for machine in (here, there):
            assert machine.journal.read()["event_id"].n_unique() == 119
    finally:
        here.close()
        there.close()
        proxy.close()
