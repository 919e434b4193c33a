"""A service that reads a log of events, and the verb that reads one: through the real processes."""

from __future__ import annotations

import importlib.util
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_kafka import kafka_broker
from live_redis import redis_server
from live_service import Service, serving
from tastemaker.cli.app import call
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.streaming.log import open_log
from toy_bundle import write_workspace


@pytest.fixture(params=["redis", "kafka"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with redis_server(tmp_path / "redis") as server:
            yield f"{server.url}?stream={uuid.uuid4().hex}"
    else:
        with kafka_broker() as broker:
            yield broker.url("events")


def told(number: int, user: str = "x") -> Event:
    return Event(event_id=f"e{number}", user_id=user, item_id=f"boots-{number % 5}", timestamp=1e9 + number)


def known(service: Service, user: str) -> int:
    status, _, body = service.raw("GET", f"/v1/users/{user}")
    return len(json.loads(body)["history"]) if status == 200 else 0


def test_workers_answer_with_what_a_log_tells_and_say_how_far_behind_they_are(tmp_path: Path, url: str) -> None:
    write_workspace(tmp_path / "w")
    log = open_log(url)
    log.send([told(number) for number in range(20)])
    with serving(tmp_path / "w", "--workers", "2", "--events-from", url, "--set", "serving.events_session=1") as service:
        end = time.monotonic() + 20
        while known(service, "x") < 20:
            assert time.monotonic() < end, service.log.read_text()
            time.sleep(0.05)
        log.send([told(20, "later"), told(3)])  # one of them a second time
        while not known(service, "later"):
            assert time.monotonic() < end, service.log.read_text()
            time.sleep(0.02)
        while True:
            figures = service.raw("GET", "/metrics")[2].decode()
            found = {line.split()[0]: float(line.split()[1]) for line in figures.splitlines() if line.startswith("tastemaker_")}
            if found.get('tastemaker_events_total{result="duplicate"}') and found.get("tastemaker_stream_events_behind") == 0:
                break
            assert time.monotonic() < end, figures
            time.sleep(0.1)
        assert found['tastemaker_events_total{result="accepted"}'] == 21
        assert time.time() - found["tastemaker_stream_read_timestamp_seconds"] < 30
    log.close()
    journal = Journal.open(tmp_path / "w" / "journal")
    assert sorted(journal.read()["event_id"]) == sorted(f"e{number}" for number in range(21))
    journal.close()


def test_the_verb_reads_all_once_and_again_when_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("redis")
    with redis_server(tmp_path / "redis") as server:
        write_workspace(tmp_path / "w")
        (tmp_path / "w" / "tastemaker.toml").write_text("[serving]\nevents_session = 0.5\n")
        url = f"{server.url}?stream=events"
        log = open_log(url)
        log.send([told(number) for number in range(50)])
        for number, body in enumerate((b"no json", b'{"user_id": "x"}', b'{"user_id": "x", "item_id": "i", "value": 1e999}')):
            log.server.client.xadd(f"{{events}}:{number}", {"event": body})  # type: ignore[attr-defined]
        log.close()
        verb = ["consume", str(tmp_path / "w"), "--from", url, "--once", "--json"]
        assert call(verb) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["accepted"], found["duplicates"], found["rejected"], found["lag"]) == (50, 0, 3, 0)
        assert any("item_id" in why for why in found["why"])
        assert call([*verb, "--rewind", "all"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["accepted"], found["duplicates"]) == (0, 50)
        assert call([*verb, "--rewind", "first"]) == 2
        assert "PARTITION:PLACE" in capsys.readouterr().err
    wrongs = ["http://x", "journal:/nowhere", f"{server.url}?partitions=many"]
    for wrong in [*wrongs, *(["kafka://", "kafka://h/t?retries=9"] if importlib.util.find_spec("aiokafka") else [])]:
        assert call(["consume", str(tmp_path / "w"), "--from", wrong, "--once"]) == 2, wrong
        assert "Expected" in capsys.readouterr().err
