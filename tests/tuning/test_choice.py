"""The simplest of those that chance alone put behind."""

from __future__ import annotations

import numpy as np
import pytest
from planted import make_folds

from tastemaker.schema.errors import SettingsError, TastemakerError
from tastemaker.schema.settings import TuneSettings
from tastemaker.tuning.choice import choose
from tastemaker.tuning.trials import COMPLETE, PRUNED, Trial, clustered_error, gap_of

FOLDS = make_folds(3, 200)


def trial(number: int, mean: float, size: int, wobble: float = 0.0, state: str = COMPLETE, latency: float = 1.0) -> Trial:
    """A trial whose gains are the same noise for all, and `wobble` of its own."""
    gains = []
    for fold in range(3):
        shared, own = np.random.default_rng(fold).random(200), np.random.default_rng([number, fold]).standard_normal(200)
        own -= own.mean()  # so that the mean is as planted
        gains.append((0.2 * shared + mean - 0.1 + wobble * own).astype(np.float32))
    facts = [{"parameters": float(size), "latency": latency, "seconds": 1.0}] * 3
    return Trial(number, {"sequence.dim": size}, state, gains, facts)


def test_the_simpler_one_is_taken_where_the_best_is_better_by_chance_only() -> None:
    trials = [trial(0, 0.30, 1_000), trial(1, 0.400, 4_000, 0.2), trial(2, 0.398, 500, 0.2), trial(3, 0.38, 100)]
    gap, error = gap_of(trials[1], trials[2], FOLDS)
    assert 0 < gap < error, "the toy must have a best one whose lead is within one error"
    found = choose(trials, FOLDS, TuneSettings())
    assert (found.best.number, found.chosen.number) == (1, 2)
    assert found.alike == [1, 2]
    assert "Trial 2 (0.4013) is the simplest" in found.words
    assert found.gain.low > 0
    assert choose(trials, FOLDS, TuneSettings(rule="best")).chosen.number == 1


def test_a_small_but_sure_lead_is_no_chance() -> None:
    """Paired: the same noise of both cancels out, where each mean alone has a wide error."""
    trials = [trial(0, 0.30, 1_000), trial(1, 0.400, 4_000), trial(2, 0.398, 500)]
    assert choose(trials, FOLDS, TuneSettings()).chosen.number == 1
    assert choose(trials, FOLDS, TuneSettings(rule="folds")).chosen.number == 2


def test_costs_that_are_alike_do_not_decide_and_a_change_must_earn_its_place() -> None:
    near = [trial(0, 0.30, 1_000), trial(1, 0.400, 1_000, 0.2), trial(2, 0.398, 980, 0.2)]
    assert choose(near, FOLDS, TuneSettings()).chosen.number == 1
    stays = [trial(0, 0.398, 1_000, 0.2), trial(1, 0.400, 1_000, 0.2)]
    found = choose(stays, FOLDS, TuneSettings())
    assert found.chosen.number == 0
    assert "they stay" in found.words
    assert (found.gain.mean, found.gain.low, found.gain.high) == (0.0, 0.0, 0.0)


def test_latency_may_be_the_cost_and_a_set_may_bound_the_choice() -> None:
    trials = [
        trial(0, 0.30, 1_000),
        trial(1, 0.400, 4_000, 0.2, latency=9.0),
        trial(2, 0.398, 500, 0.2, latency=5.0),
        trial(3, 0.397, 900, 0.2, latency=2.0),
        trial(4, 0.5, 1, 0.0, PRUNED),
    ]
    assert choose(trials, FOLDS, TuneSettings(cost="latency")).chosen.number == 3
    assert choose(trials, FOLDS, TuneSettings(cost="latency"), among=[1, 2]).chosen.number == 2
    assert choose(trials, FOLDS, TuneSettings()).best.number == 1, "a pruned trial is not chosen"


def test_the_error_counts_users_not_questions() -> None:
    random = np.random.default_rng(0)
    values, users = random.standard_normal(4_000), np.arange(4_000)
    assert clustered_error(values, users) == pytest.approx(values.std(ddof=1) / 4_000**0.5, rel=1e-6)
    repeated = np.repeat(values[:400], 10)
    assert clustered_error(repeated, np.repeat(np.arange(400), 10)) == pytest.approx(values[:400].std(ddof=1) / 20, rel=1e-6)
    assert clustered_error(np.ones(5), np.zeros(5, dtype=np.int64)) == 0.0


@pytest.mark.parametrize("wrong", [{"rule": "luck"}, {"cost": "money"}])
def test_unknown_words_are_told(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        choose([trial(0, 0.3, 1)], FOLDS, TuneSettings(**wrong))


def test_without_trial_0_there_is_no_choice() -> None:
    with pytest.raises(TastemakerError, match="not finished yet"):
        choose([trial(1, 0.3, 1)], FOLDS, TuneSettings())
