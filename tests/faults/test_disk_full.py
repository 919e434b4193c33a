"""A service whose disk is full: events are refused in plain words, recommendations go on, and nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import resource
from pathlib import Path

from live_service import Service, serving
from tastemaker.journal.append import Journal
from toy_bundle import write_workspace


def send(service: Service, begin: int, count: int = 20) -> tuple[int, dict[str, str], list[str]]:
    names = [f"e{number}" for number in range(begin, begin + count)]
    rows = [{"event_id": name, "user_id": "u1", "item_id": "boots-1", "context": {"filling": "x" * 200}} for name in names]
    status, headers, _ = service.raw("POST", "/v1/events", json.dumps({"events": rows}))
    return status, headers, names


def limit(service: Service, size: int) -> None:
    """How large files of the workers may become: what a quota does, and a full disk."""
    for process in service.workers():
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_events_answers_on_and_loses_nothing(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    acknowledged: list[str] = []
    with serving(tmp_path, "--workers", "2") as service:
        for begin in range(0, 100, 20):
            status, _, names = send(service, begin)
            assert status == 202
            acknowledged += names
        limit(service, (tmp_path / "journal" / "live.sqlite-wal").stat().st_size)
        refused = []
        for begin in range(100, 500, 20):
            status, headers, names = send(service, begin)
            if status == 202:  # what the log has room for
                acknowledged += names
                continue
            assert status == 507
            assert int(headers["retry-after"]) > 0
            refused.append(begin)
            assert len(service.recommend(user_id="u1", k=5)) == 5
        assert refused
        status, _, body = service.raw("PUT", "/v1/items/new", json.dumps({"title": "hiking boots", "text": "long " * 20_000}))
        assert status == 507, body
        limit(service, resource.RLIM_INFINITY)
        for begin in refused:  # the clients do as they were told
            status, _, names = send(service, begin)
            assert status == 202
            acknowledged += names
        assert service.recommend(user_id="u1", k=5)
    journal = Journal.open(tmp_path / "journal")
    stored = journal.read()["event_id"].to_list()
    journal.close()
    assert sorted(stored) == sorted(acknowledged) == sorted(f"e{number}" for number in range(500))
