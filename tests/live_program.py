"""A server program on a port of loopback: started, waited for, killed, started again."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from live_service import free_port


class Program:
    """Listens from the first moment on.

    Args:
        command: of the program; `{port}` in its words is the port.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self._command, self._environment = [word.format(port=self.port) for word in command], environment
        self.start()

    def start(self) -> None:
        """Returns when it takes connections."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise AssertionError(f"{Path(self._command[0]).name} did not start")

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait(10)
