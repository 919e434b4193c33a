"""A real service with two workers: its figures by Prometheus' conventions, its alerts at a real webhook, its features replayed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Histogram

from dashboards import names, queries
from live_service import Service, free_port, serving
from tastemaker.monitoring.alerts import ATTEMPTS, Change, Webhook
from tastemaker.monitoring.metrics import GAUGES, STREAM_GAUGES, Metrics
from tastemaker.monitoring.rules import rules
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import AlertSettings
from toy_bundle import write_workspace
from toy_ranker import write_ranker

PROMETHEUS = shutil.which("prometheus")
UNITS = (
    "_total",
    "_seconds",
    "_ratio",
    "_bits",
    "_info",
    "_timestamp_seconds",
    "_items",
    "_rows",
    "_in_flight",
    "_behind",
    "_pending",
)
UNITLESS = {"tastemaker_score", "tastemaker_drift_statistic", "tastemaker_drift_threshold", "tastemaker_alert_firing"}
QUICK = (
    "alerts.sample=1",
    "alerts.sample_rate=1000",
    "alerts.data_seconds=1",
    "alerts.seconds=0.5",
    "alerts.drift_rows=5",
    "alerts.model_days=0.00001",
)


class Receiver(HTTPServer):
    """A webhook that answers with the given statuses, then with 200."""

    def __init__(self, statuses: tuple[int, ...] = ()) -> None:
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        waiting = list(statuses)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.paths.append(self.path)
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                status = waiting.pop(0) if waiting else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?token=secret"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monitoring") / "space"
    write_workspace(folder, besides=write_ranker)
    return folder


@pytest.fixture(scope="module")
def service(space: Path, receiver: Receiver) -> Iterator[Service]:
    given = [word for setting in (*QUICK, f"alerts.webhook={receiver.url}") for word in ("--set", setting)]
    with serving(space, "--workers", "2", *given) as found:
        deadline = time.monotonic() + 20
        while "tastemaker_model_loaded" not in scrape(found) and time.monotonic() < deadline:
            time.sleep(0.2)
        for number in range(60):
            answer = found.ask("POST", "/v1/recommend", {"user_id": f"u{number % 30}", "k": 5})
            event = {"user_id": f"u{number % 30}", "item_id": answer["items"][0]["item_id"], "request_id": answer["request_id"]}
            found.ask("POST", "/v1/events", {"events": [event, {"user_id": "u1"}, {}]})
        for path, body, status in (
            ("/v1/recommend", {"k": "many"}, 422),
            ("/v1/search", {"query": "boots"}, 200),
            ("/v1/items/none/similar", None, 405),
        ):
            found.ask("POST", path, body, status=status)
        deadline = time.monotonic() + 10
        while "tastemaker_catalogue_coverage" not in scrape(found) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.2)  # one more look: everything is in it
        yield found


def scrape(service: Service) -> str:
    return service.raw("GET", "/metrics")[2].decode()


def series(text: str) -> list[tuple[str, dict[str, str], float]]:
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            assert match, line
            found.append((match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])))
    return found


def test_names_follow_the_conventions(service: Service) -> None:
    text = scrape(service)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.M))
    assert types
    assert types.keys() == helps.keys()
    for name, kind in types.items():
        assert name.startswith("tastemaker_"), name
        assert (kind == "counter") == name.endswith("_total"), name
        assert name.endswith(UNITS) or name in UNITLESS, name
        assert not name.endswith(("_ms", "_milliseconds", "_percent", "_count")), name


def test_series_are_few_and_hold_no_ids(service: Service) -> None:
    found = series(scrape(service))
    assert 100 < len(found) <= 2_000
    values = {value for _, labels, _ in found for value in labels.values()}
    assert not [value for value in values if re.fullmatch(r"u\d+|(boots|coffee|guitar)-\d+|[0-9a-f]{16}", value)]


def test_figures_of_both_workers_are_added(service: Service) -> None:
    found = {(name, tuple(sorted(labels.items()))): value for name, labels, value in series(scrape(service))}
    assert found["tastemaker_answers_total", ()] == 61
    assert found["tastemaker_events_total", (("result", "accepted"),)] == 60
    assert found["tastemaker_events_total", (("result", "rejected"),)] == 120
    assert found["tastemaker_requests_total", (("route", "recommend"), ("status", "422"))] == 1
    count = {labels: value for (name, labels), value in found.items() if name == "tastemaker_request_seconds_count"}
    assert count[(("route", "recommend"), ("status", "2xx"))] == 60
    assert count[(("route", "recommend"), ("status", "4xx"))] == 1
    assert found["tastemaker_stage_seconds_count", (("stage", "source"),)] == 60
    assert sum(value for (name, _), value in found.items() if name == "tastemaker_clicks_total") == 60
    assert found["tastemaker_index_recall_ratio", ()] == 1
    assert len([1 for name, _ in found if name == "tastemaker_model_info"]) == 1


def declared() -> set[str]:
    """Names of all series that the service may tell, whether something has happened of which they tell or not."""
    counted = {
        f"{one._name}{suffix}"
        for one in vars(Metrics()).values()
        if isinstance(one, Counter | Histogram)
        for suffix in (("_total",) if isinstance(one, Counter) else ("_bucket", "_count", "_sum"))
    }
    return counted | set(GAUGES) | set(STREAM_GAUGES)


def test_dashboards_and_rules_ask_for_what_is_there(service: Service) -> None:
    known = {name for name, _, _ in series(scrape(service))} | declared()
    asked = queries()
    assert len(asked) > 50
    asked |= {rule.condition.promql(): rule.name for rule in rules(AlertSettings())}
    for expression, where in asked.items():
        assert names(expression), where
        assert names(expression) <= known, (where, names(expression) - known)


@pytest.fixture
def engine(service: Service, tmp_path: Path) -> Iterator[str]:
    """Prometheus itself, which has scraped the service more than once."""
    jobs = [
        {
            "job_name": "tastemaker",
            "scrape_interval": "300ms",
            "scrape_timeout": "300ms",
            "static_configs": [{"targets": [service.url[7:]]}],
        }
    ]
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": jobs}))
    url = f"127.0.0.1:{free_port()}"
    words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={url}", "--log.level=error"]
    process = subprocess.Popen([PROMETHEUS or "", *words], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not any(float(one["value"][1]) > 2 for one in query(url, "count_over_time(tastemaker_answers_total[5m])")):
            assert time.monotonic() < deadline, "Prometheus has scraped nothing"
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait(10)


def query(url: str, expression: str) -> list[Any]:
    """What an expression gives now; nothing while Prometheus is not there."""
    try:
        with urllib.request.urlopen(
            f"http://{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=10
        ) as answer:
            return list(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return []
        raise AssertionError(f"{expression}: {error.read().decode()}") from None
    except OSError:
        return []


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed: apt-get install prometheus")
def test_prometheus_answers_every_query(service: Service, engine: str) -> None:
    scraped = {name for name, _, _ in series(scrape(service))}
    answered = 0
    for expression, where in queries().items():
        found = query(engine, expression)
        assert found or not names(expression) <= scraped, (where, expression)
        answered += bool(found)
    assert answered > 35
    for rule in rules(AlertSettings()):
        query(engine, rule.condition.promql())


def test_the_webhook_hears_of_alerts_without_secrets(service: Service, receiver: Receiver) -> None:
    deadline = time.monotonic() + 10
    while not receiver.bodies and time.monotonic() < deadline:
        time.sleep(0.1)
    alerts = [alert["labels"]["alertname"] for body in receiver.bodies for alert in body["alerts"]]
    assert "ModelStale" in alerts
    assert len(alerts) == len(set(alerts)), "one worker tells, and once"
    assert 'tastemaker_alert_firing{alert="ModelStale",severity="ticket"} 1.0' in scrape(service)
    assert "secret" not in service.log.read_text()
    assert "secret" not in json.dumps(receiver.bodies)


def test_live_features_come_out_of_the_journal_again(service: Service, space: Path) -> None:
    command = [sys.executable, "-m", "tastemaker", "health", str(space), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["numbers"] >= 60 * 5 * 4
    assert found["equal"] == 1.0
    assert found["scores"] > 200
    assert found["score_difference"] < 1e-4
    [sample, *_] = (space / "journal" / "sampled").glob("*.jsonl")  # a worker that knew less than it says
    lines = [json.loads(line) for line in sample.read_text().splitlines()]
    for line in lines:
        line["position"] = 0
    sample.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["equal"] < 0.9999
    text = (space / "reports" / "health.json").read_bytes()
    for line in lines:
        line["position"], line["scores"] = 60, [1.01 * score for score in line["scores"]]
    sample.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    (space / "reports" / "health.json").write_bytes(text)


def a_change() -> list[Change]:
    [rule] = [rule for rule in rules(AlertSettings()) if rule.name == "Drift"]
    return [Change(rule, {"check": "scores"}, True, 1.8e9, 1.8e9, 0.4)]


def test_the_webhook_is_tried_again_but_not_for_ever() -> None:
    receiver, waits = Receiver((500, 503)), list[float]()
    assert Webhook(receiver.url, waits.append).send(a_change())
    assert len(receiver.bodies) == ATTEMPTS == len(waits) + 1
    [alert] = receiver.bodies[0]["alerts"]
    assert alert["labels"] == {"alertname": "Drift", "severity": "ticket", "check": "scores"}
    assert alert["annotations"] == {"summary": "scores is 0.4 away from what the bundle knew.", "runbook": "docs/runbooks/Drift.md"}
    assert (alert["startsAt"], receiver.bodies[0]["version"]) == ("2027-01-15T08:00:00Z", "4")
    receiver = Receiver((500,) * 9)
    assert not Webhook(receiver.url, waits.append).send(a_change())
    assert len(receiver.bodies) == ATTEMPTS


@pytest.mark.parametrize(("status", "calls"), [(400, 1), (302, ATTEMPTS)])
def test_the_webhook_follows_nobody_and_knows_a_no(status: int, calls: int) -> None:
    receiver = Receiver((status,) * 9)
    assert not Webhook(receiver.url, lambda seconds: None).send(a_change())
    assert len(receiver.paths) <= calls
    assert "/elsewhere" not in receiver.paths


def test_a_webhook_is_an_address() -> None:
    for url in ("ftp://x/y", "file:///etc/passwd", "nothing"):
        with pytest.raises(SettingsError, match=r"alerts\.webhook") as error:
            Webhook(url)
        assert url not in str(error.value)
