"""The application with its pages: what every worker runs."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import time
from collections.abc import Callable, Coroutine
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from tastemaker.bundle.registry import Registry
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog
from tastemaker.monitoring.metrics import Metrics
from tastemaker.pipeline.engine import Timed
from tastemaker.schema.errors import BundleError, SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.serving.admission import Admission
from tastemaker.serving.answers import Answers
from tastemaker.serving.auth import KEYS_FILE, KeyFile, Keyring
from tastemaker.serving.compat import doors
from tastemaker.serving.drain import Server
from tastemaker.serving.exchange import Exchange
from tastemaker.serving.http import make_app
from tastemaker.serving.record import log_of
from tastemaker.serving.sampling import Sampler
from tastemaker.serving.watching import Watch, trained_of
from tastemaker.serving.wire import Live, open_live
from tastemaker.serving.writer import Writer

WATCH_SECONDS = 0.5
SAMPLE_DAYS = 2


def create(workspace: Path, settings: Settings, version: str | None, exchange: Exchange, watches: bool = True) -> ASGIApp:
    """The application of a workspace.

    Args:
        workspace: with `journal/` and `bundles/`.
        settings: limits and rules; the sections `serving`, `fresh`, `lists` and `ranker` are read.
        version: a bundle to stay with; None: the live one, and each that is released later.
        exchange: lets requests in.
        watches: this worker looks at the figures of all, and tells what is wrong.
    """
    journal = Journal.open(workspace / "journal")
    live = open_live(workspace / "bundles", journal, version, service=settings)
    served = ServedLog(workspace / "journal" / "served", settings.serving.record_days)
    samples = workspace / "journal" / "sampled"
    notice = Sampler(ServedLog(samples, SAMPLE_DAYS), settings.alerts).keep
    answers = Answers(live, journal, settings.serving, served, notice, timed=_timed(exchange, settings.serving.traces))
    follow: list[Callable[[], Coroutine[Any, Any, None]]] = []
    if not version:
        follow.append(lambda: follow_releases(workspace / "bundles", answers, settings, exchange.metrics))
    if watches:
        own = Journal.open(workspace / "journal")
        follow.append(Watch(settings, exchange.metrics, answers, own, samples, workspace / "reports").follow)
    log = log_of(settings.serving.access_log, workspace)
    writer, compat = Writer(Journal.open(workspace / "journal")), doors(settings.serving.compat)
    return make_app(answers, writer, exchange, log, pages(), compat, follow)


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


async def follow_releases(bundles: Path, answers: Answers, service: Settings | None = None, metrics: Metrics | None = None) -> None:
    """Swaps to a newly released bundle: loaded and checked beside, then put in place at once; a bad one changes nothing."""
    registry, refused = Registry(bundles), ""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            wanted = registry.stages().live
            if wanted and wanted not in (answers.live.version, refused):
                refused = wanted
                folder = registry.folder(wanted)
                answers.take(await asyncio.to_thread(Live, folder, answers.journal, service=service))
                refused = ""
                if metrics is not None:
                    metrics.model(wanted, answers.live.channels.n_items, trained_of(answers.live), time.time())
        except (BundleError, SettingsError, OSError, KeyError, ValueError) as error:
            if metrics is not None:
                metrics.load_failed()
            print(f"the released bundle was refused, the old one answers on: {error}", flush=True)


def pages() -> dict[str, str]:
    """The pages by path."""
    static = resources.files("tastemaker.console") / "static"
    return {"/": (static / "index.html").read_text("utf-8"), "/docs": (static / "docs.html").read_text("utf-8")}


def work(
    sock: socket.socket,
    number: int,
    workspace: str,
    settings: Settings,
    version: str | None,
    counters: Path,
    closed: bool,
) -> None:
    """One worker: answers on the shared socket until SIGTERM.

    Args:
        sock: listens. number: of this worker, from 0. workspace, settings, version: as of `create`.
        counters: the file in which all workers count requests.
        closed: nobody may enter without a key, even when all keys are revoked.
    """
    threadpool_limits(1)
    keys = Keyring(KeyFile(Path(workspace) / KEYS_FILE), closed)
    exchange = Exchange(keys, Admission(counters, number, settings.serving.rate_limit), Metrics(), settings.serving)
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
    Server(config).run(sockets=[sock])


def connection() -> Any:
    """The protocol of a connection: ours where uvicorn's fast parser is installed, else uvicorn's slow one, which has caps of its own."""
    if importlib.util.find_spec("httptools") is None:
        return "h11"
    from tastemaker.serving.connection import Connection

    return Connection
