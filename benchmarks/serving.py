"""Closed loop of C clients against a served workspace on loopback: requests/s, p50, p99, CPU a request, as ratios to the limits.

    python benchmarks/serving.py WORKSPACE [--clients 8] [--workers 1] [--seconds 8]
    python benchmarks/serving.py WORKSPACE --doors [--rounds 8]
    python benchmarks/serving.py WORKSPACE --deadlines [--rounds 8]

Limits (2 cores shared with the clients): 1,500 requests/s a core, p99 10 ms, one client's p50 1 ms.
`--doors` asks an open service and one with keys, a rate limit and an access log in turn: what these cost of a request; limit 3 %.
`--deadlines` asks one without deadlines and without a ladder, and one with both; limit 2 %.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RATE_LIMIT, P99_LIMIT, P50_LIMIT, DOORS_LIMIT, DEADLINES_LIMIT = 1_500.0, 10.0, 1.0, 0.03, 0.02


def clients(port: int, users: list[str], count: int, seconds: float, key: str = "") -> list[float]:
    """Milliseconds of every answered request."""
    times: list[list[float]] = [[] for _ in range(count)]
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})

    def loop(me: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number, end = me, time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            body = json.dumps({"user_id": users[number % len(users)], "k": 10})
            connection.request("POST", "/v1/recommend", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"status {answer.status}")
            times[me].append(1e3 * (time.perf_counter() - began))
            number += count

    threads = [threading.Thread(target=loop, args=(me,)) for me in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for some in times for one in some]


def cpu_seconds(parent: int) -> float:
    """CPU seconds of a process' children so far, to the nanosecond where the kernel tells them."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) != parent:
                    continue
                exact = [int((task / "schedstat").read_text().split()[0]) for task in (folder / "task").iterdir()]
            except (OSError, IndexError):
                continue
            total += sum(exact) / 1e9 if sum(exact) else (int(fields[11]) + int(fields[12])) / tick
    return total


@contextmanager
def serving(workspace: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """A served workspace: port and process."""
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--port", "0", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+)\"", process.stdout.readline())
        assert found, "the server did not start"
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.wait(30)


def users_of(port: int, key: str = "") -> list[str]:
    """Users with histories."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/v1/users?limit=200", headers={"x-api-key": key} if key else {})
    return [user["user_id"] for user in json.loads(connection.getresponse().read())["users"]]


def in_turns(
    services: list[tuple[int, int, str]], users: list[str], rounds: int, count: int, seconds: float
) -> tuple[list[list[float]], list[list[float]]]:
    """CPU ms a request and p50 ms of two services, asked in turn, by round; each is a port, a process and a key."""
    cost: list[list[float]] = [[], []]
    half: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for which, (port, process, key) in enumerate(services):
            before = cpu_seconds(process)
            times = clients(port, users, count, seconds / 4, key)
            if number:  # the first round warms
                cost[which].append(1e3 * (cpu_seconds(process) - before) / len(times))
                half[which].append(float(np.median(times)))
    return cost, half


def told(first: str, second: str, cost: list[list[float]], half: list[list[float]], limit: float) -> None:
    """Prints what the second costs more than the first, as a share of the limit."""
    for name, (before, after) in (("CPU ms a request", cost), ("p50 ms", half)):
        ratios = np.array(after) / np.array(before)
        more = float(np.median(ratios)) - 1
        print(
            f"{name:18} {first} {np.median(before):.3f}, {second} {np.median(after):.3f}: {100 * more:+.1f} %"
            f" (rounds {100 * ratios.min() - 100:+.1f} to {100 * ratios.max() - 100:+.1f}), {more / limit:.2f} of the limit"
        )


def deadlines(workspace: Path, rounds: int, count: int, seconds: float) -> None:
    """Prints what deadlines and the ladder cost of a request when all is well."""
    never = ["--set", "serving.deadline_ms=0", "--set", "serving.busy_ms=0"]
    with serving(workspace, *never) as (port, pid), serving(workspace) as (port2, pid2):
        users = users_of(port)
        cost, half = in_turns([(port, pid, ""), (port2, pid2, "")], users, rounds, count, seconds)
    told("without", "with", cost, half, DEADLINES_LIMIT)


def doors(workspace: Path, rounds: int, count: int, seconds: float) -> None:
    """Prints what keys, rates and the log cost of a request."""
    from tastemaker.serving.auth import KeyFile

    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder)
        for name in ("bundles", "journal"):
            (closed / name).symlink_to((workspace / name).resolve())
        shutil.copy(workspace / "tastemaker.toml", closed)
        _, key = KeyFile(closed / "keys.json").add("benchmark", ["admin"], rate=1e6)
        with serving(workspace) as (port, pid), serving(closed, "--set", "serving.access_log=runs/access.jsonl") as (port2, pid2):
            users = users_of(port)
            assert users_of(port2, key) == users
            cost, half = in_turns([(port, pid, ""), (port2, pid2, key)], users, rounds, count, seconds)
            lines = len((closed / "runs" / "access.jsonl").read_text().splitlines())
    told("open", "closed", cost, half, DOORS_LIMIT)
    print(f"{lines:,} lines in the access log")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--doors", action="store_true", help="what keys, rates and the log cost")
    options.add_argument("--deadlines", action="store_true", help="what deadlines and the ladder cost")
    options.add_argument("--rounds", type=int, default=8)
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace with a live bundle, such as the demo's: python benchmarks/serving.py demo")
        return
    if given.doors:
        doors(given.workspace, given.rounds, given.clients, given.seconds)
        return
    if given.deadlines:
        deadlines(given.workspace, given.rounds, given.clients, given.seconds)
        return
    with serving(given.workspace, "--workers", str(given.workers)) as (port, pid):
        users = users_of(port)
        clients(port, users, 1, 1.0)
        alone = clients(port, users, 1, given.seconds / 2)
        before = cpu_seconds(pid)
        times = clients(port, users, given.clients, given.seconds)
        cpu = 1e3 * (cpu_seconds(pid) - before) / len(times)
        rate = len(times) / given.seconds / given.workers
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{given.workers} worker(s), {given.clients} clients, {given.seconds:.0f} s: {len(times):,} answers, all 200")
        print(f"requests/s a worker {rate:8.0f}    {rate / RATE_LIMIT:5.2f} of {RATE_LIMIT:.0f}")
        print(f"p50 ms              {p50:8.2f}")
        print(f"p99 ms              {p99:8.2f}    {p99 / P99_LIMIT:5.2f} of {P99_LIMIT:.0f}")
        print(f"one client p50 ms   {np.median(alone):8.2f}    {np.median(alone) / P50_LIMIT:5.2f} of {P50_LIMIT:.0f}")
        print(f"CPU ms a request    {cpu:8.2f}")


if __name__ == "__main__":
    main()
