"""`tastemaker serve`: answer over HTTP."""

from __future__ import annotations

import json as json_module
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tastemaker.cli.workspace import open_workspace, serving_environment
from tastemaker.schema.settings import Settings

WORK = "tastemaker.console.app:work"


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    port: Annotated[int | None, typer.Option(help="Port; default from the settings (8000).")] = None,
    host: Annotated[str | None, typer.Option(help="Address; default from the settings (loopback only).")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that share the load.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Stay with this bundle instead of the live one.")] = None,
    compat: Annotated[list[str] | None, typer.Option(help="Answer clients of gorse or personalize, too.")] = None,
    state: Annotated[
        str | None, typer.Option(help="redis://HOST:PORT/0 or kafka://HOST:PORT/TOPIC where several machines serve this workspace.")
    ] = None,
    events_from: Annotated[
        str | None, typer.Option(help="A log of events to read: redis://…, kafka://HOST:PORT/TOPIC or journal:FOLDER.")
    ] = None,
    ray: Annotated[str | None, typer.Option("--ray", help="Answer from a Ray cluster: its address, or `local`.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the address as JSON when ready.")] = False,
) -> None:
    """Answer over HTTP, console at /."""
    workspace = open_workspace(directory, overrides or ())
    settings = workspace.settings
    serving = settings.serving
    host, port, count = host or serving.host, serving.port if port is None else port, workers or serving.workers
    os.environ.update(serving_environment())
    from tastemaker.bundle.registry import Registry
    from tastemaker.monitoring.metrics import share_between_workers
    from tastemaker.serving.admission import share
    from tastemaker.serving.auth import KEYS_FILE, KeyFile, check_exposure
    from tastemaker.serving.workers import Named, listen, shared_counts, supervise

    given = {"compat": tuple(compat) if compat else None, "state": state, "events_from": events_from}
    said = {name: value for name, value in given.items() if value is not None}
    settings = msgspec.structs.replace(settings, serving=msgspec.structs.replace(serving, **said))
    _check(settings)
    keys = KeyFile(directory / KEYS_FILE).read()
    check_exposure(host, keys, directory)
    registry = Registry(workspace.bundles)
    folder = registry.folder(bundle) if bundle else registry.live()
    if ray is not None:
        raise typer.Exit(_on_cluster(ray, host, port, directory, settings, bundle, folder, bool(keys), json))
    sock = listen(host, port)
    if count > 1:
        share_between_workers(workspace.runs / "metrics")
    counters = share(workspace.runs / f"admission-{os.getpid()}", count)
    threading.Thread(target=_announce, args=(host, sock.getsockname()[1], count, json), daemon=True).start()
    code = supervise(Named(WORK), sock, count, (str(directory), settings, bundle, counters, bool(keys), shared_counts(2 * count)))
    counters.unlink(missing_ok=True)
    raise typer.Exit(code)


def _check(settings: Settings) -> None:
    """Tells of what makes no sense, and of extras that are missing, before anything starts; whether somebody answers at an address shows later.

    Raises:
        InputError, SettingsError, ModuleNotFoundError: the first that was found.
    """
    from tastemaker.monitoring.alerts import Webhook
    from tastemaker.serving.compat import doors
    from tastemaker.serving.house import House

    serving = settings.serving
    if serving.events_from:
        from tastemaker.streaming.log import open_log

        open_log(serving.events_from).close()
    if serving.state:
        from tastemaker.streaming.relay import link_of

        link_of(serving.state).close()
    doors(serving.compat)
    if serving.traces:
        import tastemaker.monitoring._otel  # noqa: F401
    if settings.alerts.webhook:
        Webhook(settings.alerts.webhook)
    House(settings.lists)


def _on_cluster(
    ray: str, host: str, port: int, directory: Path, settings: Settings, bundle: str | None, folder: Path, closed: bool, json: bool
) -> int:
    """Has a Ray cluster answer; gives the exit code."""
    import importlib.util

    from tastemaker.console.app import application
    from tastemaker.schema.errors import MissingExtraError
    from tastemaker.serving.admission import share
    from tastemaker.serving.cluster import serve_on_cluster
    from tastemaker.serving.plan import plan_of
    from tastemaker.serving.workers import Named, supervise

    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "`tastemaker serve --ray`")
    own = settings.cluster
    slots = 2 * max(own.replicas_min, own.replicas_max)  # while replicas take each other's places there are more of them
    counters = share(directory / "runs" / f"admission-{os.getpid()}", slots)
    told = {
        "plan": plan_of(directory, settings, bundle, counters, slots, closed),
        "make": application,
        "reads": (folder / "text_encoder" / "model.onnx").is_file(),
    }

    def alone(sock: socket.socket) -> int:
        return supervise(Named(WORK), sock, 1, (str(directory), settings, bundle, counters, closed))

    def tell(words: str, url: str | None = None) -> None:
        typer.echo(json_module.dumps({"url": url, "ray": ray}) if json and url else words, err=url is None)

    try:
        return serve_on_cluster(ray, host, port, own, told, alone, tell)
    finally:
        counters.unlink(missing_ok=True)


def _announce(host: str, port: int, count: int, json: bool) -> None:
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    for _ in range(1_200):
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=1):
                break
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    else:
        return
    typer.echo(
        f'{{"url": "{url}", "workers": {count}}}'
        if json
        else f"Serving at {url} with {count} worker(s): console at /, API at /docs"
    )
