"""Drift: chance stays below the threshold at every sample size, true changes do not; streams and the matrix of faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from monitoring_faults import FAULTS
from tastemaker.monitoring import drift
from tastemaker.monitoring.changes import PageHinkley
from tastemaker.monitoring.drift import Bins
from tastemaker.monitoring.feature_health import within
from watched_world import World


@pytest.mark.parametrize("rows", [100, 400, 3_000])
def test_chance_is_no_drift_whatever_the_sample(rows: int) -> None:
    random = np.random.default_rng(rows)
    reference = Bins.of(random.normal(size=20_000))
    assert reference is not None
    looks = [drift.numbers("x", reference, random.normal(size=rows).tolist(), range(rows), 0.0, 0.01) for _ in range(400)]
    assert sum(look.found for look in looks) <= stats.binom.ppf(0.999, 400, 0.01)  # the effect is 0: chance alone decides
    shifted = drift.numbers("x", reference, random.normal(1.0, size=rows).tolist(), range(rows), 0.15, 1e-4)
    assert shifted.found
    assert shifted.statistic == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=0.1)  # total variation of two normals, exactly


def test_a_small_change_does_not_matter_however_sure() -> None:
    random = np.random.default_rng(0)
    reference = Bins.of(random.normal(size=200_000))
    assert reference is not None
    values, owners = random.normal(0.2, size=100_000).tolist(), range(100_000)
    assert not drift.numbers("x", reference, values, owners, 0.15, 1e-4).found
    assert drift.numbers("x", reference, values, owners, 0.0, 1e-4).found


def test_rows_of_one_user_are_not_many() -> None:
    assert drift.independent(["a", "b", "c"]) == 3
    assert drift.independent(["a"] * 100) == 1
    assert drift.independent(["a"] * 50 + [str(number) for number in range(50)]) == pytest.approx(100**2 / (50**2 + 50))


def test_names_and_an_unseen_one() -> None:
    same = drift.names("x", {"view": 900.0, "buy": 100.0}, 0.0, ["view"] * 90 + ["buy"] * 10, range(100), 0.1, 1e-4)
    assert same.statistic == pytest.approx(0)
    new = drift.names("x", {"view": 900.0, "buy": 100.0}, 0.0, ["tap"] * 100, range(100), 0.1, 1e-4)
    assert (new.statistic, new.found) == (1.0, True)


def test_vectors() -> None:
    random = np.random.default_rng(0)
    known = random.normal(size=(500, 16))
    assert not drift.vectors("x", known, random.normal(size=(30, 16)), 1e-4).found
    dead = drift.vectors("x", known, np.full((30, 16), 2.0), 1e-4)
    assert dead.found
    assert dead.statistic > 0.9


def test_within_a_list_rounding_is_no_difference() -> None:
    found = within(np.array([[1e6, 1.0], [1e6 + 1e-3, 3.0]]))
    assert (found == [[0, -1], [0, 1]]).all()


def test_a_stream_that_changes_and_one_that_does_not() -> None:
    random = np.random.default_rng(0)
    stream = PageHinkley()
    for value in random.binomial(10, 0.05, size=50_000) / 10:
        stream.add(float(value))
    assert not stream.changed
    spent = 0
    while not stream.changed and spent < 5_000:
        stream.add(float(random.binomial(10, 0.08)) / 10)
        spent += 1
    assert spent < 1_000
    stream.reset()
    assert not stream.changed


def test_planted_faults_are_told_and_nothing_before(tmp_path: Path) -> None:
    with World(tmp_path / "world", rate=0.25, warm=1_200) as world:
        assert world.run(600) == {}
        for name in ("unit change", "NaN scores"):
            plant, expected = FAULTS[name]
            plant(world)
            fired = world.run(1_500 if name == "unit change" else 120)
            assert expected & fired.keys(), (name, fired)
