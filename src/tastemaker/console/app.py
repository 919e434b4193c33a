"""The application with its pages: what every worker runs."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import socket
import time
from collections.abc import Callable, Coroutine, MutableSequence
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from tastemaker.inference.brain import Texts
from tastemaker.inference.engine import TextEncoder
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog
from tastemaker.monitoring.metrics import Metrics
from tastemaker.pipeline.engine import Timed
from tastemaker.schema.settings import ServingSettings, Settings
from tastemaker.serving.accept import Holdings
from tastemaker.serving.admission import Admission
from tastemaker.serving.answers import Answers
from tastemaker.serving.auth import KEYS_FILE, KeyFile, Keyring
from tastemaker.serving.compat import doors
from tastemaker.serving.drain import Server
from tastemaker.serving.exchange import Exchange
from tastemaker.serving.follow import Follower
from tastemaker.serving.http import make_app
from tastemaker.serving.judge import Judge
from tastemaker.serving.page import Page
from tastemaker.serving.record import log_of
from tastemaker.serving.releases import Releases
from tastemaker.serving.sampling import Sampler
from tastemaker.serving.watching import Watch
from tastemaker.serving.wire import open_live
from tastemaker.serving.writer import Writer
from tastemaker.streaming.intake import Intake, Taken
from tastemaker.streaming.link import Pulse
from tastemaker.streaming.log import open_log
from tastemaker.streaming.relay import Relay, relay_of

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
PATHS = {"index.html": "/", "docs.html": "/docs"}
FOLD_EVERY, FOLD_SECONDS = 0.01, 0.008
"""Seconds between looks at the journal, and for which events are folded at once."""
GARBAGE = (50_000, 20, 20)
"""Objects after which Python looks for cycles. By its own habit it looks after 700, which is every other answer, and takes a twentieth of it."""
SAMPLE_DAYS = 2
TELL_EVERY = 10.0
"""Seconds between two lines about a log of events that can't be read."""


def create(
    workspace: Path,
    settings: Settings,
    version: str | None,
    exchange: Exchange,
    watches: bool = True,
    texts: Texts = TextEncoder,
) -> ASGIApp:
    """The application of a workspace.

    Args:
        workspace: with `journal/` and `bundles/`.
        settings: limits and rules; the sections `serving`, `fresh`, `lists` and `ranker` are read.
        version: a bundle to stay with; None: the live one, and each that is released later.
        exchange: lets requests in.
        watches: this worker looks at the figures of all, and tells what is wrong.
        texts: opens what reads texts.
    """
    journal = Journal.open(workspace / "journal")
    live = open_live(workspace / "bundles", journal, version, service=settings, texts=texts)
    served = ServedLog(workspace / "journal" / "served", settings.serving.record_days)
    samples = workspace / "journal" / "sampled"
    notice = Sampler(ServedLog(samples, SAMPLE_DAYS), settings.alerts).keep
    timed = _timed(exchange, settings.serving.traces)
    answers = Answers(live, journal, settings.serving, served, lambda: exchange.ladder.level, notice, timed=timed)
    follow: list[Callable[[], Coroutine[Any, Any, None]]] = [
        lambda: follow_events(answers),
        lambda: follow_peers(workspace / "journal", settings.serving.state, answers, exchange.metrics),
        lambda: follow_stream(workspace / "journal", settings.serving, exchange.metrics),
    ]
    if not version:
        follower = Follower(workspace / "bundles", answers, settings, exchange.metrics, texts)
        follower.begin()
        follow.append(follower.follow)
    if watches and not version:
        judge = Judge(workspace / "bundles", Journal.open(workspace / "journal"), settings, exchange.metrics)
        follow.append(judge.follow)
    if watches:
        own = Journal.open(workspace / "journal")
        follow.append(Watch(settings, exchange.metrics, answers, own, samples, workspace / "reports", workspace / "bundles").follow)
    log = exchange.shed.log = log_of(settings.serving.access_log, workspace)
    writer = Writer(Journal.open(workspace / "journal"), settings.serving.events_waiting)
    compat = doors(settings.serving.compat)
    releases = Releases(workspace / "bundles", workspace / "reports")
    return make_app(answers, writer, exchange, log, pages(), releases, compat, follow)


def _relay(journal: Path, address: str, answers: Answers, metrics: Metrics) -> Relay | None:
    """Begins to tell other machines what happens here, and to hear from them; None where this one is alone."""
    if not address:
        return None
    pulse = answers.pulse = Pulse(journal / "relay.pulse")
    metrics.follow_peers(lambda: pulse.alive)
    return relay_of(address, journal, pulse, metrics.relayed).start()


async def follow_peers(journal: Path, address: str, answers: Answers, metrics: Metrics) -> None:
    """Keeps the link to other machines, if there are any."""
    relay = _relay(journal, address, answers, metrics)
    if relay is None:
        return
    try:
        await asyncio.Event().wait()
    finally:
        relay.close()


