"""Counters and histograms by Prometheus' conventions; correct with many workers; no ids in labels.

Counters and histograms of all workers are added up. Figures of a moment are those of the worker that watches (`live` modes: a dead worker's are
forgotten); such a gauge is made when it is first set, as one that only exists would read 0 and look like a measurement.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds. The objective of latency must be one of them: what is between two bounds can't be told."""
STAGE_BUCKETS = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
SCORE_BUCKETS = (-20.0, -15.0, -10.0, -7.0, -5.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
POSITIONS = ((1, "1"), (3, "2-3"), (5, "4-5"), (10, "6-10"), (20, "11-20"))
MOST_VALUES = 32
"""Different values that a label may have whose values are not known beforehand; all further ones are called `other`."""

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tastemaker_drift_statistic": ("How far data of now is from the reference, by check.", ("check",)),
    "tastemaker_drift_threshold": ("What the statistic reaches by chance in a sample of this size, and the least change that matters.", ("check",)),
    "tastemaker_drift_rows": ("Independent rows behind the statistic.", ("check",)),
    "tastemaker_feature_missing_ratio": ("Share of the sampled numbers of a feature that are not finite.", ("feature",)),
    "tastemaker_feature_out_of_range_ratio": ("Share of a feature's sampled numbers outside what training saw.", ("feature",)),
    "tastemaker_feature_equal_ratio": ("Share of sampled live features that a replay of the journal gives again.", ()),
    "tastemaker_index_recall_ratio": ("Share of the exact best that the index found, in sampled requests.", ()),
    "tastemaker_calibration_ratio": ("Chances told over what happened, by head, against the same just after the release.", ("head",)),
    "tastemaker_catalogue_coverage_ratio": ("Share of the catalogue in some sampled list of the window.", ()),
    "tastemaker_exposure_gini_ratio": ("How unequally places are shared among the items that are shown.", ()),
    "tastemaker_top_share_ratio": ("Share of the sampled lists in which the most shown item stands.", ()),
    "tastemaker_novelty_bits": ("Mean self-information of a sampled place.", ()),
    "tastemaker_repeat_ratio": ("Share of the places of a user's list that were in the list before.", ()),
    "tastemaker_cold_askers_ratio": ("Share of the sampled requests by somebody without a history.", ()),
    "tastemaker_first_impression_seconds": ("Median time until a new item was first shown in a sampled list.", ()),
    "tastemaker_suspect_events_ratio": ("Share of the events of the window by users who were too fast for people.", ()),
    "tastemaker_feature_lag_seconds": ("How much older the latest event is that features know than the latest in the journal.", ()),
    "tastemaker_events_behind": ("Events in the journal that have not been folded.", ()),
    "tastemaker_watch_timestamp_seconds": ("When data was last looked at.", ()),
    "tastemaker_rollout_share_ratio": ("Share of the users who are answered by the bundle on trial; 0 in the shadow and where none is.", ()),
    "tastemaker_rollout_stage_info": ("1 while a bundle on trial is in this stage.", ("stage",)),
    "tastemaker_rollout_overlap_ratio": ("Mean share of the live top 10 in that of the bundle in the shadow.", ()),
    "tastemaker_rollout_taken_ratio": ("Share of the lists of a trial of which something was taken, by variant.", ("variant",)),
    "tastemaker_erasures_pending": ("People who were erased and whom a file or a bundle of before still knows.", ()),
    "tastemaker_erasure_pending_seconds": ("For how long the oldest of them has been pending.", ()),
    "tastemaker_score_difference_ratio": ("Mean difference of sampled live scores and of those that a replay of the journal gives, relative to the live ones.", ()),
    "tastemaker_alert_firing": ("1 while an alert fires, by the service's own evaluation.", ("alert", "severity")),
}  # fmt: skip
"""Figures of a moment: help and labels by name."""
STREAM_GAUGES = {
    "tastemaker_stream_events_behind": ("Messages of the log of events that are not stored.", "livesum"),
    "tastemaker_stream_read_timestamp_seconds": ("When the log of events was last read.", "livemax"),
}
"""Of workers that read a log of events: help, and how the figures of several workers become one."""


