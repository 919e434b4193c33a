"""A real server in a child process, and a plain client of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JSON = {"content-type": "application/json"}


class Service:
    """Where it listens, and the process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port, self.process, self.log = port, process, log
        self.url = f"http://127.0.0.1:{port}"

    def raw(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request on a connection of its own, so that any worker may answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, JSON if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """The decoded answer; fails on another status than the expected one (default: any 2xx)."""
        data = None if body is None else json.dumps(body)
        found, _, text = self.raw(method, path, data)
        assert found == status if status else 200 <= found < 300, (method, path, body, found, text[:500])
        return json.loads(text)

    def recommend(self, **query: Any) -> list[str]:
        """Item ids of a list."""
        return ids(self.ask("POST", "/v1/recommend", query))

    def search(self, query: str, k: int = 10) -> list[str]:
        """Item ids found by words."""
        return ids(self.ask("POST", "/v1/search", {"query": query, "k": k}))

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    words = (folder / "cmdline").read_text()
                except (OSError, IndexError):
                    continue
                if parent == self.process.pid and "spawn_main" in words:
                    found.append(int(folder.name))
        return found


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(workspace: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Service]:
    """Runs `tastemaker serve` until the block ends."""
    port = free_port()
    log = workspace / f"serve-{port}.log"
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--port", str(port), *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        )
        service = Service(port, process, log)
        try:
            end = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "not ready in 60 seconds"
                try:
                    if service.raw("GET", "/readyz")[0] == 200:
                        break
                except OSError:
                    time.sleep(0.05)
            yield service
        finally:
            process.terminate()
            process.wait(30)
