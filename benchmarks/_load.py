"""A closed loop of clients on keep-alive connections, light enough to share the cores with what it measures.

python benchmarks/_load.py PORT PATH CLIENTS SECONDS BODY…    prints answers, milliseconds and its own CPU seconds as JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import numpy as np
import uvloop


class Client(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(
        self, requests: list[bytes], place: int, step: int, until: float, times: list[float], done: asyncio.Future[None]
    ) -> None:
        self._requests, self._place, self._step, self._until = requests, place, step, until
        self._times, self._done, self._got, self._size = times, done, b"", -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._got, self._size, self._began = b"", -1, time.perf_counter()
        self._transport.write(self._requests[self._place % len(self._requests)])  # type: ignore[attr-defined]
        self._place += self._step

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._size < 0:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._got[:end].lower()
            if b" 200 " not in head[:16]:
                sys.exit(f"refused: {self._got[:300]!r}")
            if b"content-length:" not in head:
                if self._got.endswith(b"0\r\n\r\n"):  # a chunked answer
                    self._next()
                return
            self._size = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self._got) >= self._size:
            self._next()

    def _next(self) -> None:
        now = time.perf_counter()
        self._times.append(1e3 * (now - self._began))
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def run(port: int, path: str, clients: int, seconds: float, bodies: list[bytes]) -> list[float]:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    requests = [head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]
    loop, times = asyncio.get_running_loop(), list[float]()
    until, waits = time.perf_counter() + seconds, []
    for place in range(clients):
        done = loop.create_future()
        await loop.create_connection(
            lambda place=place, done=done: Client(requests, place, clients, until, times, done), "127.0.0.1", port
        )
        waits.append(done)
    await asyncio.gather(*waits)
    return times


def main() -> None:
    port, path, clients, seconds, users = sys.argv[1:6]
    bodies = [json.dumps({"user_id": f"u{user}", "k": 10}).encode() for user in range(int(users))]
    before = time.process_time()
    times = uvloop.run(run(int(port), path, int(clients), float(seconds), bodies))
    p50, p99 = np.percentile(times, [50, 99])
    print(json.dumps({"answers": len(times), "p50": p50, "p99": p99, "cpu": time.process_time() - before}))


if __name__ == "__main__":
    main()
