"""For each alert series that must make it fire and series that must not: told to Prometheus and to the service's own evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass

Line = tuple[str, dict[str, str], float, float]
"""Name, labels, first value, growth a step."""
HOUR, DAY = 60, 1_440


@dataclass(frozen=True)
class Case:
    """Series as straight lines.

    Attributes:
        alert: which one. fires: whether it must. lines: of the series. steps: how many. minutes: of a step.
    """

    alert: str
    fires: bool
    lines: tuple[Line, ...]
    steps: int = 30
    minutes: int = 1


def _requests(good: float, bad: float) -> tuple[Line, ...]:
    return (
        ("tastemaker_request_seconds_count", {"route": "recommend", "status": "2xx"}, 0, good),
        ("tastemaker_request_seconds_count", {"route": "events", "status": "5xx"}, 0, bad),
    )


def _latencies(fast: float, slow: float) -> tuple[Line, ...]:
    return (
        ("tastemaker_request_seconds_bucket", {"route": "recommend", "status": "2xx", "le": "0.1"}, 0, fast),
        ("tastemaker_request_seconds_bucket", {"route": "recommend", "status": "2xx", "le": "+Inf"}, 0, fast + slow),
        ("tastemaker_request_seconds_count", {"route": "recommend", "status": "2xx"}, 0, fast + slow),
        ("tastemaker_request_seconds_bucket", {"route": "put_item", "status": "2xx", "le": "0.1"}, 0, 0),
        ("tastemaker_request_seconds_count", {"route": "put_item", "status": "2xx"}, 0, 1_000),
    )


def _gauge(name: str, value: float, **labels: str) -> tuple[Line, ...]:
    return ((f"tastemaker_{name}", labels, value, 0),)


def _counter(name: str, step: float, **labels: str) -> tuple[Line, ...]:
    return ((f"tastemaker_{name}_total", labels, 0, step),)


def _drift(statistic: float, threshold: float) -> tuple[Line, ...]:
    return (
        *_gauge("drift_statistic", statistic, check="scores"),
        *_gauge("drift_threshold", threshold, check="scores"),
        *_gauge("drift_statistic", 0.3, check="prices"),
        *_gauge("drift_threshold", 0.9, check="prices"),
    )


def _pair(alert: str, wrong: tuple[Line, ...], right: tuple[Line, ...], steps: int = 30, minutes: int = 1) -> list[Case]:
    return [Case(alert, True, wrong, steps, minutes), Case(alert, False, right, steps, minutes)]


CASES: list[Case] = [
    *_pair("ErrorBudgetFast", _requests(980, 20), _requests(990, 4), 65),
    Case("ErrorBudgetFast", True, _requests(9_920, 80), 45, 10),  # 6 times over 6 hours
    Case("ErrorBudgetSlow", True, _requests(9_955, 45), 30, HOUR),
    Case("ErrorBudgetSlow", True, _requests(9_982, 18), 80, HOUR),
    Case("ErrorBudgetSlow", False, _requests(9_995, 5), 80, HOUR),
    *_pair("LatencyBudgetFast", _latencies(800, 200), _latencies(960, 40), 65),
    *_pair("LatencyBudgetSlow", _latencies(950, 50), _latencies(995, 5), 80, HOUR),
    *_pair("Degraded", _counter("degraded", 10, reason="no ranker") + _counter("answers", 100), _counter("degraded", 4, reason="no ranker") + _counter("answers", 100)),
    *_pair("ScoresNotFinite", _counter("scores_nonfinite", 1), _counter("scores_nonfinite", 0)),
    *_pair("WatchStopped", _gauge("watch_timestamp_seconds", 0), (("tastemaker_watch_timestamp_seconds", {}, 0, 60),)),
    *_pair("WebhookFailing", _counter("webhook_deliveries", 1, outcome="failed"), _counter("webhook_deliveries", 1, outcome="ok")),
    *_pair(
        "EventsSilent",
        _gauge("last_event_timestamp_seconds", 0) + _counter("answers", 5),
        (("tastemaker_last_event_timestamp_seconds", {}, 0, 60), *_counter("answers", 5)),
        70,
    ),
    Case("EventsSilent", False, _gauge("last_event_timestamp_seconds", 0) + _counter("answers", 0), 70),  # nobody is there
    *_pair("EventsNotStored", _counter("event_commit_failures", 1), _counter("event_commit_failures", 0)),
    *_pair(
        "EventsRejected",
        _counter("events", 30, result="rejected") + _counter("events", 70, result="accepted"),
        _counter("events", 10, result="rejected") + _counter("events", 90, result="accepted"),
        40,
    ),
    Case("EventsRejected", False, _counter("events", 1, result="rejected") + _counter("events", 1, result="accepted"), 40),  # too few to tell
    *_pair("EventsSuspicious", _gauge("suspect_events_ratio", 0.3), _gauge("suspect_events_ratio", 0.19)),
    *_pair("FeaturesStale", _gauge("feature_lag_seconds", 61), _gauge("feature_lag_seconds", 59) + _gauge("events_behind", 999)),
    Case("FeaturesStale", True, _gauge("events_behind", 1_001)),
    *_pair("StreamBehind", _gauge("stream_events_behind", 10_001), _gauge("stream_events_behind", 9_999)),
    *_pair("StreamUnread", _gauge("stream_read_timestamp_seconds", 0), (("tastemaker_stream_read_timestamp_seconds", {}, 0, 60),)),
    *_pair("ModelStale", _gauge("model_trained_timestamp_seconds", 0), _gauge("model_trained_timestamp_seconds", 5 * 86_400), 31, DAY),
    *_pair("ModelNotLoaded", _counter("model_load_failures", 1), _counter("model_load_failures", 0)),
    *_pair("ReleaseEnded", _counter("rollouts", 1, outcome="aborted"), _counter("rollouts", 1, outcome="live")),
    *_pair("Miscalibrated", _gauge("calibration_ratio", 2.1, head="click"), _gauge("calibration_ratio", 1.9, head="click"), 40),
    Case("Miscalibrated", True, _gauge("calibration_ratio", 0.4, head="click"), 40),
    *_pair("IndexInexact", _gauge("index_recall_ratio", 0.85), _gauge("index_recall_ratio", 0.95)),
    *_pair("FeaturesUnequal", _gauge("feature_equal_ratio", 0.9990), _gauge("feature_equal_ratio", 1.0)),
    *_pair("ScoresUnequal", _gauge("score_difference_ratio", 0.002), _gauge("score_difference_ratio", 0.0005)),
    *_pair("ErasurePending", _gauge("erasure_pending_seconds", 26 * 86_400.0), _gauge("erasure_pending_seconds", 24 * 86_400.0)),
    *_pair("Drift", _drift(0.31, 0.3), _drift(0.29, 0.3)),
    *_pair("FeatureMissing", _gauge("feature_missing_ratio", 0.02, feature="price"), _gauge("feature_missing_ratio", 0.005, feature="price")),
    *_pair("FeatureOutOfRange", _gauge("feature_out_of_range_ratio", 0.3, feature="price"), _gauge("feature_out_of_range_ratio", 0.1, feature="price")),
    *_pair("ListsCollapsed", _gauge("top_share_ratio", 0.9), _gauge("top_share_ratio", 0.4)),
    *_pair("AskersUnknown", _gauge("cold_askers_ratio", 0.95), _gauge("cold_askers_ratio", 0.6)),
]  # fmt: skip


def value_at(line: Line, step: int) -> float:
    """Of a series after so many steps."""
    return line[2] + line[3] * step
