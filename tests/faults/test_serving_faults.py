"""Faults of the service: killed workers, stops under load, bad releases. Nothing acknowledged is lost, nothing asked is dropped."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from live_service import JSON, Service, serving
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.write import write_bundle
from tastemaker.journal.append import Journal
from tastemaker.schema.manifest import DataFingerprint
from toy_bundle import histories, items, write_features, write_payload, write_workspace


def _send(service: Service, name: str, acknowledged: list[str], stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        rows = [{"event_id": f"{name}-{number + place}", "user_id": name, "item_id": "boots-1"} for place in range(5)]
        number += 5
        try:
            if service.raw("POST", "/v1/events", json.dumps({"events": rows}))[0] == 202:
                acknowledged.extend(row["event_id"] for row in rows)
        except (OSError, http.client.HTTPException):
            continue  # not acknowledged: the client would send it again


def told(service: Service, user: str) -> tuple[float, float]:
    """What a worker has counted of an item and a user, log(1 + events)."""
    features = service.ask("POST", "/v1/explain", {"user_id": user, "item_id": "boots-1"})["features"]
    return features["item_events"], features["user_events"]


def test_killed_workers_lose_no_acknowledged_event_and_are_replaced(tmp_path: Path) -> None:
    write_workspace(tmp_path, besides=write_features)
    acknowledged: list[str] = []
    stop = threading.Event()
    with serving(tmp_path, "--workers", "2") as service:
        clients = [threading.Thread(target=_send, args=(service, f"c{n}", acknowledged, stop)) for n in range(4)]
        for client in clients:
            client.start()
        for _ in range(3):
            time.sleep(0.7)
            os.kill(service.workers()[0], signal.SIGKILL)
        time.sleep(0.5)
        stop.set()
        for client in clients:
            client.join()
        end = time.monotonic() + 20
        while len(service.workers()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert len(service.workers()) == 2
        assert service.recommend(user_id="u0", k=3)
        users = [f"c{number}" for number in range(4)]
        counted = [told(service, user) for user in users for _ in range(4)]
    journal = Journal.open(tmp_path / "journal")
    stored, events = journal.read()["event_id"].to_list(), journal.read()
    journal.close()
    of_item, of_user = events.height, dict(events.group_by("user_id").len().iter_rows())
    for place, (item, user) in enumerate(counted):  # of every worker, those that were started anew included
        assert item == pytest.approx(math.log1p(of_item), rel=1e-5), "a worker's counter of the item is not what is stored"
        assert user == pytest.approx(math.log1p(of_user[users[place // 4]]), rel=1e-5)
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))


def test_a_stop_under_load_drops_no_request(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    failures: list[str] = []
    counts = [0, 0, 0]

    def ask(service: Service, me: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        answered = 0  # on this connection; a fresh one may still be refused, one that has answered may not be dropped
        while service.process.poll() is None:
            try:
                if connection.sock is None:
                    answered = 0
                    connection.connect()
                connection.request("POST", "/v1/recommend", '{"user_id":"u1","k":5}', JSON)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                if answered:
                    failures.append(repr(error))
                connection.close()
                continue
            answered += 1
            counts[me] += 1
            if answer.status != 200:
                failures.append(str(answer.status))

    with serving(tmp_path, "--workers", "2") as service:
        clients = [threading.Thread(target=ask, args=(service, me)) for me in range(3)]
        for client in clients:
            client.start()
        time.sleep(1)
        service.process.terminate()
        assert service.process.wait(20) == 0
        for client in clients:
            client.join(20)
    assert min(counts) > 20
    assert failures == []


def test_a_new_release_is_taken_and_a_spoiled_one_is_refused(tmp_path: Path) -> None:
    first = write_workspace(tmp_path)
    catalogue = items()
    bundles = tmp_path / "bundles"
    registry = Registry(bundles)

    def make() -> str:
        data = DataFingerprint(items=len(catalogue), change=len(catalogue))
        return write_bundle(bundles, lambda folder: write_payload(folder, catalogue, histories(catalogue), 1), data=data)

    with serving(tmp_path, "--workers", "2") as service:
        spoiled = make()
        registry.add(spoiled)
        vectors = bundles / spoiled / "channels" / "items.npy"
        body = bytearray(vectors.read_bytes())
        body[-1] ^= 1
        vectors.write_bytes(body)
        (bundles / "registry.json").write_text(json.dumps({"live": spoiled, "previous": first}))
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert service.ask("POST", "/v1/recommend", {"user_id": "u0"})["model_version"] == first
        good = make()
        (bundles / "registry.json").write_text(json.dumps({"live": good, "previous": first}))
        end, seen = time.monotonic() + 20, []
        while seen[-10:] != [good] * 10:
            assert time.monotonic() < end, service.log.read_text()
            seen.append(service.ask("POST", "/v1/recommend", {"user_id": "u0"})["model_version"])
        assert set(seen) <= {first, good}
        assert "refused" in service.log.read_text()


def test_a_port_in_use_and_a_workspace_without_a_bundle_are_told(tmp_path: Path) -> None:
    write_workspace(tmp_path / "space")
    with serving(tmp_path / "space") as service:
        command = [sys.executable, "-m", "tastemaker", "serve", str(tmp_path / "space"), "--port", str(service.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert str(service.port) in done.stderr
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tastemaker.toml").touch()
    done = subprocess.run(
        [sys.executable, "-m", "tastemaker", "serve", str(tmp_path / "bare")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "train" in done.stderr
