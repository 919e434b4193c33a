"""Twice and four times what one worker can: answers in time (a second) as a share of its capacity (limit .8), refusals, lost requests, p99, rungs of the ladder.

    python benchmarks/overload.py WORKSPACE [--times 2 4] [--seconds 10]

The generator is an open loop: it sends at its rate, each request on a connection of its own, whatever comes back. It shares the machine's cores with the service,
and what it takes of them lowers both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

GOODPUT_LIMIT = 0.8
IN_TIME = 1.0
"""Seconds that a client waits for a list: an answer that comes later is of no use to anybody."""
MISSES = 3


@dataclass
class Outcome:
    """What became of the requests of one run.

    Attributes:
        seconds: that it took to send them and to hear of all. refused: with `Retry-After`. levels: answers by rung.
        behind: by how many seconds the generator sent a request late at most: beyond a tenth of a second it is the generator that is overloaded. cores: that it took.
    """

    seconds: float
    answered: int = 0
    refused: int = 0
    lost: int = 0
    times: list[float] = field(default_factory=list)
    levels: dict[int, int] = field(default_factory=dict)
    behind: float = 0.0
    cores: float = 0.0

    @property
    def in_time(self) -> int:
        """Answers that somebody still waited for."""
        return sum(seconds <= IN_TIME for seconds in self.times)

    def words(self, capacity: float) -> str:
        """The figures as ratios to a capacity, answers a second."""
        goodput = self.in_time / self.seconds / capacity
        late = sorted(self.times)[int(0.99 * (len(self.times) - 1))] if self.times else float("nan")
        rungs = ", ".join(f"{level}: {count}" for level, count in sorted(self.levels.items()))
        return (
            f"goodput {goodput:.2f} of capacity, {goodput / GOODPUT_LIMIT:.2f} of the limit; {self.answered - self.in_time} too late, {self.refused} refused, {self.lost} lost;"
            f" p99 of answers {1e3 * late:.0f} ms; answers by rung {rungs}; the generator took {self.cores:.2f} cores and was"
            f" {1e3 * self.behind:.0f} ms behind at most"
        )


def open_loop(port: int, users: list[str], rate: float, seconds: float) -> Outcome:
    """So many new requests a second, for some seconds."""
    found = Outcome(seconds)

    async def ask(number: int, due: float) -> None:
        began = time.monotonic()
        found.behind = max(found.behind, began - due)
        body = json.dumps({"user_id": users[number % len(users)], "k": 10}).encode()
        head = f"POST /v1/recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
        except (OSError, TimeoutError):
            found.lost += 1
            return
        if answer.startswith(b"HTTP/1.1 200"):
            found.answered += 1
            found.times.append(time.monotonic() - began)
            level = re.search(rb'"level":(\d)', answer)
            rung = int(level[1]) if level else 0
            found.levels[rung] = found.levels.get(rung, 0) + 1
        elif answer.startswith(b"HTTP/1.1 429") and b"retry-after:" in answer.lower():
            found.refused += 1
        else:
            found.lost += 1

    async def run() -> None:
        tasks: list[asyncio.Task[None]] = []
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            while len(tasks) < rate * now:
                tasks.append(asyncio.create_task(ask(len(tasks), begin + len(tasks) / rate)))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        found.seconds = time.monotonic() - begin

    before = time.process_time()
    uvloop.run(run())
    found.cores = (time.process_time() - before) / found.seconds
    return found


def capacity(port: int, users: list[str]) -> float:
    """Full answers a second at the best of growing rates; it ends when three of them in a row bring no more: one slow moment of the machine is not the service's end."""
    rate, best, misses = 60.0, 0.0, 0
    while misses < MISSES:
        found = open_loop(port, users, rate, 2.0)
        full = found.levels.get(0, 0) / found.seconds
        misses = 0 if full > 1.05 * best else misses + 1
        best, rate = max(best, full), 1.3 * rate
        time.sleep(0.5 * (misses > 0))
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path, nargs="?")
    options.add_argument("--times", type=float, nargs="+", default=[2.0, 4.0])
    options.add_argument("--seconds", type=float, default=10.0)
    given = options.parse_args()
    if given.workspace is None:
        print("Skipped: give a workspace with a live bundle, such as the demo's: python benchmarks/overload.py demo")
        return
    from serving import serving, users_of

    with serving(given.workspace) as (port, _):
        users = users_of(port)
        open_loop(port, users, 20.0, 10.0)  # what a worker does once after its start is done meanwhile
        best = capacity(port, users)
        print(f"capacity of one worker: {best:.0f} full answers a second, each on a new connection")
        for times in given.times:
            time.sleep(2)
            print(f"{times:g} times: {open_loop(port, users, times * best, given.seconds).words(best)}")


if __name__ == "__main__":
    main()
