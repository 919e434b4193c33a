"""The figures of a window, one by one: what counts, what is left out, and what a new bundle forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tastemaker.journal.sampled import Sampled
from tastemaker.monitoring.changes import PageHinkley
from tastemaker.monitoring.conditions import Above, History, Series, Share, Since
from tastemaker.monitoring.drift import Bins, distance, independent, names, numbers
from tastemaker.monitoring.feature_health import FRESH_SLOT, FeatureReference
from tastemaker.monitoring.health import PATIENCE, Health, Reference
from tastemaker.monitoring.metrics import MOST_VALUES, Metrics
from tastemaker.schema.events import Event
from tastemaker.schema.settings import AlertSettings

SETTINGS = AlertSettings(drift_rows=20)


def shown(number: int, items: list[str], now: float = 1_000.0, **changed: object) -> Sampled:
    told = {"scores": [1.0] * len(items), "sources": ["text"] * len(items), "known": 3, **changed}
    return Sampled(request_id=f"r{number}", user_id=f"u{number}", time=now, moment=now, model_version="v", items=items, **told)  # type: ignore[arg-type]


def event(number: int, item: str, **changed: object) -> Event:
    return Event(user_id=f"u{number}", item_id=item, timestamp=1_000.0, event_type="click", request_id=f"r{number}", **changed)  # type: ignore[arg-type]


def figure(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.samples().get((f"tastemaker_{name}", tuple(sorted(labels.items()))))


def made(reference: Reference | None = None) -> tuple[Health, Metrics]:
    metrics = Metrics()
    health = Health(SETTINGS, metrics, bot_events_per_minute=60)
    health.begin(reference or Reference())
    return health, metrics


def test_a_place_is_taken_once_and_only_by_its_own_list() -> None:
    health, metrics = made()
    health.shown(shown(1, ["a", "b"]))
    for item in ("b", "b", "c"):
        health.event(event(1, item), 1_001.0)
    health.event(event(2, "a"), 1_001.0)
    assert figure(metrics, "clicks_total", source="text", position="2-3") == 1
    assert figure(metrics, "clicks_total", source="text", position="1") is None


def test_repeats_strangers_and_what_one_item_takes() -> None:
    health, metrics = made()
    for number in range(40):
        health.shown(shown(number % 20, ["a", f"b{number % 20}"], 1_000.0 + number, known=0 if number < 10 else 1))
    health.look(1_100.0)
    assert figure(metrics, "repeat_ratio") == 1
    assert figure(metrics, "cold_askers_ratio") == pytest.approx(0.25)
    assert figure(metrics, "top_share_ratio") == pytest.approx(1.0)


def test_the_window_ends_and_a_new_bundle_begins_anew() -> None:
    wanted = Reference(exposures={"a": 50.0, "b": 50.0}, items=2)
    health, metrics = made(wanted)
    for number in range(60):
        health.shown(shown(number, ["c"]))
    [drift] = [one for one in health.look(1_001.0) if one.check == "exposures"]
    assert drift.found
    health.begin(wanted)
    assert "exposures" not in [one.check for one in health.look(1_002.0)]
    for number in range(60):
        health.shown(shown(number, ["a"]))
    assert "exposures" not in [one.check for one in health.look(1_001.0 + SETTINGS.window_seconds)]
    assert figure(metrics, "watch_timestamp_seconds") == 1_001.0 + SETTINGS.window_seconds


def test_places_of_the_fresh_slot_are_no_drift() -> None:
    health, _ = made(Reference(exposures={"a": 50.0, "b": 50.0}, items=2))
    for number in range(200):
        health.shown(shown(number, ["ab"[number % 2], "new"], sources=["text", FRESH_SLOT]))
    [drift] = [one for one in health.look(1_001.0) if one.check == "exposures"]
    assert (drift.statistic, drift.found) == (pytest.approx(0), False)


def test_features_that_are_missing_or_strange_on_either_side() -> None:
    bins = Bins.of(np.linspace(-0.5, 0.5, 100))
    assert bins is not None
    health, metrics = made(Reference(features={"price": FeatureReference(0.0, 1.0, bins)}))
    for number in range(50):
        health.shown(shown(number, ["a", "b", "c", "d"], names=["price"], values=[[0.5], [-5.0], [None], [7.0]]))
    health.look(1_001.0)
    assert figure(metrics, "feature_missing_ratio", feature="price") == pytest.approx(0.25)
    assert figure(metrics, "feature_out_of_range_ratio", feature="price") == pytest.approx(2 / 3)


def test_features_of_the_fresh_slot_are_no_drift() -> None:
    bins = Bins.of(np.tile([-0.5, 0.5], 100))
    assert bins is not None
    health, _ = made(Reference(features={"events": FeatureReference(0.0, 9.0, bins)}))
    for number in range(100):
        health.shown(
            shown(number, ["a", "b", "new"], sources=["text", "text", FRESH_SLOT], names=["events"], values=[[7.0], [8.0], [0.0]])
        )
    [drift] = [one for one in health.look(1_001.0) if one.check == "feature:events"]
    assert (drift.statistic, drift.found) == (pytest.approx(0), False)


def test_who_is_too_fast_is_suspicious() -> None:
    health, metrics = made()
    for number in range(70):
        health.event(event(0, "a"), 1_020.0 + number % 10)
    for number in range(1, 31):
        health.event(event(number, "a"), 1_020.0)
    health.look(1_050.0)
    assert figure(metrics, "suspect_events_ratio") == pytest.approx(0.7)


def test_lag_is_the_age_of_what_a_list_did_not_know() -> None:
    health, _ = made()
    for position, now in ((10, 100.0), (20, 200.0), (20, 220.0), (30, 300.0)):
        health.mark(position, now)
    assert [health.lag(shown(0, ["a"], now, position=position)) for position, now in ((10, 150.0), (10, 260.0), (20, 299.0), (30, 900.0))] == [
        0, 60, 0, 0,
    ]  # fmt: skip


def test_calibration_is_told_against_the_first_one() -> None:
    health, metrics = made()
    for chance, begin in ((0.5, 1_000.0), (1.0, 100_000.0)):
        for number in range(100):
            health.shown(shown(number, ["a"], begin, chances={"click": [chance]}))
            health.event(event(number, "a"), begin + 1)
        health.look(begin + PATIENCE + 1)
        assert figure(metrics, "calibration_ratio", head="click") == pytest.approx(chance / 0.5)


def test_labels_are_bounded_and_scores_that_are_none_are_counted() -> None:
    metrics = Metrics()
    for number in range(MOST_VALUES + 10):
        metrics.answered([f"source {number}"], [math.nan if number == 0 else 1.0])
    found = {dict(labels)["source"] for name, labels in metrics.samples() if name == "tastemaker_impressions_total"}
    assert len(found) == MOST_VALUES + 1
    assert "other" in found
    assert figure(metrics, "scores_nonfinite_total") == 1
    assert figure(metrics, "score_count") == MOST_VALUES + 9
    metrics.model("one", 10)
    metrics.model("two", 10)
    assert (figure(metrics, "model_info", version="one"), figure(metrics, "model_info", version="two")) == (0, 1)


def test_streams_change_downwards_too_and_bear_holes() -> None:
    stream = PageHinkley(warm=50)
    for number in range(400):
        stream.add(1.0 + 0.1 * (-1) ** number)
        stream.add(math.nan)
    assert not stream.changed
    for _ in range(400):
        stream.add(0.8)
    assert stream.changed


def test_conditions_without_traffic_and_at_their_limits() -> None:
    part, whole, moment = Series("part"), Series("whole"), Series("moment")
    history = History([part, whole])
    for step in range(10):
        history.add({("part", ()): 0.0, ("whole", ()): 0.0, ("moment", ()): 10.0}, 60.0 * step)
    assert Share(part, whole, 0.5, (300.0,)).wrong(history) == []
    assert Since(moment, 600.0).wrong(history) == []
    assert Since(moment, 500.0).wrong(history) == [({}, 530.0)]
    assert Above(moment, 9.0).wrong(history)
    assert not Above(moment, 9.0, below=True).wrong(history)
    for step in range(10, 40):  # a while of faults, then none: the short window is over, the long one is not
        history.add({("part", ()): min(step, 20) * 1.0, ("whole", ()): 1.0 * step}, 60.0 * step)
    assert Share(part, whole, 0.2, (1_800.0,)).wrong(history)
    assert Share(part, whole, 0.2, (1_800.0, 300.0)).wrong(history) == []


def test_a_threshold_is_no_lower_than_chance_and_rows_of_one_owner_are_few() -> None:
    reference = Bins.of(np.random.default_rng(0).normal(size=5_000))
    assert reference is not None
    few = numbers("x", reference, [0.0] * 30, [0] * 30, 0.0, 1e-4)
    assert few.rows == 1
    assert few.threshold > 0.9, "one row says nothing"
    assert independent(["a", "a", "b"]) == pytest.approx(9 / 5)
    assert distance(np.array([1.0, 1.0]), np.array([0.0, 0.0])) == 0
    assert names("x", {"a": 10.0, "b": 90.0}, 0.0, ["c"] * 10, range(10), 0.1, 1e-4).statistic == 1
