"""The application in replicas of Ray Serve. A replica is the whole road in one process, as a worker of the plain server is: a hop between stages costs milliseconds.
Only texts are read by processes of their own, in batches. Loaded in the process that `serving.cluster` starts, once the environment is prepared.

All machines must see the workspace and its bundles under the same path; where they have journals of their own, `serving.state` links them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve._private import replica as replica_module
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy, HTTPOptions
from starlette.types import ASGIApp

from tastemaker.inference.engine import TextEncoder
from tastemaker.monitoring.metrics import share_between_workers
from tastemaker.schema.cluster import LOCAL, Unfit, check_machines, check_package, no_cluster, package
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import ClusterSettings, Settings
from tastemaker.schema.settings_file import from_table
from tastemaker.serving.admission import share_here
from tastemaker.serving.far_encoder import FarEncoder
from tastemaker.serving.ongoing import Ongoing
from tastemaker.serving.plan import Plan

Call = TypeVar("Call", bound=Callable[..., Any])
APP = "tastemaker"
OBJECT_STORE = 128 * 1024 * 1024
"""Bytes of the object store of a cluster that serves on this machine alone: requests do not pass through it."""
KEPT_MODELS = 2
"""A process that reads texts keeps so many models: the live bundle's, and the one's before or after it during a release."""
ONGOING = "ongoing"
Make = Callable[..., ASGIApp]
"""Called as make(number, workspace, settings, version, counters, closed, texts): `console.app.application`."""


@serve.ingress()
class Replica:
    """One replica.

    Args:
        told: the version of the package that asks. plan: the rest. make: makes the application. encoder: reads texts; None: the replica does.

    Raises:
        Unfit: this machine has another version of the package.
    """

    def __init__(self, told: str, plan: bytes, make: Make, encoder: Any = None) -> None:
        check_package(told, package(), os.uname().nodename)
        _listen_on_loopback()
        self._plan, self._make, self._encoder = msgspec.json.decode(plan, type=Plan), make, encoder
        self._app: Ongoing | None = None

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray Serve in the loop that answers."""
        plan, rank = self._plan, serve.get_replica_context().rank
        number, settings = int(getattr(rank, "rank", rank)), from_table(plan.settings)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            share_between_workers(Path(plan.workspace) / "runs" / "metrics" / f"replica-{os.getpid()}")
        texts = TextEncoder if self._encoder is None else self._far(settings)
        self._app = Ongoing(
            self._make(
                number % plan.slots,
                Path(plan.workspace),
                settings,
                plan.version,
                share_here(Path(plan.counters), plan.slots),
                plan.closed,
                texts,
            )
        )
        return self._app

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Ray Serve once a second."""
        return {ONGOING: 0.0 if self._app is None else self._app.mean()}

    def _far(self, settings: Settings) -> Callable[[Path, int, int], TextEncoder]:
        read, loop, seconds = self._encoder.read, asyncio.get_running_loop(), (settings.serving.deadline_ms or 1_000.0) / 1e3

        async def ask(folder: str, width: int, texts: list[str]) -> FloatArray:
            found: FloatArray = await read.remote((folder, width, texts))
            return found

        return lambda folder, width, threads: FarEncoder(folder, width, threads, ask, seconds, loop)

    def owner(self) -> str:
        """The command that asked for this replica."""
        return self._plan.run

    async def check_health(self) -> None:
        """Asks the application itself whether it can answer.

        Raises:
            Unfit: it can't.
        """
        if self._app is None:
            return
        status = 0

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        head = {"type": "http", "method": "GET", "path": "/readyz", "raw_path": b"/readyz", "query_string": b"", "headers": []}
        await self._app({**head, "http_version": "1.1", "scheme": "http", "root_path": "", "client": None}, receive, send)
        if status != 200:
            raise Unfit(f"The application is not ready: status {status}.")


def _batched(call: Call) -> Call:
    found: Call = serve.batch(call)
    return found


class Encoder:
    """Reads texts for all replicas, those that come together in one batch.

    Args:
        told: the version of the package that asks. batch: requests in a batch. wait: seconds that one waits for others.
    """

    def __init__(self, told: str, batch: int, wait: float) -> None:
        check_package(told, package(), os.uname().nodename)
        _listen_on_loopback()
        self._models: OrderedDict[tuple[str, int], TextEncoder] = OrderedDict()
        self.read.set_max_batch_size(batch)  # type: ignore[attr-defined]
        self.read.set_batch_wait_timeout_s(wait)  # type: ignore[attr-defined]

    @_batched
    async def read(self, asked: list[tuple[str, int, list[str]]]) -> list[FloatArray]:
        """Vectors of texts, float32 [n, T], for each request (folder of the model, T, texts)."""
        return await asyncio.to_thread(self._read, asked)

    def _read(self, asked: list[tuple[str, int, list[str]]]) -> list[FloatArray]:
        found: list[FloatArray] = [np.zeros((0, 0), dtype=np.float32)] * len(asked)
        for key in dict.fromkeys((folder, width) for folder, width, _ in asked):
            places = [place for place, (folder, width, _) in enumerate(asked) if (folder, width) == key]
            vectors = self._model(*key).encode([text for place in places for text in asked[place][2]])
            ends = np.cumsum([len(asked[place][2]) for place in places])[:-1]
            for place, part in zip(places, np.split(vectors, ends), strict=True):
                found[place] = part
        return found

    def _model(self, folder: str, width: int) -> TextEncoder:
        key = (folder, width)
        if key not in self._models:
            self._models[key] = TextEncoder(Path(folder), width)
            while len(self._models) > KEPT_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]


def wanted_replicas(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many replicas as share the requests under way so that each has its target; Ray Serve adds delays and bounds.

    What Ray Serve counts by itself is not used: see `serving.ongoing`.
    """
    told = (context.aggregated_metrics or {}).get(ONGOING) or {}
    if not told:
        return float(context.current_num_replicas), {}
    mean = sum(told.values()) / len(told)
    return mean * context.current_num_replicas / context.config.target_ongoing_requests, {}