async def follow_stream(journal: Path, settings: ServingSettings, metrics: Metrics) -> None:
    """Reads this worker's share of the log of events, if there is one."""
    if not settings.events_from:
        return
    told = [0.0]

    def count(taken: Taken) -> None:
        now = time.time()
        if taken.read:
            metrics.events(taken.accepted, taken.duplicates, taken.rejected)
        if taken.accepted:
            metrics.commit(taken.seconds, now)
        if taken.lag is not None:
            metrics.stream(taken.lag, now)
        if (taken.error or taken.why) and now - told[0] > TELL_EVERY:
            told[0] = now
            words = f"the log of events can't be read: {taken.error}" if taken.error else f"messages are no events: {taken.why}"
            print(words, flush=True)

    intake = Intake(
        Journal.open(journal), open_log(settings.events_from), settings.events_group, settings.events_session, count
    ).start()
    try:
        await asyncio.Event().wait()
    finally:
        intake.close()


async def follow_events(answers: Answers) -> None:
    """Folds events as they come, asked or not, in slices: a burst neither piles up nor holds up an answer."""
    while True:
        try:
            behind = answers.poll(FOLD_SECONDS)
        except (
            Exception
        ) as error:  # a disk that can't be read now, or whatever else: the next look may do, and a request tells its own fault
            print(f"events could not be folded: {error!r}", flush=True)
            behind = False
            await asyncio.sleep(1.0)
        await asyncio.sleep(FOLD_SECONDS / 4 if behind else FOLD_EVERY)


def _timed(exchange: Exchange, collector: str) -> Timed:
    """What is told of stages: the figures, and traces where they are wanted."""
    if not collector:
        return exchange.metrics.stage
    from tastemaker.monitoring._otel import Traces

    traces, figures = Traces(collector), exchange.metrics.stage
    exchange.traces = traces

    def told(stage: str, seconds: float) -> None:
        figures(stage, seconds)
        traces.stage(stage, seconds)

    return told


def pages() -> dict[str, Page]:
    """The files of the console by path: `/`, `/docs`, the scripts and styles that they ask for, and what to do when an alert fires."""
    static = resources.files("tastemaker.console") / "static"
    found = {}
    packed, source = static / "runbooks", Path(__file__).resolve().parents[3] / "docs" / "runbooks"
    for runbook in packed.iterdir() if packed.is_dir() else source.glob("*.md"):
        found[f"/console/runbooks/{runbook.name}"] = Page(runbook.read_bytes(), "text/plain; charset=utf-8")
    for file in static.iterdir():
        kind = MEDIA_TYPES.get(Path(file.name).suffix)
        if kind is not None:
            found[PATHS.get(file.name, f"/console/{file.name}")] = Page(file.read_bytes(), kind)
    return found


def application(
    number: int,
    workspace: Path,
    settings: Settings,
    version: str | None,
    counters: Path,
    closed: bool,
    texts: Texts = TextEncoder,
) -> ASGIApp:
    """What one worker answers with, whoever listens for it. Arguments as of `work` and `create`."""
    exchange = _exchange(number, workspace, settings, counters, closed)
    return create(workspace, settings, version, exchange, number == 0, texts)


def _exchange(number: int, workspace: Path, settings: Settings, counters: Path, closed: bool) -> Exchange:
    threadpool_limits(1)
    keys = Keyring(KeyFile(workspace / KEYS_FILE), closed)
    return Exchange(keys, Admission(counters, number, settings.serving.rate_limit), Metrics(), settings.serving)


def work(
    sock: socket.socket,
    number: int,
    workspace: str,
    settings: Settings,
    version: str | None,
    counters: Path,
    closed: bool,
    counts: MutableSequence[int] | None = None,
) -> None:
    """One worker: answers on the shared socket until SIGTERM.

    Args:
        sock: listens. number: of this worker, from 0. workspace, settings, version: as of `create`.
        counters: the file in which all workers count requests.
        closed: nobody may enter without a key, even when all keys are revoked.
        counts: connections that each worker holds and has accepted, in shared memory; None: this one is alone.
    """
    gc.set_threshold(*GARBAGE)
    exchange = _exchange(number, Path(workspace), settings, counters, closed)
    app = create(Path(workspace), settings, version, exchange, number == 0)
    config = uvicorn.Config(
        app,
        http=connection(),
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=8,
        server_header=False,
    )
    Server(config, Holdings(counts, number if counts is not None else 0), exchange.shed.refuse).run(sockets=[sock])


def connection() -> Any:
    """The protocol of a connection: ours where uvicorn's fast parser is installed, else uvicorn's slow one, which has caps of its own."""
    if importlib.util.find_spec("httptools") is None:
        return "h11"
    from tastemaker.serving.connection import Connection

    return Connection
