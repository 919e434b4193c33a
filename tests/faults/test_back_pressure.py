"""A disk that does not keep up: events wait, more than may wait are refused with a time to try again, and none is lost or taken twice."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from live_service import Service, serving
from tastemaker.journal.append import Journal
from tastemaker.journal.stores import Turn
from toy_bundle import write_workspace


def test_what_does_not_fit_is_refused_and_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    write_workspace(tmp_path / "w")
    answers: list[tuple[int, dict[str, str]]] = []
    with serving(tmp_path / "w", "--set", "serving.events_waiting=100") as service:
        told(service, "first", answers)
        disk = Turn(tmp_path / "w" / "journal" / "write.lock")
        with disk:
            threads = [threading.Thread(target=told, args=(service, f"b{number}", answers)) for number in range(30)]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 10
            while sum(status == 429 for status, _ in answers) < 10:
                assert time.monotonic() < end, answers
                time.sleep(0.01)
            assert service.ask("POST", "/v1/recommend", {"user_id": "u1", "k": 3})["items"], "answers go on"
        for thread in threads:
            thread.join()
        refused = [headers for status, headers in answers if status == 429]
        assert {status for status, _ in answers} == {202, 429}
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
        assert b'reason="crowded"' in service.raw("GET", "/metrics")[2]
        told(service, "again", answers)
        assert answers[-1][0] == 202
        disk.close()
    journal = Journal.open(tmp_path / "w" / "journal")
    assert journal.position() == 10 * sum(status == 202 for status, _ in answers)
    journal.close()


def told(service: Service, name: str, answers: list[tuple[int, dict[str, str]]]) -> None:
    rows = [{"event_id": f"{name}-{place}", "user_id": "x", "item_id": "boots-1"} for place in range(10)]
    status, headers, _ = service.raw("POST", "/v1/events", json.dumps({"events": rows}))
    answers.append((status, headers))
