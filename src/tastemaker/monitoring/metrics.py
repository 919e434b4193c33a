"""Counters and histograms by Prometheus' conventions; correct with many workers; no ids in labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """What the service counts."""

    def __init__(self) -> None:
        self._version = ""
        self._many = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        registry = None if self._many else self._registry
        self._seconds = Histogram(
            "tastemaker_request_seconds", "Time to answer.", ["route", "status"], buckets=BUCKETS, registry=registry
        )
        self._events = Counter("tastemaker_events_total", "Events by what became of them.", ["result"], registry=registry)
        self._degraded = Counter("tastemaker_degraded_total", "What was missing in answers.", ["part", "why"], registry=registry)
        self._levels = Counter(
            "tastemaker_degraded_answers_total", "Answers from lower rungs of the ladder.", ["level"], registry=registry
        )
        self._model = Gauge(
            "tastemaker_model_info", "The live bundle.", ["version"], registry=registry, multiprocess_mode="livemax"
        )
        self._items = Gauge("tastemaker_index_items", "Items in the index.", registry=registry, multiprocess_mode="livemax")
        self._relayed = Counter("tastemaker_peer_rows_total", "Events and items sent to and received from other machines.", ["way"], registry=registry)  # fmt: skip
        self._peers: Callable[[], bool] | None = None
        self._commit = Histogram("tastemaker_commit_seconds", "Time until a group of events is durable.", buckets=BUCKETS, registry=registry)  # fmt: skip
        self._linked = Gauge("tastemaker_peers_up", "1 while other machines can be heard.", registry=registry, multiprocess_mode="livemin")  # fmt: skip

    def relayed(self, sent: int, received: int) -> None:
        """Rows that went to other machines and came from them."""
        self._relayed.labels("sent").inc(sent)
        self._relayed.labels("received").inc(received)

    def follow_peers(self, alive: Callable[[], bool]) -> None:
        """Whom to ask whether other machines can be heard."""
        self._peers = alive

    def committed(self, seconds: float) -> None:
        """One group of events is on disk."""
        self._commit.observe(seconds)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One request."""
        self._seconds.labels(route, str(status)).observe(seconds)

    def events(self, accepted: int, duplicates: int, rejected: int) -> None:
        """One batch of events."""
        for result, count in (("accepted", accepted), ("duplicate", duplicates), ("rejected", rejected)):
            if count:
                self._events.labels(result).inc(count)

    def degraded(self, level: int, words: Sequence[str]) -> None:
        """One answer from a lower rung, and what was missing, as in `source text: late`."""
        self._levels.labels(str(level)).inc()
        for word in words:
            part, _, why = word.partition(": ")
            self._degraded.labels(part, why).inc()

    def model(self, version: str, items: int) -> None:
        """Which bundle answers, and from how many items."""
        if self._version not in ("", version):
            self._model.labels(self._version).set(0)
        self._version = version
        self._model.labels(version).set(1)
        self._items.set(items)

    def text(self) -> bytes:
        """All figures, of all workers, in Prometheus' text format."""
        if self._peers is not None:
            self._linked.set(self._peers())
        if not self._many:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def share_between_workers(folder: Path) -> None:
    """Prepares a folder in which workers share their figures; call it before workers start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def forget_worker(process: int) -> None:
    """Takes a dead worker's momentary figures out; what it counted stays."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(process)  # type: ignore[no-untyped-call]