def _listen_on_loopback() -> None:
    """On a cluster of this machine: replicas speak with each other on loopback.

    Ray Serve has every replica listen on all interfaces, and a replica unpickles whatever comes there, without asking for the token: whoever reaches that port
    runs code. No setting closes it, so the one name through which the port is opened is put right before it is used.
    """
    if os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0":
        return
    opened = replica_module.add_port_to_grpc_server

    def on_loopback(server: Any, address: str) -> Any:
        return opened(server, address.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1"))

    replica_module.add_port_to_grpc_server = on_loopback


def application(plan: Plan, make: Make, settings: ClusterSettings, reads: bool) -> serve.Application:
    """The deployments: replicas, and what reads texts for them.

    Args:
        plan, make: as of `Replica`. settings: of the cluster. reads: there are texts to read.
    """
    common = {
        "health_check_period_s": settings.health_seconds,
        "health_check_timeout_s": 3 * settings.health_seconds,
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_ongoing_requests": settings.max_ongoing,
    }
    scaling = AutoscalingConfig(
        min_replicas=settings.replicas_min,
        max_replicas=max(settings.replicas_min, settings.replicas_max),
        target_ongoing_requests=settings.target_ongoing,
        upscale_delay_s=settings.upscale_seconds,
        downscale_delay_s=settings.downscale_seconds,
        metrics_interval_s=1.0,
        look_back_period_s=max(2.0, min(settings.upscale_seconds, 10.0)),
        policy=AutoscalingPolicy(policy_function=wanted_replicas),
    )
    threads = {"env_vars": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}}
    replica = serve.deployment(Replica, name="replica").options(
        autoscaling_config=scaling, ray_actor_options={"num_cpus": settings.cpus, "runtime_env": threads}, **common
    )
    body = msgspec.json.encode(plan)
    if not (reads and settings.encoders):
        return replica.bind(plan.package, body, make)
    encoder = serve.deployment(Encoder, name="encoder").options(
        autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=settings.encoders, target_ongoing_requests=8.0),
        ray_actor_options={"num_cpus": settings.encoder_cpus, "runtime_env": threads},
        **common,
    )
    bound = encoder.bind(plan.package, settings.encoder_batch, settings.encoder_wait_ms / 1e3)
    return replica.bind(plan.package, body, make, bound)


def run(address: str, host: str, port: int, up: Event, plan: Plan, make: Make, reads: bool, stop: threading.Event) -> None:
    """Answers from the cluster until told to stop; then lets requests under way finish.

    Args:
        address: as `ray.init` takes it. host, port: where each machine listens.
        up: set when the replicas answer. plan, make, reads: as of `application`. stop: set by whoever wants the end.

    Raises:
        Unfit: a machine has another version of the package. InputError: nothing answers at the address.
    """
    settings = from_table(plan.settings).cluster
    with connected(address, settings):
        for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which takes them
            signal.signal(number, lambda *_: stop.set())
        check_machines(ray)
        try:
            serve.start(proxy_location="EveryNode", http_options=HTTPOptions(host=host, port=port))
            with _told_of_waiting():
                serve.run(application(plan, make, settings, reads), name=APP, route_prefix="/")
        except (RuntimeError, RayError) as error:
            raise Unfit(_reason(str(error))) from None
        up.set()
        while not stop.wait(1.0):  # a signal is heard between two waits
            pass
        if _owned(plan.run):
            serve.delete(APP)


def _owned(run: str) -> bool:
    """Whether the application on the cluster is still that of a command, and not that of a later one which took it over."""
    status = serve.status().applications.get(APP)
    if status is None or status.status == "DEPLOYING":
        return False

    async def ask() -> object:
        return await serve.get_app_handle(APP).owner.remote()

    return asyncio.run(asyncio.wait_for(ask(), 10)) == run


@contextmanager
def connected(address: str, settings: ClusterSettings) -> Iterator[None]:
    """A connection to the cluster; one of this machine has room for all replicas, and ends with the block.

    Raises:
        InputError: nothing answers at the address.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith(("RAY_SERVE_", "TASTEMAKER_"))}
    common: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "runtime_env": {"env_vars": variables}}
    if address == LOCAL:
        most = max(settings.replicas_min, settings.replicas_max)
        room = int(np.ceil(most * settings.cpus + settings.encoders * settings.encoder_cpus))
        ray.init(address=LOCAL, num_cpus=max(room, os.cpu_count() or 1), object_store_memory=OBJECT_STORE, **common)
    else:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(no_cluster(address, error)) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _told_of_waiting(seconds: float = 15.0) -> Iterator[None]:
    """Tells what is waited for: Ray Serve waits without a word for cores that never come."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            for app in serve.status().applications.values():
                for name, one in app.deployments.items():
                    if one.message:
                        print(f"waiting: {name}: {one.message[:300]}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)


def _reason(message: str) -> str:
    """The sentence of a deployment that failed, without Ray's frames around it."""
    status = serve.status().applications.get(APP)
    words = message + "".join(one.message for one in (status.deployments.values() if status else ()))
    for line in words.splitlines():
        if "Unfit: " in line or "Error: " in line:
            return line.split("Unfit: ")[-1].strip()
    return words[-1_000:].strip()
