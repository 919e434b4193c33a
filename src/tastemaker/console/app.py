"""The application with its pages: what every worker runs."""

from __future__ import annotations

import asyncio
import socket
from importlib import resources
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from threadpoolctl import threadpool_limits

from tastemaker.bundle.registry import Registry
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.errors import BundleError
from tastemaker.schema.settings import Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.drain import Server
from tastemaker.serving.http import make_app
from tastemaker.serving.wire import Live, open_live
from tastemaker.serving.writer import Writer

WATCH_SECONDS = 0.5


def create(workspace: Path, settings: Settings, version: str | None = None) -> Starlette:
    """The application of a workspace.

    Args:
        workspace: with `journal/` and `bundles/`.
        settings: limits and rules; the sections `serving`, `fresh` and `lists` are read.
        version: a bundle to stay with; None: the live one, and each that is released later.
    """
    journal = Journal.open(workspace / "journal")
    live = open_live(workspace / "bundles", journal, version, 1, settings.lists, settings.fresh)
    served = ServedLog(workspace / "journal" / "served", settings.serving.record_days)
    answers = Answers(live, journal, settings.serving, served)
    follow = None if version else (lambda: follow_releases(workspace / "bundles", answers))
    return make_app(answers, Writer(Journal.open(workspace / "journal")), Metrics(), pages(), follow)


async def follow_releases(bundles: Path, answers: Answers) -> None:
    """Swaps to a newly released bundle: loaded and checked beside, then put in place at once; a bad one changes nothing."""
    registry, refused = Registry(bundles), ""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            wanted = registry.stages().live
            if wanted and wanted not in (answers.live.version, refused):
                refused = wanted
                folder = registry.folder(wanted)
                answers.live = await asyncio.to_thread(
                    Live, folder, answers.journal, 1, True, answers.live.house.settings, answers.live.fresh
                )
                refused = ""
        except (BundleError, OSError, KeyError, ValueError) as error:
            print(f"the released bundle was refused, the old one answers on: {error}", flush=True)


def pages() -> dict[str, str]:
    """The pages by path."""
    static = resources.files("tastemaker.console") / "static"
    return {"/": (static / "index.html").read_text("utf-8"), "/docs": (static / "docs.html").read_text("utf-8")}


def work(sock: socket.socket, workspace: str, settings: Settings, version: str | None) -> None:
    """One worker: answers on the shared socket until SIGTERM."""
    threadpool_limits(1)
    app = create(Path(workspace), settings, version)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=8, server_header=False
    )
    Server(config).run(sockets=[sock])
