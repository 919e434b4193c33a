"""Closed loop of C clients against a served workspace on loopback: requests/s, p50, p99, CPU a request, as ratios to the limits.

    python benchmarks/serving.py WORKSPACE [--clients 8] [--workers 1] [--seconds 8]
    python benchmarks/serving.py WORKSPACE --doors [--rounds 8]
    python benchmarks/serving.py WORKSPACE --deadlines [--rounds 8]
    python benchmarks/serving.py --table [--items 1e5] [--workers 2] [--folder F] [--peers PYTHON] [--int8-ranker]

Limits (2 cores shared with the clients): 1,500 requests/s a core, p99 10 ms, one client's p50 1 ms.
`--table` makes a bundle of so many items x 128 (benchmarks/_served_world.py) and asks it on the two cores that the clients share: 50 events read of a history of 200, all of
which are left out, 200 candidates ordered by a ranker of three heads, ten in the answer, JSON over keep-alive; then the same work behind FastAPI, LitServe and BentoML
with torch eager, the same index and the same number of processes. `--peers` is a Python that has these; one that is missing is skipped with a word. Limits at 100 k items: 1,500
requests/s at p99 15 ms with 16 clients, .9 ms of CPU a request, one client p50 1.2 ms, 3 x LitServe and BentoML, 2 x FastAPI; at 1 M 900 requests/s, first answer 3 s after
the start. `--int8-ranker`: with the ranker that the compression step of this name makes of it, in a folder of its own; the peers compute in float as before.
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
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

RATE_LIMIT, P99_LIMIT, P50_LIMIT, DOORS_LIMIT, DEADLINES_LIMIT = 1_500.0, 10.0, 1.0, 0.03, 0.02


NEEDED = "torch fastapi uvicorn litserve bentoml faiss-cpu msgspec polars scipy threadpoolctl"
START_SECONDS = 90.0
IDLE = 0.1
"""Cores below which a service is idle."""


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


def load(port: int, path: str, count: int, seconds: float, users: int = 400) -> dict[str, float]:
    """A run of the light clients of benchmarks/_load.py."""
    command = [sys.executable, str(Path(__file__).with_name("_load.py")), str(port), path, str(count), str(seconds), str(users)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def below(parent: int) -> list[int]:
    """All processes that a process has started, or these have, and that live."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                owner = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(owner, []).append(int(folder.name))
    found, waiting = list[int](), [parent]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def family_cpu(parent: int) -> float:
    """CPU seconds of a process and all below it that live."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for one in [parent, *below(parent)]:
        try:
            fields = (Path("/proc") / str(one) / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / tick
    return total


def measured(port: int, pid: int, path: str, seconds: float) -> dict[str, float]:
    """One client alone, then sixteen; not before the service has done what it does once after a start."""
    load(port, path, 16, 1.5)
    for _ in range(60):
        before = family_cpu(pid)
        time.sleep(0.5)
        if family_cpu(pid) - before < IDLE * 0.5:
            break
    alone = load(port, path, 1, seconds / 2)
    before = family_cpu(pid)
    told = load(port, path, 16, seconds)
    own = family_cpu(pid) - before
    return told | {
        "alone": alone["p50"],
        "rate": told["answers"] / seconds,
        "ms": 1e3 * (own + told["cpu"]) / told["answers"],
        "load": 1e3 * told["cpu"] / told["answers"],
    }


def table(asked: argparse.Namespace) -> None:
    """Prints ours and the peers'."""
    import _served_world

    from tastemaker.inference.ranker import open_ranker

    items = int(asked.items)
    with tempfile.TemporaryDirectory() as name:
        make = _served_world.with_int8_ranker if asked.int8_ranker else _served_world.write
        workspace = make((asked.folder or Path(name)) / str(items), items)
        bundle = next((workspace / "bundles").glob("2*"))
        plan = (
            json.loads((bundle / "channels" / "items.plan.json").read_text())
            if (bundle / "channels" / "items.plan.json").is_file()
            else {"recall": 1.0}
        )
        began = time.perf_counter()
        with serving(workspace, "--workers", str(asked.workers)) as (port, pid):
            load(port, "/v1/recommend", 1, 0.001)
            first = time.perf_counter() - began
            ours = measured(port, pid, "/v1/recommend", asked.seconds)
        rate, start = (900.0, 3.0) if items >= 1_000_000 else (RATE_LIMIT, 3.0)
        print(
            f"{items:,} items x {_served_world.DIM}, {asked.workers} processes, recall@100 {plan['recall']:.4f}; {first:.2f} s from the start to the first answer: {first / start:.2f} of {start:.0f}"
        )
        if asked.int8_ranker:
            computes = open_ranker(bundle / "ranker").products is not None
            print(f"our ranker's weights in bytes, its products in {'eight bits' if computes else 'float'}; the peers' in float")
        print(f"requests/s, 16 clients   {ours['rate']:8.0f}    {ours['rate'] / rate:5.2f} of {rate:.0f}")
        print(f"p50, p99 ms              {ours['p50']:8.2f} {ours['p99']:.2f}   {ours['p99'] / 15:5.2f} of 15")
        print(f"one client p50 ms        {ours['alone']:8.2f}    {ours['alone'] / 1.2:5.2f} of 1.2")
        print(
            f"CPU ms a request         {ours['ms']:8.3f}    {ours['ms'] / 0.9:5.2f} of .9, of which the clients {ours['load']:.3f}",
            flush=True,
        )
        stages(workspace, ours["ms"] - ours["load"])
        for peer, least in (("fastapi", 2.0), ("litserve", 3.0), ("bentoml", 3.0)):
            _beside(asked.peers or sys.executable, peer, least, bundle, asked, ours)