class Metrics:
    """What the service counts."""

    def __init__(self) -> None:
        self._version = ""
        self._many = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry = CollectorRegistry()
        self._into = None if self._many else self._registry
        self._gauges: dict[str, Gauge] = {}
        self._known: dict[str, set[str]] = {}
        self._seconds = self._histogram("request_seconds", "Time to answer, whatever the status.", ("route", "status"), BUCKETS)
        self._statuses = self._counter("requests_total", "Requests by exact status.", "route", "status")
        self._busy = Gauge("tastemaker_requests_in_flight", "Requests under way.", registry=self._into, multiprocess_mode="livesum")
        self._rejected = self._counter("requests_rejected_total", "Requests that were not let in.", "reason")
        self._stages = self._histogram("stage_seconds", "Time of a stage of the request road.", ("stage",), STAGE_BUCKETS)
        self._of_stage: dict[str, Histogram] = {}
        self._answers = self._counter("answers_total", "Lists that were answered.")
        self._degraded = self._counter("degraded_total", "Lists from which load or a fault took something away.", "level")
        self._missing = self._counter("degraded_parts_total", "What was missing in lists.", "part", "why")
        self._impressions = self._counter("impressions_total", "Places of the lists answered.", "source", "position")
        self._scores = self._histogram("score", "Scores of the lists' best items.", (), SCORE_BUCKETS)
        self._broken = self._counter("scores_nonfinite_total", "Scores that are no numbers.")
        self._events = self._counter("events_total", "Events by what became of them.", "result")
        self._commit = self._histogram("event_commit_seconds", "Time until events were durable.", (), BUCKETS)
        self._failures = self._counter("event_commit_failures_total", "Batches of events that could not be stored.")
        self._clicks = self._counter("clicks_total", "Events that answer a sampled impression.", "source", "position")
        self._shown = self._counter("sampled_impressions_total", "Places of the sampled lists.", "source", "position")
        self._refused = self._counter("model_load_failures_total", "Released bundles that could not be loaded.")
        self._webhook = self._counter("webhook_deliveries_total", "Calls of the alerts' webhook by outcome.", "outcome")
        self._relayed = self._counter("peer_rows_total", "Events and items sent to and received from other machines.", "way")
        self._tried = self._histogram("variant_seconds", "Time of the lists of a trial.", ("variant",), BUCKETS)
        self._trials = self._counter("variant_lists_total", "Lists of a trial by what became of them.", "variant", "outcome")
        self._rollouts = self._counter("rollouts_total", "Stages of releases that ended, by how.", "outcome")
        self._peers: Callable[[], bool] | None = None
        self._pairs: dict[tuple[str, int], tuple[Histogram, Counter]] = {}
        self._results: dict[str, Counter] = {}
        self._places: dict[tuple[str, str], Counter] = {}
        self._last_event: Gauge | None = None

    def tried(self, variant: str, seconds: float, outcome: str) -> None:
        """A list of a trial: `canary`, `control` or `shadow`; `ok`, `degraded` or `failed`."""
        self._tried.labels(variant).observe(seconds)
        self._trials.labels(variant, outcome).inc()

    def rolled(self, outcome: str) -> None:
        """A stage of a release ended: `passed`, `live` or `aborted`."""
        self._rollouts.labels(outcome).inc()

    def relayed(self, sent: int, received: int) -> None:
        """Rows that went to other machines and came from them."""
        self._relayed.labels("sent").inc(sent)
        self._relayed.labels("received").inc(received)

    def follow_peers(self, alive: Callable[[], bool]) -> None:
        """Whom to ask whether other machines can be heard."""
        self._peers = alive

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One request; the histogram tells classes of statuses, the counter each."""
        pair = self._pairs.get((route, status))
        if pair is None:
            pair = self._seconds.labels(route, f"{status // 100}xx"), self._statuses.labels(route, str(status))
            self._pairs[route, status] = pair
        pair[0].observe(seconds)
        pair[1].inc()

    def begins(self) -> None:
        """A request is under way, until `ends`."""
        self._busy.inc()

    def ends(self) -> None:
        """It is not any more."""
        self._busy.dec()

    def rejected(self, reason: str) -> None:
        """A request that was not let in."""
        self._rejected.labels(self._bounded("reason", reason)).inc()

    def stage(self, name: str, seconds: float) -> None:
        """One stage of the road."""
        if name not in self._of_stage:
            self._of_stage[name] = self._stages.labels(name)
        self._of_stage[name].observe(seconds)

    def answered(self, sources: Sequence[str], scores: Sequence[float]) -> None:
        """One list, the top first."""
        self._answers.inc()
        broken = 0 if math.isfinite(sum(scores)) else sum(not math.isfinite(score) for score in scores)
        if broken:
            self._broken.inc(broken)
        if scores and math.isfinite(scores[0]):
            self._scores.observe(scores[0])
        counts: dict[tuple[str, str], int] = {}
        for pair in zip(sources, _buckets(len(sources)), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
        for pair, count in counts.items():
            counter = self._places.get(pair)
            if counter is None:
                counter = self._impressions.labels(self._bounded("source", pair[0]), pair[1])
                if len(self._places) < MOST_VALUES:
                    self._places[pair] = counter
            counter.inc(count)

    def events(self, accepted: int, duplicates: int, rejected: int) -> None:
        """One batch of events."""
        for result, count in (("accepted", accepted), ("duplicate", duplicates), ("rejected", rejected)):
            if count:
                if result not in self._results:
                    self._results[result] = self._events.labels(result)
                self._results[result].inc(count)

    def degraded(self, level: int, words: Sequence[str]) -> None:
        """One list from which something was taken away: its rung of the ladder, and what was missing, as in `source text: late`."""
        self._degraded.labels(str(level)).inc()
        for word in words:
            part, _, why = word.partition(": ")
            self._missing.labels(self._bounded("part", part), self._bounded("why", why)).inc()

    def commit(self, seconds: float, now: float) -> None:
        """A batch of events is durable; `now` in epoch seconds."""
        self._commit.observe(seconds)
        if self._last_event is None:
            self._last_event = self._gauge(
                "tastemaker_last_event_timestamp_seconds", "When an event was last accepted.", (), "livemax"
            )
        self._last_event.set(now)

    def stream(self, lag: int, now: float) -> None:
        """The log of events was read: messages of this worker's partitions that are not stored; `now` in epoch seconds. Workers and machines add up."""
        for (name, (words, mode)), value in zip(STREAM_GAUGES.items(), (lag, now), strict=True):
            self._gauge(name, words, (), mode).set(value)

    def commit_failed(self) -> None:
        """A batch of events could not be stored."""
        self._failures.inc()

    def sampled(self, sources: Sequence[str]) -> None:
        """One sampled list, the top first."""
        for place, source in enumerate(sources, 1):
            self._shown.labels(self._bounded("source", source), position(place)).inc()

    def click(self, source: str, place: int) -> None:
        """An event answered a place (1 is the top) of a sampled list."""
        self._clicks.labels(self._bounded("source", source), position(place)).inc()

    def model(self, version: str, items: int, trained: float | None = None, loaded: float | None = None) -> None:
        """Which bundle answers, from how many items, and when it was trained and loaded (epoch seconds)."""
        info = self._gauge("tastemaker_model_info", "The live bundle.", ("version",), "livemax")
        if self._version not in ("", version):
            info.labels(self._version).set(0)
        self._version = version
        info.labels(version).set(1)
        self._gauge("tastemaker_index_items", "Items in the index.", (), "livemax").set(items)
        for name, words, when in (
            ("trained", "When the live bundle was trained.", trained),
            ("loaded", "When the live bundle was loaded.", loaded),
        ):
            if when is not None:
                self._gauge(f"tastemaker_model_{name}_timestamp_seconds", words, (), "livemostrecent").set(when)

    def load_failed(self) -> None:
        """A released bundle could not be loaded."""
        self._refused.inc()

    def delivered(self, outcome: str) -> None:
        """One call of the webhook: `ok` or `failed`."""
        self._webhook.labels(outcome).inc()

    def set(self, name: str, value: float, **labels: str) -> None:
        """A figure of this moment, of `GAUGES`."""
        words, names = GAUGES[name]
        found = self._gauge(name, words, names, "livemostrecent")
        (found.labels(*(self._bounded(name + key, labels[key], 100) for key in names)) if names else found).set(value)

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every series of all workers: name and sorted labels to value."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._all().collect()
            for sample in family.samples
        }

    def text(self) -> bytes:
        """All figures, of all workers, in Prometheus' text format."""
        if self._peers is not None:
            self._gauge("tastemaker_peers_up", "1 while other machines can be heard.", (), "livemin").set(self._peers())
        return generate_latest(self._all())

    def _all(self) -> CollectorRegistry:
        if not self._many:
            return self._registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"tastemaker_{name}", words, labels, registry=self._into)

    def _histogram(self, name: str, words: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        return Histogram(f"tastemaker_{name}", words, labels, buckets=buckets, registry=self._into)

    def _gauge(self, name: str, words: str, labels: Sequence[str], mode: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, words, labels, registry=self._into, multiprocess_mode=mode)  # type: ignore[arg-type]
        return self._gauges[name]

    def _bounded(self, label: str, value: str, most: int = MOST_VALUES) -> str:
        """The value, or `other` where the label has too many already."""
        known = self._known.setdefault(label, set())
        if value not in known:
            if len(known) >= most:
                return "other"
            known.add(value)
        return value


Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@cache
def position(place: int) -> str:
    """The bucket of a place in a list; 1 is the top."""
    return next((name for last, name in POSITIONS if place <= last), "21+")


@cache
def _buckets(count: int) -> tuple[str, ...]:
    """Those of the places of a list of so many."""
    return tuple(position(place) for place in range(1, count + 1))


def share_between_workers(folder: Path) -> None:
    """Prepares a folder in which workers share their figures; call it before workers start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def forget_worker(process: int) -> None:
    """Takes a dead worker's momentary figures out; what it counted stays."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(process)  # type: ignore[no-untyped-call]
