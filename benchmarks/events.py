"""Acknowledged durable events a second over HTTP, and how soon every worker's answers know them; as ratios to the limits.

    python benchmarks/events.py WORKSPACE [--workers 2] [--connections 16] [--seconds 6]

A copy of the workspace is served on loopback; a closed loop of keep-alive connections in one process sends batches of 1, 10 and 100 events with
ids of their own, on the same cores. Afterwards the journal is opened and counted: each acknowledged event is there once. While events come in,
probes send one event and ask for its user until the answer knows it, on a connection to each worker.
Limits: 5,000 acknowledged events a second; 50 ms p99 from the acknowledgement to an answer that knows the event.
`--state redis://HOST:PORT/0` serves two copies that share a Redis server instead, events going to one and probes asking the other.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import selectors
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from serving import cpu_seconds, serving, users_of

RATE_LIMIT, SEEN_LIMIT = 5_000.0, 50.0
JSON = {"content-type": "application/json"}
HEAD = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Sender:
    """Connections that each send a batch, wait for the answer, and send the next."""

    def __init__(self, port: int, count: int, size: int, name: str, users: list[str], items: list[str]) -> None:
        self.size, self.name, self.users, self.items = size, name, users, items
        self.number, self.accepted, self.times = 0, 0, list[float]()
        self._random, self._selector = random.Random(size), selectors.DefaultSelector()
        for _ in range(count):
            made = socket.create_connection(("127.0.0.1", port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(made, selectors.EVENT_READ, [0.0, b""])

    def run(self, seconds: float) -> None:
        """Sends for a while; counts what was acknowledged."""
        end = time.perf_counter() + seconds
        keys = list(self._selector.get_map().values())
        for key in keys:
            self._send(key)
        under_way = len(keys)
        while under_way:
            for key, _ in self._selector.select(5):
                key.data[1] += key.fileobj.recv(65_536)  # type: ignore[union-attr]
                head, end_of_head, body = key.data[1].partition(b"\r\n\r\n")
                if not end_of_head or not body.endswith(b"}"):
                    continue  # the body comes in a packet of its own
                if not head.startswith(b"HTTP/1.1 202"):
                    raise SystemExit(f"answered {head[:60]!r} {body[:200]!r}")
                self.accepted += json.loads(body)["accepted"]
                self.times.append(1e3 * (time.perf_counter() - key.data[0]))
                if time.perf_counter() < end:
                    self._send(key)
                else:
                    under_way -= 1

    def _send(self, key: selectors.SelectorKey) -> None:
        rows = [
            f'{{"event_id":"{self.name}-{self.number + place}","user_id":"{self._random.choice(self.users)}",'
            f'"item_id":"{self._random.choice(self.items)}","event_type":"view"}}'
            for place in range(self.size)
        ]
        self.number += self.size
        body = f'{{"events":[{",".join(rows)}]}}'.encode()
        key.data[:] = [time.perf_counter(), b""]
        key.fileobj.sendall(HEAD % len(body) + body)  # type: ignore[union-attr]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> dict[str, object]:
    """A decoded answer."""
    connection.request(method, path, body, JSON)
    found: dict[str, object] = json.loads(connection.getresponse().read())
    return found


def probe(port: int, asked: int, items: list[str], end: float, times: list[float]) -> None:
    """Milliseconds from the acknowledgement of an event until an answer of each connection knows it; half of the probes ask twice."""
    there = [http.client.HTTPConnection("127.0.0.1", asked, timeout=10) for _ in range(4)]
    here, number = http.client.HTTPConnection("127.0.0.1", port, timeout=10), 0
    while time.perf_counter() < end:
        user, item = f"probe-{number}", items[number % len(items)]
        number += 1
        ask(
            here,
            "POST",
            "/v1/events",
            json.dumps({"events": [{"user_id": user, "item_id": item, "event_type": "rating", "value": 5}]}),
        )
        began = time.perf_counter()
        for connection in there:
            while True:
                history = ask(connection, "GET", f"/v1/users/{user}").get("history", [])
                if history and history[0]["item_id"] == item:  # type: ignore[index]
                    break
            times.append(1e3 * (time.perf_counter() - began))
        time.sleep(0.02)


def copied(workspace: Path, folder: Path) -> Path:
    """A workspace with the same bundles and settings, and a journal of its own."""
    folder.mkdir()
    (folder / "bundles").symlink_to((workspace / "bundles").resolve())
    shutil.copytree(workspace / "journal", folder / "journal")
    shutil.copy(workspace / "tastemaker.toml", folder)
    return folder


def stored(workspace: Path, names: list[str]) -> list[tuple[int, int]]:
    """Events of each name in the journal, and different ids among them."""
    with contextlib.closing(sqlite3.connect(workspace / "journal" / "live.sqlite")) as database:
        sought = "SELECT count(*), count(DISTINCT event_id) FROM event WHERE event_id GLOB ?"
        return [database.execute(sought, (f"{name}-*",)).fetchone() for name in names]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--seconds", type=float, default=6.0)
    options.add_argument("--state", default="", help="a Redis server that two copies share")
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace with a live bundle, such as the demo's: python benchmarks/events.py demo")
        return
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as open_:
        spaces = [copied(given.workspace, Path(place) / "here")]
        if given.state:
            spaces.append(copied(given.workspace, Path(place) / "there"))
        more = ["--state", given.state] if given.state else []
        served = [open_.enter_context(serving(space, "--workers", str(given.workers), *more)) for space in spaces]
        (port, pid), asked = served[0], served[-1][0]
        users = users_of(port)
        listed = http.client.HTTPConnection("127.0.0.1", port)
        items = [row["item_id"] for row in ask(listed, "GET", "/v1/items?limit=500")["items"]]  # type: ignore[union-attr, index, attr-defined]
        print(f"{given.workers} worker(s), {given.connections} connections, {given.seconds:.0f} s each, clients on the same cores")
        senders = []
        for size in (1, 10, 100):
            sender = Sender(port, given.connections, size, f"b{size}", users, items)
            senders.append(sender)
            before = cpu_seconds(pid)
            began = time.perf_counter()
            sender.run(given.seconds)
            rate = sender.accepted / (time.perf_counter() - began)
            cpu = 1e6 * (cpu_seconds(pid) - before) / max(sender.accepted, 1)
            p50, p99 = np.percentile(sender.times, [50, 99])
            print(f"batches of {size:<4} {rate:8.0f} events/s   {rate / RATE_LIMIT:5.2f} of {RATE_LIMIT:.0f}   batch p50 {p50:6.2f} ms p99 {p99:7.2f} ms   {cpu:5.0f} µs CPU of the service an event")  # fmt: skip
        for busy in (False, True):
            times: list[float] = []
            prober = threading.Thread(target=probe, args=(port, asked, items, time.perf_counter() + given.seconds, times))
            prober.start()
            if busy:
                senders.append(Sender(port, 2, 10, "busy", users, items))
                senders[-1].run(given.seconds)
            prober.join()
            p50, p99 = np.percentile(times, [50, 99])
            print(f"known by every worker, {'events coming in' if busy else 'else idle':17} p50 {p50:6.2f} ms p99 {p99:6.2f} ms   {p99 / SEEN_LIMIT:5.2f} of {SEEN_LIMIT:.0f}   ({len(times)} answers)")  # fmt: skip
        time.sleep(1.0 if given.state else 0.0)
        for space in spaces:
            for sender, (rows, ids) in zip(senders, stored(space, [sender.name for sender in senders]), strict=True):
                if rows != sender.accepted or ids != rows:
                    raise SystemExit(
                        f"{space.name}: {sender.accepted} events of {sender.name} acknowledged, {rows} stored, {ids} different"
                    )
        print(f"{sum(sender.accepted for sender in senders):,} acknowledged events: each is in {len(spaces)} journal(s), once")


if __name__ == "__main__":
    main()