def _beside(python: str, peer: str, least: float, bundle: Path, asked: argparse.Namespace, ours: dict[str, float]) -> None:
    """Starts a peer, measures it as ours was, and prints the ratio; what keeps it from answering is told."""
    needed = f"import {peer}, torch, uvicorn, faiss, msgspec, polars, scipy, threadpoolctl"
    tried = subprocess.run([python, "-c", needed], capture_output=True, text=True)
    if tried.returncode:
        print(f"{peer:9} skipped: {python}: {_last(tried.stderr)}. pip install {NEEDED} there, and give it by --peers")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parent
    command = [python, str(here / "_serving_peers.py"), peer, str(bundle), str(port), str(asked.workers)]
    path = os.pathsep.join([str(here.parent / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, cwd=here, start_new_session=True, stdout=log, stderr=log)
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(port) and process.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
            told = measured(port, process.pid, "/recommend", asked.seconds)
        except subprocess.CalledProcessError as error:
            log.seek(0)
            print(f"{peer:9} did not answer: {_last(error.stderr or '')}; it says: {_last(log.read())}", flush=True)
            return
        finally:
            _end(process)
    print(
        f"{peer:9} requests/s {told['rate']:7.0f}, p99 ms {told['p99']:6.1f}, one client {told['alone']:5.2f}, CPU ms {told['ms']:.2f}: "
        f"ours {ours['rate'] / told['rate']:.2f} x, wanted {least:.0f} x: {ours['rate'] / told['rate'] / least:.2f};"
        f" by CPU a request {told['ms'] / ours['ms']:.2f} x",
        flush=True,
    )


def _last(words: str) -> str:
    """The last line of what was said."""
    return next((line.strip()[-300:] for line in reversed(words.splitlines()) if line.strip()), "nothing")


def _answers(port: int) -> bool:
    try:
        load(port, "/recommend", 1, 0.01)
    except subprocess.CalledProcessError:
        return False
    return True


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process and all below it: some start theirs in groups of their own, and leave them behind."""
    family = below(process.pid)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)
    for one in family:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


TOGETHER = 8
"""Answers that a worker makes in one piece where sixteen clients ask two of them."""


def stages(workspace: Path, whole: float) -> None:
    """Prints the CPU of each stage of an answer made in this process, alone and as one of eight, and what the served one takes besides."""
    from threadpoolctl import threadpool_limits

    from tastemaker.journal.append import Journal
    from tastemaker.schema.settings import ServingSettings, Settings
    from tastemaker.serving.answers import Answers
    from tastemaker.serving.wire import open_live

    threadpool_limits(1)
    serving = msgspec.structs.replace(ServingSettings(), deadline_ms=0.0)  # all of it in this thread
    service = msgspec.structs.replace(Settings(), serving=serving)
    live = open_live(workspace / "bundles", Journal.open(workspace / "journal"), service=service)
    answers = Answers(live, live._consumer._log, serving)
    spent: dict[str, float] = {}
    for owner, name, stage in (
        (live, "poll", "look at the journal"),
        (live.brain.user, "vectors", "user tower"),
        (live.channels, "candidates", "candidates"),
        (live.road.fusion, "score", "fusion"),
        (live.road.ranker, "rank", "ranker"),
        (live.road.ranker, "rank_many", "ranker"),
        (live.road.fusion, "parts", "sources of the ten"),
        (answers, "recommend_many", ALL),
    ):
        _timed(spent, owner, name, stage)
    alone, together = walked(answers, spent, 1), walked(answers, spent, TOGETHER)
    print(f"    CPU ms of an answer        alone  of {TOGETHER}")
    for stage in alone:
        print(f"    {stage:26} {alone[stage]:.3f} {together[stage]:.3f}")
    print(f"    HTTP, admission, metrics         {whole - sum(together.values()):.3f}")


ALL = "the rest of an answer"


def _timed(spent: dict[str, float], owner: Any, name: str, stage: str) -> None:
    inner = getattr(owner, name)

    def call(*given: Any, **named: Any) -> Any:
        began = time.process_time()
        try:
            return inner(*given, **named)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.process_time() - began

    object.__setattr__(owner, name, call)


def walked(answers: Any, spent: dict[str, float], together: int) -> dict[str, float]:
    """CPU ms an answer of each stage, so many made in one piece; their sum is that of an answer."""
    from tastemaker.schema.queries import RecommendQuery

    rounds, encode = 1_600 // together, msgspec.json.Encoder().encode
    for turn in range(-200 // together, rounds):
        if turn == 0:
            spent.clear()
        asked = [RecommendQuery(user_id=f"u{(turn * together + place) % 400}", k=10) for place in range(together)]
        told = answers.recommend_many(asked)
        began = time.process_time()
        for answer in told:
            encode(answer)
        spent["JSON"] = spent.get("JSON", 0.0) + time.process_time() - began
    each = {stage: 1e3 * seconds / rounds / together for stage, seconds in spent.items()}
    each[ALL] -= sum(milliseconds for stage, milliseconds in each.items() if stage not in (ALL, "JSON"))
    return each


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--doors", action="store_true", help="what keys, rates and the log cost")
    options.add_argument("--deadlines", action="store_true", help="what deadlines and the ladder cost")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument(
        "--table", action="store_true", help="a bundle made for the purpose, and the same work behind other servers"
    )
    options.add_argument("--items", type=float, default=1e5)
    options.add_argument("--int8-ranker", action="store_true", help="our ranker's products in eight bits")
    options.add_argument("--folder", type=Path, help="where the made bundles stay")
    options.add_argument("--peers", help="a Python that has fastapi, litserve, bentoml and torch")
    given = options.parse_args()
    if given.table:
        given.workers = max(given.workers, 2) if given.workers == 1 else given.workers
        table(given)
        return
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
