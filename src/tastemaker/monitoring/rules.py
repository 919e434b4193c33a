"""The rules: one table of what is wrong, from which Prometheus' rule file and the service's own evaluation both come."""

from __future__ import annotations

import json

from tastemaker.monitoring.conditions import Above, AboveOther, Either, Grew, Rule, Series, Share, Since, duration
from tastemaker.schema.settings import AlertSettings

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
RUNBOOKS = "docs/runbooks"
LISTS = ("route", "recommend|rank|search|similar")
BURNS = (
    (14.4, HOUR, 5 * MINUTE, "page"),
    (6.0, 6 * HOUR, 30 * MINUTE, "page"),
    (3.0, DAY, 2 * HOUR, "ticket"),
    (1.0, 3 * DAY, 6 * HOUR, "ticket"),
)
"""How many times too fast the budget of a month is used up, over which time and which shorter one (Google, The Site Reliability Workbook, 2018, ch. 5)."""


def rules(settings: AlertSettings) -> list[Rule]:
    """All rules of a service."""
    return [*_objectives(settings), *_service(settings), *_ingestion(settings), *_model(settings), *_data(settings)]


def _objectives(settings: AlertSettings) -> list[Rule]:
    total = Series("tastemaker_request_seconds_count")
    failed = Series("tastemaker_request_seconds_count", (("status", "5xx"),))
    lists = Series("tastemaker_request_seconds_count", (LISTS,))
    fast = Series("tastemaker_request_seconds_bucket", (LISTS, ("le", _bound(settings.latency_seconds))))
    found = []
    for name, part, whole, objective, rest, words in (
        ("ErrorBudget", failed, total, settings.availability, False, "of the requests fail"),
        ("LatencyBudget", fast, lists, settings.latency_share, True, f"of the lists take longer than {settings.latency_seconds:g} s"),
    ):  # fmt: skip
        for place, severity in enumerate(("page", "ticket")):
            quick, slow = (
                Share(part, whole, min(factor * (1 - objective), 0.95), (long, short), rest)
                for factor, long, short, _ in BURNS[2 * place : 2 * place + 2]
            )
            found.append(
                Rule(
                    name + ("Fast" if severity == "page" else "Slow"), severity, Either(quick, slow), 2 * MINUTE,
                    f"{{{{ $value | humanizePercentage }}}} {words}: the month's budget will not last.",
                )
            )  # fmt: skip
    return found


def _service(settings: AlertSettings) -> list[Rule]:
    answers = Series("tastemaker_answers_total")
    return [
        Rule("Degraded", "page", Share(Series("tastemaker_degraded_total"), answers, settings.degraded_share, (10 * MINUTE,)), 5 * MINUTE,
             "{{ $value | humanizePercentage }} of the lists lack something."),
        Rule("ScoresNotFinite", "page", Grew(Series("tastemaker_scores_nonfinite_total"), 10 * MINUTE), 0,
             "{{ $value }} scores of the last ten minutes are no numbers."),
        Rule("WatchStopped", "ticket", Since(Series("tastemaker_watch_timestamp_seconds"), max(10 * settings.data_seconds, 10 * MINUTE)), 0,
             "Data was not looked at for {{ $value | humanizeDuration }}."),
        Rule("WebhookFailing", "ticket", Grew(Series("tastemaker_webhook_deliveries_total", (("outcome", "failed"),)), HOUR), 0,
             "{{ $value }} calls of the alerts' webhook failed within an hour."),
    ]  # fmt: skip


def _ingestion(settings: AlertSettings) -> list[Rule]:
    rejected = Series("tastemaker_events_total", (("result", "rejected"),))
    return [
        Rule("EventsSilent", "page", Since(Series("tastemaker_last_event_timestamp_seconds"), settings.silence_seconds, Series("tastemaker_answers_total")), 0,
             "No event was accepted for {{ $value | humanizeDuration }}, though lists are asked for."),
        Rule("EventsNotStored", "page", Grew(Series("tastemaker_event_commit_failures_total"), 5 * MINUTE, 2), 0,
             "{{ $value }} batches of events could not be stored within five minutes."),
        Rule("EventsRejected", "ticket", Share(rejected, Series("tastemaker_events_total"), settings.rejected_share, (15 * MINUTE,), least=50), 5 * MINUTE,
             "{{ $value | humanizePercentage }} of the events are refused."),
        Rule("EventsSuspicious", "ticket", Above(Series("tastemaker_suspect_events_ratio"), settings.suspect_share), 2 * MINUTE,
             "{{ $value | humanizePercentage }} of the events come from users who are too fast for people."),
        Rule("FeaturesStale", "page", Either(Above(Series("tastemaker_feature_lag_seconds"), settings.lag_seconds),
                                             Above(Series("tastemaker_events_behind"), 1_000)), 2 * MINUTE,
             "Lists are made without the latest events ({{ $value }} seconds or events behind)."),
        Rule("StreamBehind", "page", Above(Series("tastemaker_stream_events_behind"), settings.stream_lag), 5 * MINUTE,
             "{{ $value }} messages of the log of events have not been stored."),
        Rule("StreamUnread", "page", Since(Series("tastemaker_stream_read_timestamp_seconds"), settings.stream_seconds), 0,
             "The log of events was not read for {{ $value | humanizeDuration }}."),
    ]  # fmt: skip


