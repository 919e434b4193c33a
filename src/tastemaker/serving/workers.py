"""Worker processes that share one listening socket. A worker that dies is replaced; SIGTERM lets requests under way finish."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from tastemaker.monitoring.metrics import forget_worker
from tastemaker.schema.errors import InputError

GRACE = 10.0
"""Seconds that workers have to finish what they are doing."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; without Nagle's delay on its connections.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise InputError(
            f"{host}:{port} can't be used ({error.strerror}). Stop what listens there, or choose another --port."
        ) from None
    found.listen(2048)
    found.set_inheritable(True)
    return found


@dataclass(frozen=True)
class Named:
    """A function by its name, `module:function`, which is imported by the process that calls it: who only starts others need not wait for its imports."""

    name: str

    def __call__(self, *arguments: Any) -> None:
        """Imports and calls it."""
        module, _, function = self.name.partition(":")
        getattr(importlib.import_module(module), function)(*arguments)


def shared_counts(count: int) -> MutableSequence[int]:
    """So many zeros in memory that processes share to whom it is given when they start."""
    found: MutableSequence[int] = multiprocessing.get_context("spawn").RawArray("q", count)
    return found


def supervise(work: Callable[..., None], sock: socket.socket, count: int, arguments: tuple[Any, ...]) -> int:
    """Runs `work(sock, number, *arguments)` in `count` processes, numbered from 0, until SIGTERM or SIGINT; gives the exit code."""
    context = multiprocessing.get_context("spawn")
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: stop.append(caught))

    def start(number: int) -> BaseProcess:
        child = context.Process(target=work, args=(sock, number, *arguments))
        child.start()
        return child

    children = [start(number) for number in range(count)]
    born = [time.monotonic()] * count
    while not stop:
        time.sleep(0.1)
        for place, child in enumerate(children):
            if child.is_alive() or stop:
                continue
            if (child.exitcode or 0) > 0 and time.monotonic() - born[place] < 5:  # it can't start; a killed one is replaced
                for other in children:
                    other.terminate()
                return child.exitcode or 1
            if child.pid is not None:
                forget_worker(child.pid)
            children[place], born[place] = start(place), time.monotonic()
    for child in children:
        child.terminate()
    end = time.monotonic() + GRACE
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
        if child.is_alive():
            child.kill()
    return 0
