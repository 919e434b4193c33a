"""Trials that are far behind end between epochs, where validation is a guide, and nowhere else."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'tastemaker[tune]'")

from hypothesis import given
from hypothesis import strategies as st
from planted import SPACE, Hill

from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.tuning._optuna import Search
from tastemaker.tuning.objective import FoldScore
from tastemaker.tuning.race import LEAST, Curve, OutrunError, Race, agree
from tastemaker.tuning.space import space_of
from tastemaker.tuning.trials import COMPLETE, PRUNED, RUNNING, Trial
from tastemaker.tuning.workers import Here, processes

EPOCHS = 8
MORE = ("tune.sampler=random", "tune.pruner=none", "tune.prune_epochs=true")


@dataclass
class Curved(Hill):
    """A hill whose validation rises to its quality, or, where it is no guide, to anything."""

    guide: bool = True

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None, rivals: Sequence[Curve] = ()) -> FoldScore:
        score = super().judge(settings, fold, progress)
        height = float(score.gains.mean()) if self.guide else settings.sequence.dropout * 1e6 % 1.0
        race = Race(rivals)
        for epoch in range(1, EPOCHS + 1):
            race(epoch, EPOCHS, height * (1 - 0.5**epoch))
        return FoldScore(score.gains, score.parameters, 1.0, 0.0, {}, Curve(race.scores, race.planned))


def opened(folder: Path, *more: str) -> Search:
    settings = load_settings(None, [SPACE, *MORE, *more], {})
    return Search(folder, settings, space_of(settings), Hill().folds)


def outcome(trials: list[Trial]) -> list[tuple[int, dict[str, object], str, list[float], str]]:
    return [(one.number, dict(one.changes), one.state, one.every().tolist(), one.error) for one in trials]


def test_the_worst_end_between_epochs_and_the_best_never(tmp_path: Path) -> None:
    found, plain = opened(tmp_path / "race"), opened(tmp_path / "plain", "tune.prune_epochs=false")
    found.run(Here(Curved()), 24)
    plain.run(Here(Curved()), 24)
    ours, theirs = found.trials(), plain.trials()
    ended = [trial for trial in ours if trial.state == PRUNED]
    assert len(ended) >= 3
    assert min(trial.number for trial in ended) >= LEAST, "first it must be shown that validation is a guide"
    assert all("ended after epoch" in trial.error for trial in ended)
    kept = [found.study.trials[trial.number].user_attrs for trial in ended]
    assert all(len(facts[f"curve-{len(trial.gains)}"]["scores"]) < EPOCHS for facts, trial in zip(kept, ended, strict=True)), (
        "an ended trial's curve is a rival of later ones too, or the bar would rise and rise"
    )
    quality = {trial.number: trial.quality for trial in theirs}
    middle = np.median([quality[trial.number] for trial in theirs if trial.state == COMPLETE])
    assert all(quality[trial.number] < middle for trial in ended), "none of the better half was lost"
    for one, other in zip(ours, theirs, strict=True):
        assert one.changes == other.changes
        assert one.state == PRUNED or np.array_equal(one.every(), other.every())


def test_nothing_ends_where_validation_is_no_guide(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.run(Here(Curved(guide=False)), 16)
    assert PRUNED not in {trial.state for trial in found.trials()}


def test_two_processes_end_trials_too(tmp_path: Path) -> None:
    found = opened(tmp_path)
    with processes(Curved(), 2) as workers:
        found.run(workers, 24)
    ended = [trial for trial in found.trials() if trial.state == PRUNED]
    assert ended
    assert all("of 8, its validation" in trial.error for trial in ended)


def test_a_killed_search_ends_the_same_trials(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    program = [sys.executable, __file__, str(tmp_path / "killed"), str(calls)]
    child = subprocess.Popen(program)
    while len(list(calls.iterdir())) < 28 and child.poll() is None:
        time.sleep(0.02)
    assert child.poll() is None, "killed too late to show anything"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    half = opened(tmp_path / "killed")
    assert sum(trial.state == RUNNING for trial in half.trials()) <= 1
    assert len(half.trials()) < 20
    half.run(Here(Curved()), 20)
    whole = opened(tmp_path / "whole")
    whole.run(Here(Curved()), 20)
    assert outcome(half.trials()) == outcome(whole.trials())
    assert PRUNED in {trial.state for trial in whole.trials()}


def test_the_rule_is_patient() -> None:
    rivals = [Curve([0.1, 0.2, 0.3, 0.4], 4)] * 8
    race = Race(rivals)
    for epoch, score in ((1, 0.0), (2, 0.25), (3, 0.2)):
        race(epoch, 4, score)
    race(4, 4, 0.0)
    assert race.scores == [0.0, 0.25, 0.2, 0.0], "behind, before, behind: never twice in a row before the last epoch"
    slow = Race(rivals)
    slow(1, 4, 0.0)
    with pytest.raises(OutrunError, match="ended after epoch 2 of 4") as ended:
        slow(2, 4, 0.1)
    again = pickle.loads(pickle.dumps(ended.value))
    assert again.curve == ended.value.curve == Curve([0.0, 0.1], 4)
    falling = Race([Curve([0.1] * 6, 6)] * 3)
    for epoch, score in enumerate((0.5, 0.0, 0.0, 0.0), 1):
        falling(epoch, 6, score)
    assert falling.behind == 0, "the best epoch is the one that is kept"
    early = Race(rivals)
    for epoch in (1, 2):
        early(epoch, 8, 0.0)
    assert early.behind == 1, "the rivals' first epoch is over when this one's second is"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), max_size=9))
def test_who_leads_is_never_ended(scores: list[float], rivals: list[list[float]]) -> None:
    top = [max([1.0, *(value for curve in rivals for value in curve)])] * len(scores)
    race = Race([Curve(curve, 9) for curve in rivals])
    for epoch, score in enumerate(top, 1):
        race(epoch, len(scores), score)
    assert race.behind == 0


def test_agreement_needs_enough_trials_in_one_order() -> None:
    rising = [float(number) for number in range(LEAST)]
    assert agree(rising, rising)
    assert not agree(rising[:-1], rising[:-1])
    assert not agree(rising, rising[::-1])
    assert not agree(rising, [1.0] * LEAST)


if __name__ == "__main__":
    settings = load_settings(None, [SPACE, *MORE], {})
    Search(Path(sys.argv[1]), settings, space_of(settings), Hill().folds).run(
        Here(Curved(calls=Path(sys.argv[2]), seconds=0.1)), 20
    )
