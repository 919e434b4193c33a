"""Trials at the same time: folds as Ray tasks, as `tune --ray` runs them, beside the same search on Ray Tune, undisturbed and with a worker killed.

    python benchmarks/tuning_ray.py [--trials 12] [--seconds 0.5] [--jobs 2]

Both ask the same Optuna study for settings and keep every fold in the same journal; folds sleep, so what is measured is what lies around them. On Ray Tune a
trial is a function that reports each fold; a trial whose worker died begins anew (`FailureConfig`), without a checkpoint of its own. Printed for each: seconds,
as a multiple of the shortest possible time (trials x folds x seconds / jobs), folds that were judged, of these judged again, and trials that were finished.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table, load_settings, to_table
from tastemaker.tuning._optuna import Search
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.objective import FoldScore
from tastemaker.tuning.race import Curve
from tastemaker.tuning.space import space_of
from tastemaker.tuning.trials import COMPLETE

LINES = ["tune.space=sequence.dropout=0.0..0.9", "tune.sampler=random", "tune.pruner=none"]
FOLDS = 3


def _folds() -> list[Fold]:
    place = np.arange(40)
    return [Fold(np.ones(1, dtype=bool), place, place, f"fold {number}") for number in range(FOLDS)]


@dataclass
class Sleeper:
    """Each fold sleeps and leaves a file in `calls`; with `deadly` the first third fold kills its process, once."""

    seconds: float
    calls: Path
    deadly: bool
    folds: list[Fold] = field(default_factory=_folds)

    def judge(self, settings: Settings, fold: int, progress: Progress | None = None, rivals: Sequence[Curve] = ()) -> FoldScore:
        (self.calls / f"{settings.sequence.dropout:.6f}-{fold}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        mark = self.calls / "died"
        if self.deadly and fold == FOLDS - 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        noise = np.random.default_rng(fold).random(len(self.folds[fold].asked))
        return FoldScore((noise * (1 - settings.sequence.dropout)).astype(np.float32), 1_000, 1.0, self.seconds)


def on_tasks(search: Search, judge: Sleeper, asked: argparse.Namespace) -> None:
    """As `tune --ray`."""
    from tastemaker.tuning._ray import cluster

    with cluster(judge, "local", asked.jobs, 1) as workers:
        search.run(workers, asked.trials)


def on_tune(search: Search, judge: Sleeper, asked: argparse.Namespace, folder: Path) -> None:
    """The same ask and tell as a searcher of Ray Tune."""
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, judge=judge), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(search, asked), num_samples=asked.trials, max_concurrent_trials=asked.jobs, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(folder), failure_config=tune.FailureConfig(max_failures=5), verbose=0),
    )
    tuner.fit()


def _trial(config: dict[str, Any], judge: Sleeper) -> None:
    from ray import tune

    for fold in range(FOLDS):
        score = judge.judge(from_table(json.loads(config["settings"])), fold)
        tune.report({"fold": fold, "gains": score.gains.tolist(), "quality": float(score.gains.mean())})


def _searcher(search: Search, asked: argparse.Namespace) -> Any:
    from ray.tune.search import Searcher

    class Asking(Searcher):  # type: ignore[misc]
        """Optuna through our own ask and tell."""

        def __init__(self) -> None:
            super().__init__(metric="quality", mode="max")
            self.open: dict[str, Any] = {}

        def suggest(self, trial_id: str) -> Any:
            opened = search._ask(asked.trials, False)
            if opened is None:
                return Searcher.FINISHED
            self.open[trial_id] = opened
            return {"settings": json.dumps(to_table(opened.settings))}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            opened = self.open[trial_id]
            if result["fold"] == opened.fold:  # a trial that began anew reports its first folds once more
                done: Future[FoldScore] = Future()
                done.set_result(FoldScore(np.array(result["gains"], dtype=np.float32), 1_000, 1.0, asked.seconds))
                search._take(opened, done)

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            """The last fold has closed the trial."""

        def save(self, checkpoint_path: str) -> None:
            """The study is its own record."""

        def restore(self, checkpoint_path: str) -> None:
            """As `save`."""

    return Asking()


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--trials", type=int, default=12)
    reader.add_argument("--seconds", type=float, default=0.5)
    reader.add_argument("--jobs", type=int, default=2)
    asked = reader.parse_args()
    from tastemaker.data._ray import connect

    connect(cpus=asked.jobs)
    settings = load_settings(None, LINES, {})
    least = asked.trials * FOLDS * asked.seconds / asked.jobs
    print(f"{asked.trials} trials x {FOLDS} folds of {asked.seconds} s, {asked.jobs} at a time: {least:.1f} s at least")
    print("| | seconds | of the least | folds judged | again | trials finished |\n|---|---|---|---|---|---|")
    outcomes = {}
    for deadly in (False, True):
        for name in ("Ray tasks", "Ray Tune"):
            with tempfile.TemporaryDirectory() as room:
                calls = Path(room) / "calls"
                calls.mkdir()
                judge = Sleeper(asked.seconds, calls, deadly)
                search = Search(Path(room) / "search", settings, space_of(settings), judge.folds)
                began = time.perf_counter()
                if name == "Ray tasks":
                    on_tasks(search, judge, asked)
                else:
                    on_tune(search, judge, asked, Path(room) / "tune")
                seconds = time.perf_counter() - began
                judged = len(list(calls.glob("*-*")))
                trials = search.trials()
                outcomes[name, deadly] = [(trial.changes, trial.quality) for trial in trials]
                finished = sum(trial.state == COMPLETE for trial in trials)
                words = f"{name}{', a worker killed' if deadly else ''}"
                print(
                    f"| {words} | {seconds:.1f} | {seconds / least:.2f} | {judged} | {judged - asked.trials * FOLDS} | {finished} |",
                    flush=True,
                )
    print("All four found the same trials." if len({repr(one) for one in outcomes.values()}) == 1 else "The trials differ.")


if __name__ == "__main__":
    main()
