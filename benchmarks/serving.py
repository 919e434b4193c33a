"""Closed loop of C clients against a served workspace on loopback: requests/s, p50, p99, CPU a request, as ratios to the limits.

    python benchmarks/serving.py WORKSPACE [--clients 8] [--workers 1] [--seconds 8]

Limits (2 cores shared with the clients): 1,500 requests/s a core, p99 10 ms, one client's p50 1 ms.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

RATE_LIMIT, P99_LIMIT, P50_LIMIT = 1_500.0, 10.0, 1.0


def clients(port: int, users: list[str], count: int, seconds: float) -> list[float]:
    """Milliseconds of every answered request."""
    times: list[list[float]] = [[] for _ in range(count)]

    def loop(me: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number, end = me, time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            body = json.dumps({"user_id": users[number % len(users)], "k": 10})
            connection.request("POST", "/v1/recommend", body, {"content-type": "application/json"})
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
    """CPU seconds of a process' children so far."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--seconds", type=float, default=8.0)
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace with a live bundle, such as the demo's: python benchmarks/serving.py demo")
        return
    command = [sys.executable, "-m", "tastemaker", "serve", str(given.workspace), "--port", "0", "--workers", str(given.workers)]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+)\"", process.stdout.readline())
        assert found, "the server did not start"
        port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/v1/users?limit=200")
        users = [user["user_id"] for user in json.loads(connection.getresponse().read())["users"]]
        clients(port, users, 1, 1.0)
        alone = clients(port, users, 1, given.seconds / 2)
        before = cpu_seconds(process.pid)
        times = clients(port, users, given.clients, given.seconds)
        cpu = 1e3 * (cpu_seconds(process.pid) - before) / len(times)
        rate = len(times) / given.seconds / given.workers
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{given.workers} worker(s), {given.clients} clients, {given.seconds:.0f} s: {len(times):,} answers, all 200")
        print(f"requests/s a worker {rate:8.0f}    {rate / RATE_LIMIT:5.2f} of {RATE_LIMIT:.0f}")
        print(f"p50 ms              {p50:8.2f}")
        print(f"p99 ms              {p99:8.2f}    {p99 / P99_LIMIT:5.2f} of {P99_LIMIT:.0f}")
        print(f"one client p50 ms   {np.median(alone):8.2f}    {np.median(alone) / P50_LIMIT:5.2f} of {P50_LIMIT:.0f}")
        print(f"CPU ms a request    {cpu:8.2f}")
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
