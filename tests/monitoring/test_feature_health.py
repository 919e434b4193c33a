"""Features of a window: those of the catalogue against the bundle's, those that remember what happened against the hour before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.sampled import Sampled
from tastemaker.monitoring.drift import Bins, Drift
from tastemaker.monitoring.feature_health import FRESH_SLOT, NOWHERE, FeatureHealth, FeatureReference
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.settings import AlertSettings

HOUR, USERS, PLACES = 3_600.0, 150, 6
Values = Callable[[np.random.Generator, float], NDArray[np.float64]]


def counts(random: np.random.Generator, hour: float) -> NDArray[np.float64]:
    """Logarithms of counts that grow by a quarter an hour, those of the popular items faster."""
    return np.log1p(random.poisson(3.0 * 1.25 ** (hour * np.linspace(1.0, 2.2, PLACES))))


def prices(random: np.random.Generator, hour: float) -> NDArray[np.float64]:
    return random.normal(10.0, 2.0, PLACES)


def run(
    reference: FeatureReference, values: Values, hours: float, seed: int = 0
) -> tuple[list[Drift], dict[str, float | None], FeatureHealth]:
    """What is looked at every ten minutes; the figures at the end."""
    metrics, random, looks = Metrics(), np.random.default_rng(seed), list[Drift]()
    health = FeatureHealth(AlertSettings(drift_rows=50), metrics)
    health.begin({"x": reference})
    for step in range(int(6 * hours)):
        for number in range(USERS // 6):
            add(health, f"u{step % 6 * (USERS // 6) + number}", 600.0 * step, values(random, step / 6))
        looks += health.look(600.0 * step)
    samples = metrics.samples()
    figures = {name: samples.get((f"tastemaker_feature_{name}_ratio", (("feature", "x"),))) for name in ("missing", "out_of_range")}
    return looks, figures, health


def add(health: FeatureHealth, user: str, now: float, column: NDArray[np.float64], source: str = "text") -> None:
    health.shown(
        Sampled(
            request_id="r", user_id=user, time=now, moment=now, model_version="v", known=1, items=["i"] * len(column),
            scores=[1.0] * len(column), sources=[source] * len(column), names=["x"], values=[[float(one)] for one in column],
        )
    )  # fmt: skip


def lists(values: Values, seed: int = 1) -> FeatureReference:
    """As the bundle has it at the beginning."""
    random = np.random.default_rng(seed)
    table = np.stack([values(random, 0.0) for _ in range(500)])
    return FeatureReference(float(table.min()), float(table.max()), Bins.of(table - table.mean(axis=1, keepdims=True)))


def test_counts_that_grow_are_no_drift_and_in_range() -> None:
    fixed = lists(counts)
    looks, figures, _ = run(FeatureReference(fixed.low, fixed.high), counts, 12)
    assert len(looks) > 50
    assert not [one for one in looks if one.found]
    assert figures["out_of_range"] == 0
    told, figures, _ = run(fixed, counts, 12)  # with the order of things at the release for ever, it would be
    assert told[-1].found
    assert (figures["out_of_range"] or 0) > 0.2


@pytest.mark.parametrize(
    ("broken", "strange"),
    [
        (lambda random, hour: np.zeros(PLACES), False),  # lost
        (lambda random, hour: 1e3 * counts(random, hour), True),  # another unit
    ],
)
def test_a_memory_that_breaks_is_drift_within_the_hour(broken: Values, strange: bool) -> None:
    fixed = lists(counts)
    values: Values = lambda random, hour: (broken if hour >= 4 else counts)(random, hour)  # noqa: E731
    looks, figures, _ = run(FeatureReference(fixed.low, fixed.high), values, 4)
    assert not [one for one in looks if one.found]
    looks, figures, _ = run(FeatureReference(fixed.low, fixed.high), values, 5)
    assert looks[-1].found
    assert (figures["out_of_range"] or 0) == pytest.approx(0.9 if strange else 0, abs=0.11)


def test_the_hour_before_is_no_longer_than_that() -> None:
    lost: Values = lambda random, hour: np.zeros(PLACES) if hour >= 3 else counts(random, hour)  # noqa: E731
    looks, _, _ = run(FeatureReference(0.0, 9.0), lost, 7)
    told = [place for place, one in enumerate(looks) if one.found]
    assert 6 <= len(told) <= 12
    assert told[-1] < len(looks) - 6, "it is over"


def test_what_remembers_nothing_is_compared_with_the_bundle_for_ever() -> None:
    dearer: Values = lambda random, hour: prices(random, hour) * (1.0 + hour)  # noqa: E731
    assert not [one for one in run(lists(prices), prices, 3)[0] if one.found]
    assert run(lists(prices), dearer, 12)[0][-1].found, "the hour before was dear as well"


def test_where_no_range_is_known_none_is_told() -> None:
    read = lists(prices).read
    assert run(FeatureReference(*NOWHERE, read), prices, 2)[1] == {"missing": 0.0, "out_of_range": None}


def test_two_hours_alike_differ_by_chance_alone() -> None:
    """Both are samples of people: what one of them is worth counts on either side."""
    found = looked = 0
    for seed in range(15):
        random = np.random.default_rng(seed)
        health = FeatureHealth(AlertSettings(drift_rows=20, drift_effect=0.0, drift_chance=0.01), Metrics())
        health.begin({"x": FeatureReference(0.0, 1.0)})
        for hour in range(9):
            for number in range(60):
                add(health, f"u{number}", hour * HOUR, random.normal() * np.array([1.0] * 9 + [-9.0]))
            told = health.look(hour * HOUR + 1)
            looked += len(told)
            found += sum(one.found for one in told)
    assert looked == 15 * 8
    assert found <= 6  # the 99.9th percentile of 120 looks at one in a hundred


def test_a_new_bundle_and_other_features_begin_anew() -> None:
    _, _, health = run(lists(counts), counts, 2)
    now = 2 * HOUR
    health.begin({"x": FeatureReference(0.0, 1.0)})
    assert health.look(now) == []
    for number in range(100):
        add(health, f"u{number}", now, np.zeros(4), source=FRESH_SLOT)
    assert health.look(now) == [], "the fresh slot is not compared"


def test_features_know_whether_they_remember() -> None:
    features = FeatureSet.declared(["price", "item_events", "time_of_day", "text_match", "user_item", "item_text"])
    remembers = dict(zip(features.names, features.remembering.tolist(), strict=True))
    assert {name.split(".")[0] for name, one in remembers.items() if one} == {"item_events", "text_match", "user_item"}
    assert {name.split(".")[0] for name, one in remembers.items() if not one} == {"price", "time_of_day", "item_text"}
