"""Alerts without Prometheus: the same rules, evaluated by one worker, told to a webhook."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from tastemaker.monitoring.conditions import History, Rule
from tastemaker.monitoring.metrics import Metrics
from tastemaker.monitoring.rules import RUNBOOKS
from tastemaker.schema.errors import SettingsError

ATTEMPTS, TIMEOUT, PAUSE = 3, 5.0, 1.0
"""Calls of the webhook for one change, seconds of each, and seconds between the first two (doubled after each)."""
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Change:
    """An alert began or ended.

    Attributes:
        rule: whose. labels: of the series. firing: it began. began, now: epoch seconds. value: of the figure when it was last wrong.
    """

    rule: Rule
    labels: dict[str, str]
    firing: bool
    began: float
    now: float
    value: float


class Alerts:
    """Which rules fire.

    Args:
        rules: all of them. metrics: whose figures are read, and where the state of alerts goes.
    """

    def __init__(self, rules: Sequence[Rule], metrics: Metrics) -> None:
        self.rules, self._metrics = rules, metrics
        self._history = History(one for rule in rules for one in rule.condition.series())
        self._since: dict[tuple[str, Labels], float] = {}
        self._fires: dict[tuple[str, Labels], float] = {}
        self._told: set[tuple[str, str]] = set()

    @property
    def firing(self) -> list[str]:
        """Names of the rules that fire, each once."""
        return sorted({name for name, _ in self._fires})

    def look(self, now: float) -> list[Change]:
        """Evaluates all rules at a moment; gives what began and what ended."""
        self._history.add(self._metrics.samples(), now)
        changes: list[Change] = []
        for rule in self.rules:
            changes += self._of(rule, now)
        self._tell()
        return changes

    def _of(self, rule: Rule, now: float) -> list[Change]:
        changes = []
        wrong = {tuple(sorted(labels.items())): value for labels, value in rule.condition.wrong(self._history)}
        for labels, value in wrong.items():
            key = (rule.name, labels)
            began = self._since.setdefault(key, now)
            if key not in self._fires and now - began >= rule.seconds:
                self._fires[key] = value
                changes.append(Change(rule, dict(labels), True, began, now, value))
        for key in [key for key in self._since if key[0] == rule.name and key[1] not in wrong]:
            began = self._since.pop(key)
            if key in self._fires:
                changes.append(Change(rule, dict(key[1]), False, began, now, self._fires.pop(key)))
        return changes

    def _tell(self) -> None:
        fires = {(rule.name, rule.severity) for rule in self.rules if rule.name in self.firing}
        for name, severity in fires | self._told:
            self._metrics.set("tastemaker_alert_firing", float((name, severity) in fires), alert=name, severity=severity)
        self._told |= fires


class Webhook:
    """Calls an address with what began and ended, in the form of Alertmanager's webhooks (version 4). Neither the address nor what it answers is
    ever printed: both may hold secrets.

    Args:
        url: http or https. pause: waits between attempts; replaced by tests.

    Raises:
        SettingsError: it is no such address.
    """

    def __init__(self, url: str, pause: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("alerts.webhook is not an address such as https://example.org/hook. Correct it or leave it empty.")
        self._url, self._pause = url, pause
        self._open = urllib.request.build_opener(_NoRedirect).open

    def send(self, changes: Sequence[Change]) -> bool:
        """Sends changes, tried `ATTEMPTS` times; False if it could not be done."""
        body = msgspec.json.encode(message(changes))
        for attempt in range(ATTEMPTS):
            if attempt:
                self._pause(PAUSE * 2 ** (attempt - 1))
            request = urllib.request.Request(self._url, body, {"content-type": "application/json", "user-agent": "tastemaker"})
            try:
                with self._open(request, timeout=TIMEOUT) as answer:
                    if 200 <= answer.status < 300:
                        return True
            except urllib.error.HTTPError as error:
                error.close()
                if 400 <= error.code < 500 and error.code not in (408, 429):
                    return False
            except (urllib.error.URLError, OSError, ValueError):
                continue
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object, **named: object) -> None:
        """Nobody is followed: another address was not asked for."""
        return None


def message(changes: Sequence[Change]) -> dict[str, object]:
    """The body of a call."""
    alerts = [
        {
            "status": "firing" if one.firing else "resolved",
            "labels": {"alertname": one.rule.name, "severity": one.rule.severity, **one.labels},
            "annotations": {
                "summary": words(one),
                "runbook": f"{RUNBOOKS}/{one.rule.name}.md",
            },
            "startsAt": _iso(one.began),
            "endsAt": _iso(0 if one.firing else one.now),
        }
        for one in changes
    ]
    status = "firing" if any(one.firing for one in changes) else "resolved"
    return {"version": "4", "status": status, "receiver": "tastemaker", "alerts": alerts}


def words(change: Change) -> str:
    """The summary with its figures, as Prometheus would write it."""
    text = change.rule.summary
    for name, value in change.labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    text = text.replace("{{ $value | humanizePercentage }}", f"{change.value:.2%}")
    text = text.replace("{{ $value | humanizeDuration }}", f"{change.value:,.0f} s")
    return text.replace("{{ $value }}", f"{change.value:.4g}")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else "0001-01-01T00:00:00Z"
