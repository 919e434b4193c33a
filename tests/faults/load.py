"""Clients for the fault tests: they keep their connections, as a good client does, and count every request that failed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from live_service import JSON, Service


@dataclass
class Load:
    """What became of the requests. `answers`: decoded bodies of those with status 200, where `judge` is not given."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def wait(self, count: int, seconds: float = 60.0) -> None:
        """Until so many more were answered."""
        wanted, end = self.answered + count, time.monotonic() + seconds
        while self.answered < wanted and time.monotonic() < end:
            time.sleep(0.01)
        assert self.answered >= wanted, f"{self.answered} of {wanted} answered; failures: {self.failures[:3]}"


@contextmanager
def asking(service: Service, clients: int, judge: Callable[[Any], str | None] = lambda answer: None, k: int = 5) -> Iterator[Load]:
    """Clients that ask until the block ends; `judge` tells what is wrong with an answer."""
    load, stop = Load(), threading.Event()

    def ask(me: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        while not stop.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", "/v1/recommend", json.dumps({"user_id": f"u{me % 30}", "k": k}), JSON)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                load.failures.append(repr(error))
                connection.close()
                continue
            load.seconds.append(time.monotonic() - began)
            wrong = f"status {answer.status}" if answer.status != 200 else judge(json.loads(body))
            if wrong:
                load.failures.append(wrong)
            load.answered += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(me,)) for me in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
