"""Two real services that share a state over a real Redis: what one acknowledges the other answers with; without Redis both go on and say so."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from live_redis import redis_server
from live_service import Service, serving
from tastemaker.journal.append import Journal
from toy_bundle import write_workspace


def told(service: Service, name: str, user: str, item: str) -> None:
    rows = [{"event_id": name, "user_id": user, "item_id": item}]
    assert service.raw("POST", "/v1/events", json.dumps({"events": rows}))[0] == 202


def knows(service: Service, user: str, item: str, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while True:
        status, _, body = service.raw("GET", f"/v1/users/{user}")
        if status == 200 and json.loads(body)["history"][0]["item_id"] == item:
            return
        assert time.monotonic() < end, (status, body)
        time.sleep(0.005)


def degraded(service: Service) -> list[str]:
    found: list[str] = service.ask("POST", "/v1/recommend", {"user_id": "u1", "k": 3}).get("degraded", [])
    return found


def test_two_services_share_what_they_learn_and_live_without_redis(tmp_path: Path) -> None:
    write_workspace(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with (
        redis_server(tmp_path / "redis") as server,
        serving(tmp_path / "a", "--state", server.url) as here,
        serving(tmp_path / "b", "--state", server.url) as there,
    ):
        told(here, "e1", "x", "boots-1")
        knows(there, "x", "boots-1")
        there.ask("PUT", "/v1/items/new", {"title": "espresso coffee machine"})
        end = time.monotonic() + 5
        while "new" not in here.search("espresso coffee machine"):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert degraded(here) == degraded(there) == []
        server.kill()
        time.sleep(1.2)
        began = time.monotonic()
        assert degraded(here) == degraded(there) == ["peers"]
        told(here, "e2", "x", "boots-2")
        told(there, "e3", "y", "coffee-1")
        knows(here, "x", "boots-2")
        assert time.monotonic() - began < 10, "somebody waited for Redis"
        assert b"tastemaker_peers_up 0.0" in here.raw("GET", "/metrics")[2]
        server.start()
        knows(there, "x", "boots-2")
        knows(here, "y", "coffee-1")
        assert degraded(here) == []
    for name in ("a", "b"):
        journal = Journal.open(tmp_path / name / "journal")
        assert sorted(journal.read()["event_id"]) == ["e1", "e2", "e3"]
        journal.close()
