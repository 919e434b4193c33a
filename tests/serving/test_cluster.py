"""The service on a Ray cluster of this machine: the plain server's answers, more replicas under load, and nothing lost when something dies."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_service import Service, free_port, serving
from tastemaker.bundle.registry import Registry
from tastemaker.client import Client
from tastemaker.client.transport import ServiceError, Unreachable
from tastemaker.schema.cluster import LOOPBACK, PROJECT
from toy_bundle import WIDTH, write_features, write_text_encoder, write_workspace

pytest.importorskip("ray", reason="ray is not installed: pip install 'tastemaker[ray]'")
pytestmark = pytest.mark.long
SCALING = ("target_ongoing=2", "upscale_seconds=1", "downscale_seconds=4", "replicas_max=2", "gone_seconds=2", "drain_seconds=5")
SETTINGS = [word for key in SCALING for word in ("--set", f"cluster.{key}")]


class Processes:
    """The processes below one, by what they are called."""

    def __init__(self, ancestor: int) -> None:
        self.ancestor = ancestor

    def named(self, words: str) -> list[int]:
        from tastemaker.serving.cluster import descendants

        found = []
        for process in descendants(self.ancestor):
            try:
                if words in Path(f"/proc/{process}/cmdline").read_text():
                    found.append(process)
            except OSError:
                continue
        return found

    def replicas(self) -> list[int]:
        return self.named("ServeReplica:tastemaker:replica")


@contextmanager
def on_ray(workspace: Path, *words: str, ray: str = "local", port: int | None = None) -> Iterator[tuple[Service, Processes]]:
    """Runs `tastemaker serve --ray` until the block ends."""
    port = port or free_port()
    log = workspace / f"ray-{port}.log"
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--ray", ray, "--port", str(port), *SETTINGS, *words]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **LOOPBACK, "OMP_NUM_THREADS": "1"})
    try:
        until(lambda: "Serving at" in log.read_text() or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        yield Service(port, process, log), Processes(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


class Load:
    """Clients that ask until told to stop; each tries a request three times at most."""

    def __init__(self, port: int, count: int) -> None:
        self.answered, self.failed, self.again, self.versions = 0, list[str](), 0, set[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port, place)) for place in range(count)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, port: int, place: int) -> None:
        client = Client(f"http://127.0.0.1:{port}", timeout=20)
        while not self._stop.is_set():
            place += 1
            for attempt in range(3):
                try:
                    answer = client.recommend(user_id=f"u{place % 30}", k=5)
                except (ServiceError, Unreachable) as error:
                    self.again += 1
                    if attempt == 2:
                        self.failed.append(str(error))
                    continue
                self.answered += 1
                self.versions.add(answer.model_version)
                break


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    write_workspace(folder, besides=write_features)
    return folder


def asked(service: Service) -> list[Any]:
    """What is answered to all kinds of questions, without the names of the requests."""
    questions: list[tuple[str, str, Any]] = [
        *(("POST", "/v1/recommend", {"user_id": f"u{user}", "k": 7}) for user in (0, 1, 29, 999)),
        ("POST", "/v1/recommend", {"session": [{"item_id": "boots-3", "event_type": "view"}], "k": 7}),
        ("POST", "/v1/rank", {"user_id": "u1", "items": ["boots-1", "coffee-1", "guitar-1"]}),
        *(
            ("POST", "/v1/search", {"query": words, "k": 7})
            for words in ("hiking boots", "espresso", "acoustic strings music", "zzz")
        ),
        ("GET", "/v1/items/boots-1/similar?k=7", None),
        ("GET", "/v1/items/new-1", None),
    ]
    found = []
    for method, path, body in questions:
        answer = service.ask(method, path, body)
        found.append({name: value for name, value in answer.items() if name not in ("request_id", "updated")})
    return found


def store(service: Service) -> None:
    """An event and an item, stored."""
    event = {"event_id": "e1", "user_id": "u29", "item_id": "coffee-4", "event_type": "view", "timestamp": 1.7e9}
    service.ask("POST", "/v1/events", {"events": [event]})
    service.ask("PUT", "/v1/items/new-1", {"title": "acoustic guitar strings", "categories": ["guitar"]})
    until(lambda: "new-1" in service.search("acoustic guitar strings", 70), 10)


def test_a_life_on_a_cluster(workspace: Path, tmp_path: Path) -> None:
    """One cluster for all of it, as a start takes ten seconds: answers, loopback, scaling, a release, a dead replica, a dead cluster."""
    plain = tmp_path / "plain"
    shutil.copytree(workspace, plain)
    with serving(plain, "--set", "serving.fresh_slots=0") as service:
        store(service)
        wanted = asked(service)
    with on_ray(workspace, "--set", "serving.fresh_slots=0") as (service, processes):
        store(service)
        assert asked(service) == wanted
        assert "texts are read here" not in "".join(log.read_text() for log in Path("/tmp/ray/session_latest/logs").glob("worker*"))
        assert exposed(processes) == []

        assert len(processes.replicas()) == 1
        with Load(service.port, 8) as load:
            until(lambda: len(processes.replicas()) == 2, 40)
            time.sleep(3)
        assert load.failed == []
        assert load.again == 0
        with Load(service.port, 1) as load:
            until(lambda: len(processes.replicas()) == 1, 60)
        assert load.failed == []
        assert load.again == 0

        other = write_workspace(tmp_path / "other", seed=1, besides=write_features)
        shutil.copytree(tmp_path / "other" / "bundles" / other, workspace / "bundles" / other)
        with Load(service.port, 4) as load:
            until(lambda: len(load.versions) == 1, 10)
            Registry(workspace / "bundles").release(other)
            until(lambda: other in load.versions, 20)
            load.versions.clear()
            time.sleep(2)
        assert load.failed == []
        assert load.again == 0
        assert load.versions == {other}

        with Load(service.port, 8) as load:
            until(lambda: len(processes.replicas()) == 2, 40)
            time.sleep(3)
            os.kill(processes.replicas()[0], signal.SIGKILL)
            time.sleep(6)
        assert load.failed == [], (load.failed[:3], load.answered)

        for name in ("gcs_server", "raylet/raylet", "ServeReplica", "haproxy", "ProxyActor"):
            for process in processes.named(name):
                os.kill(process, signal.SIGKILL)
        until(lambda: "answers by itself" in service.log.read_text(), 20)
        until(lambda: _answers(service), 20)
        assert service.ask("GET", "/v1/items/new-1")["title"] == "acoustic guitar strings"
        assert len(service.recommend(user_id="u1", k=5)) == 5
        assert processes.named("ray::") == []
    assert service.process.returncode == 0


def _answers(service: Service) -> bool:
    try:
        return service.raw("GET", "/readyz")[0] == 200
    except OSError:
        return False


def exposed(processes: Processes) -> list[str]:
    """Addresses that are not loopback on which a process of the cluster listens."""
    mine = set()
    for process in processes.named(""):
        for handle in Path(f"/proc/{process}/fd").iterdir():
            try:
                name = os.readlink(handle)
            except OSError:
                continue
            if name.startswith("socket:["):
                mine.add(name[8:-1])
    found = []
    for table, loopback in (("tcp", ("0100007F",)), ("tcp6", ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"))):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in mine and words[1].split(":")[0] not in loopback:
                found.append(words[1])
    return found


@contextmanager
def head(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A cluster that somebody else began on this machine, with four cores; gone with the block."""
    from tastemaker.serving.cluster import descendants, proxy_environment

    environment = {**os.environ, **PROJECT, **LOOPBACK, **proxy_environment(None)[0]}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [
        f"--port={port}",
        "--num-cpus=4",
        "--include-dashboard=false",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port) or process.poll() is not None, 60)
        assert process.poll() is None
        yield process
    finally:
        for one in [*descendants(process.pid), process.pid]:
            os.kill(one, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_new_settings_roll_through_and_a_head_comes_back(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """On a cluster that is there before and after the command, with a token."""
    import ctypes

    (tmp_path / "token").write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    room = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # short, for the sake of its sockets; and nobody else finds the head
    request.addfinalizer(lambda: shutil.rmtree(room, ignore_errors=True))
    monkeypatch.setenv("RAY_TMPDIR", room)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # what a killed head leaves behind becomes a child of this process
    port, place, two = free_port(), free_port(), ("--set", "cluster.replicas_min=2")
    address = f"127.0.0.1:{place}"
    with head(place) as cluster:
        workers = Processes(cluster.pid)
        with on_ray(workspace, *two, ray=address, port=port) as (first, _):
            until(lambda: len(workers.replicas()) == 2, 60)
            before = set(workers.replicas())
            with Load(port, 4) as load, on_ray(workspace, *two, "--set", "serving.max_k=3", ray=address, port=port) as (second, _):
                until(lambda: not before & set(workers.replicas()) and len(workers.replicas()) == 2, 60)
                assert len(second.recommend(user_id="u1", k=5)) == 3
                first.process.terminate()  # the first command ends; the application is the second one's now
                first.process.wait(60)
                time.sleep(2)
                assert len(second.recommend(user_id="u1", k=5)) == 3
                load._stop.set()
            assert load.failed == []
            assert load.again == 0
    with head(place), on_ray(workspace, "--set", "serving.max_k=3", ray=address, port=port) as (third, _):
        assert len(third.recommend(user_id="u1", k=5)) == 3


def test_texts_of_several_models_in_one_batch_go_back_to_who_asked(tmp_path: Path) -> None:
    from tastemaker.inference.engine import TextEncoder
    from tastemaker.schema.cluster import package
    from tastemaker.serving._ray import Encoder

    folders = [tmp_path / str(seed) for seed in range(3)]
    for seed, folder in enumerate(folders):
        write_text_encoder(folder, seed)
    asked = [
        (str(folders[place % 3]), WIDTH, [f"boots {word}" for word in ("coffee", "guitar", "")[: place % 4]]) for place in range(9)
    ]
    found = Encoder(package(), 16, 0.0)._read(asked)
    for (folder, width, texts), vectors in zip(asked, found, strict=True):
        assert np.array_equal(vectors, TextEncoder(Path(folder), width).encode(texts))


def test_nothing_begins_where_it_can_not_go_on(workspace: Path) -> None:
    """No cluster at the address; a port that is taken."""
    command = [sys.executable, "-m", "tastemaker", "serve", str(workspace), "--ray"]
    done = subprocess.run([*command, "127.0.0.1:1"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "No Ray cluster can be joined at 127.0.0.1:1" in done.stdout + done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run([*command, "local", "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port} can't be used" in done.stderr
