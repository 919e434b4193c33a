"""The search finds what was planted, loses nothing when it is killed, and ends trials that are surely worse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'tastemaker[tune]'")

from planted import BEST_DROPOUT, BEST_RATE, SPACE, Hill, make_folds, search

from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.settings_file import load_settings
from tastemaker.tuning._optuna import Search
from tastemaker.tuning.choice import choose
from tastemaker.tuning.space import space_of
from tastemaker.tuning.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trial
from tastemaker.tuning.workers import Here, processes


def opened(folder: Path, *more: str) -> Search:
    settings = load_settings(None, [SPACE, *more], {})
    return Search(folder, settings, space_of(settings), make_folds())


def same(one: list[Trial], other: list[Trial]) -> bool:
    return [(a.number, a.changes, a.state) for a in one] == [(b.number, b.changes, b.state) for b in other] and all(
        np.array_equal(a.every(), b.every()) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_planted_region_is_found_and_the_settings_as_they_were_are_trial_0(tmp_path: Path, sampler: str) -> None:
    found = opened(tmp_path, f"tune.sampler={sampler}")
    found.run(Here(Hill()), 18)
    trials = found.trials()
    assert [trial.number for trial in trials] == list(range(18))
    assert trials[0].changes == {"sequence.dropout": 0.4, "sequence.learning_rate": 2e-3}
    choice = choose(trials, make_folds(), found.base.tune)
    assert abs(float(choice.best.changes["sequence.dropout"]) - BEST_DROPOUT) < 0.1
    assert abs(np.log10(float(choice.best.changes["sequence.learning_rate"]) / BEST_RATE)) < 0.25
    assert choice.gain.low > 0, "the planted region is better than the defaults, and all trials meet the same noise"
    assert choice.best.quality == max(trial.quality for trial in trials if trial.state == COMPLETE)
    shares = found.importances()
    assert set(shares) == set(trials[0].changes)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_trial_that_is_surely_worse_ends_and_an_unlucky_one_does_not_stop_the_search(tmp_path: Path) -> None:
    found = opened(tmp_path, "tune.sampler=random")
    found.run(Here(Hill()), 16)
    trials = found.trials()
    pruned = [trial for trial in trials if trial.state == PRUNED]
    assert pruned
    assert all(len(trial.gains) < 3 for trial in pruned)
    for trial in pruned:
        before = max((t.quality for t in trials[: trial.number] if t.state == COMPLETE), default=0.0)
        assert trial.quality < before
    failed = [trial for trial in trials if trial.state == FAILED]
    assert failed, "a fixed seed draws a dropout above .85"
    assert all(trial.error == "ValueError: too much dropout" and not trial.gains for trial in failed)
    assert all(len(trial.gains) == 3 for trial in trials if trial.state == COMPLETE)


def test_nothing_is_pruned_where_it_is_not_wanted(tmp_path: Path) -> None:
    found = opened(tmp_path, "tune.sampler=random", "tune.pruner=none")
    found.run(Here(Hill()), 8)
    assert {trial.state for trial in found.trials()} <= {COMPLETE, FAILED}


def test_a_killed_search_goes_on_and_ends_as_one_that_was_not_killed(tmp_path: Path) -> None:
    """kill -9 in the middle of folds, twice: no trial is lost or doubled, no kept fold is judged again."""
    calls, more = tmp_path / "calls", ("tune.pruner=none",)
    calls.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("planted.py")), str(tmp_path / "killed"), "9", "0.15", str(calls)]
    for wanted in (2, 10):
        child = subprocess.Popen([*command, *more])
        while len(list(calls.iterdir())) < wanted and child.poll() is None:
            time.sleep(0.02)
        assert child.poll() is None, "killed too late to show anything"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    half = opened(tmp_path / "killed", *more)
    states = [trial.state for trial in half.trials()]
    assert states.count(RUNNING) <= 1, "one process has one open trial; earlier ones were taken up again"
    assert 0 < len(states) < 9
    half.run(Here(Hill(calls=calls)), 9)
    search(tmp_path / "whole", 9, 0.0, None, *more)
    assert same(half.trials(), opened(tmp_path / "whole", *more).trials())
    judged = sum(len(trial.gains) for trial in half.trials()) + sum(trial.state == FAILED for trial in half.trials())
    assert judged <= len(list(calls.iterdir())) <= judged + 2, "at most the fold that was cut off is judged again after each kill"


def test_a_longer_search_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    for trials in (3, 3, 6):
        opened(tmp_path / "steps").run(Here(Hill()), trials)
    search(tmp_path / "once", 6)
    assert same(opened(tmp_path / "steps").trials(), opened(tmp_path / "once").trials())


def test_a_spent_budget_finishes_trial_0_and_leaves_the_rest_for_later(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.run(Here(Hill(seconds=0.05)), 5, time_budget=0.01)
    assert [(trial.state, len(trial.gains)) for trial in found.trials()] == [(COMPLETE, 3)]
    found.run(Here(Hill()), 5)
    assert len(found.trials()) == 5


def test_a_failing_trial_0_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too much dropout"):
        opened(tmp_path, "sequence.dropout=0.88").run(Here(Hill()), 2)


def test_settings_outside_the_range_are_still_trial_0(tmp_path: Path) -> None:
    found = opened(tmp_path, "sequence.learning_rate=0.05")
    found.run(Here(Hill()), 3)
    assert found.trials()[0].changes == {"sequence.dropout": 0.4, "sequence.learning_rate": 0.05}
    assert all(float(trial.changes["sequence.learning_rate"]) <= 1e-2 for trial in found.trials()[1:])


def test_the_pareto_set_of_quality_and_size(tmp_path: Path) -> None:
    more = ("tune.objectives=quality,size", "tune.space=sequence.dropout=0.0..0.8,sequence.dim=64|128|256")
    found = opened(tmp_path, *more)
    found.run(Here(Hill()), 12)
    trials, pareto = found.trials(), found.pareto()
    assert {trial.state for trial in trials} == {COMPLETE}
    for trial in trials:
        beaten = any(
            other.quality >= trial.quality
            and other.size <= trial.size
            and (other.quality, other.size) != (trial.quality, trial.size)
            for other in trials
        )
        assert (trial.number in pareto) is not beaten
    assert choose(trials, make_folds(), found.base.tune, pareto).chosen.number in pareto


def test_two_processes_judge_as_one_does(tmp_path: Path) -> None:
    found = opened(tmp_path, "tune.sampler=random", "tune.pruner=none")
    with processes(Hill(), 2) as workers:
        found.run(workers, 5)
    search(tmp_path / "alone", 5, 0.0, None, "tune.sampler=random", "tune.pruner=none")
    alone = opened(tmp_path / "alone", "tune.sampler=random", "tune.pruner=none")
    assert same(found.trials(), alone.trials())


def test_a_folder_has_one_search_at_a_time_and_one_key(tmp_path: Path) -> None:
    found = opened(tmp_path)

    class Nested(Here):
        def submit(self, settings, fold):  # type: ignore[no-untyped-def]
            with pytest.raises(InputError, match="Another search is at work"):
                opened(tmp_path).run(Here(Hill()), 1)
            return super().submit(settings, fold)

    found.run(Nested(Hill()), 1)
    settings = load_settings(None, [SPACE], {})
    with pytest.raises(InputError, match="other data or other settings"):
        Search(tmp_path, settings, space_of(settings), make_folds(), "another key")


@pytest.mark.parametrize(
    "word", ["tune.sampler=best", "tune.pruner=hard", "tune.objectives=size", "tune.objectives=quality,beauty"]
)
def test_unknown_words_are_told(tmp_path: Path, word: str) -> None:
    with pytest.raises(SettingsError, match=r"expected (tpe|paired|quality)"):
        opened(tmp_path / "none", word)