def _model(settings: AlertSettings) -> list[Rule]:
    calibration = Series("tastemaker_calibration_ratio")
    return [
        Rule("ModelStale", "ticket", Since(Series("tastemaker_model_trained_timestamp_seconds"), settings.model_days * DAY), 0,
             "The live bundle was trained {{ $value | humanizeDuration }} ago."),
        Rule("ModelNotLoaded", "page", Grew(Series("tastemaker_model_load_failures_total"), 15 * MINUTE), 0,
             "A released bundle could not be loaded; the one before answers."),
        Rule("ReleaseEnded", "ticket", Grew(Series("tastemaker_rollouts_total", (("outcome", "aborted"),)), HOUR), 0,
             "A bundle on trial was ended by itself; the live one answers everybody."),
        Rule("Miscalibrated", "ticket", Either(Above(calibration, settings.calibration), Above(calibration, 1 / settings.calibration, below=True)), 30 * MINUTE,
             "Chances of {{ $labels.head }} are {{ $value }} times what happens."),
        Rule("IndexInexact", "ticket", Above(Series("tastemaker_index_recall_ratio"), settings.recall_share, below=True), 10 * MINUTE,
             "The index finds {{ $value | humanizePercentage }} of the exact best."),
        Rule("FeaturesUnequal", "ticket", Above(Series("tastemaker_feature_equal_ratio"), settings.equal_share, below=True), 0,
             "Only {{ $value | humanizePercentage }} of the live features come out again from the journal."),
        Rule("ScoresUnequal", "ticket", Above(Series("tastemaker_score_difference_ratio"), settings.score_difference), 0,
             "Live scores differ by {{ $value | humanizePercentage }} from those that the journal gives again."),
    ]  # fmt: skip


def _data(settings: AlertSettings) -> list[Rule]:
    statistic, threshold = Series("tastemaker_drift_statistic"), Series("tastemaker_drift_threshold")
    return [
        Rule("Drift", "ticket", AboveOther(statistic, threshold, ("check",)), 5 * MINUTE,
             "{{ $labels.check }} is {{ $value }} away from what the bundle knew."),
        Rule("FeatureMissing", "ticket", Above(Series("tastemaker_feature_missing_ratio"), settings.missing_share), 5 * MINUTE,
             "{{ $value | humanizePercentage }} of the numbers of {{ $labels.feature }} are missing."),
        Rule("FeatureOutOfRange", "ticket", Above(Series("tastemaker_feature_out_of_range_ratio"), settings.range_share), 5 * MINUTE,
             "{{ $value | humanizePercentage }} of the numbers of {{ $labels.feature }} are outside what training saw."),
        Rule("ListsCollapsed", "page", Above(Series("tastemaker_top_share_ratio"), settings.top_share), 5 * MINUTE,
             "One item stands in {{ $value | humanizePercentage }} of the lists."),
        Rule("ErasurePending", "ticket", Above(Series("tastemaker_erasure_pending_seconds"), settings.erasure_days * DAY), 0,
             "Somebody was erased {{ $value | humanizeDuration }} ago, and a bundle of before still knows them."),
        Rule("AskersUnknown", "ticket", Above(Series("tastemaker_cold_askers_ratio"), settings.cold_share), 10 * MINUTE,
             "{{ $value | humanizePercentage }} of those who ask have no history."),
    ]  # fmt: skip


def prometheus(settings: AlertSettings) -> str:
    """Prometheus' rule file (YAML) of these settings."""
    lines = ["# Made by `tastemaker health --rules`: change [alerts] in tastemaker.toml, not this file.", "groups:"]
    groups = (("objectives", _objectives), ("service", _service), ("ingestion", _ingestion), ("model", _model), ("data", _data))
    for group, of in groups:
        lines += [f"  - name: tastemaker-{group}", "    rules:"]
        for rule in of(settings):
            lines += [f"      - alert: {rule.name}", f"        expr: {json.dumps(rule.condition.promql())}"]
            if rule.seconds:
                lines.append(f"        for: {duration(rule.seconds)}")
            lines += [
                "        labels:",
                f"          severity: {rule.severity}",
                "        annotations:",
                f"          summary: {json.dumps(rule.summary, ensure_ascii=False)}",
                f"          runbook: {RUNBOOKS}/{rule.name}.md",
            ]
    return "\n".join(lines) + "\n"


def _bound(seconds: float) -> str:
    """A bound of the histogram as its label reads."""
    return str(float(seconds))
