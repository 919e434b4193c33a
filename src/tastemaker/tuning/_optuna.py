"""The search itself: Optuna proposes settings, workers judge them fold by fold, everything is kept at once.

Only this process writes the search's journal (Optuna's, a file of lines), so that workers may die. A fold that was judged is on disk before the next one begins: a search that
is killed goes on with the fold that was cut off, of the same trial. Before each proposal the sampler gets a seed that follows
from the trial's number, so a search that was killed proposes what it would have proposed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tastemaker.schema.errors import InputError, SettingsError, TastemakerError
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings import Settings
from tastemaker.tuning._folder import alone, storage_of
from tastemaker.tuning.folds import Fold
from tastemaker.tuning.objective import FoldScore
from tastemaker.tuning.race import Curve, OutrunError, agree
from tastemaker.tuning.space import Dial, value_of, with_changes
from tastemaker.tuning.trials import COMPLETE, FAILED, PRUNED, RUNNING, Trial, gap_of
from tastemaker.tuning.workers import Workers

STARTUP = 8
"""Trials at random before the sampler learns."""
SURELY = 2.0
"""Standard errors by which a trial must lie behind the best one to be pruned."""
LEAST_QUESTIONS = 30
LEAST_TRIALS = 4
"""Judged trials from which on importances are asked for."""
_STATES = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}
_UP, _DOWN = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
_KEY = "key"


@dataclass
class _Open:
    """A trial on its way."""

    trial: optuna.Trial
    settings: Settings
    fold: int


class Search:
    """One search in its folder.

    Args:
        folder: `search.log` and the gains of every fold, `trials/<number>-<fold>.npy`.
        base: the settings of trial 0, which the dials change.
        dials: what is searched.
        folds: the cuts; `users` and their number are read.
        key: stands for data and settings; a folder of another key is refused.

    Raises:
        SettingsError: an unknown sampler, pruner or objective.
        InputError: the folder belongs to other data or settings.
    """

    def __init__(self, folder: Path, base: Settings, dials: list[Dial], folds: list[Fold], key: str = "") -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.base, self.dials, self.folds = folder, base, dials, folds
        self.objectives = _objectives(base)
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        directions = [_UP if name == "quality" else _DOWN for name in self.objectives]
        pruner = _pruner(base)
        with alone(folder):
            self.study = optuna.create_study(
                storage=storage_of(folder / "search.log"),
                study_name="tune",
                directions=directions,
                pruner=pruner,
                load_if_exists=True,
            )
            if self.study.user_attrs.get(_KEY, key) != key:
                raise InputError(
                    f"{folder} holds a search of other data or other settings. Give another --name, or delete the folder."
                )
            self.study.set_user_attr(_KEY, key)
        self._known: dict[int, Trial] = {}

    def run(self, workers: Workers, trials: int, time_budget: float = 0.0, progress: Progress | None = None) -> None:
        """Searches until there are `trials` trials, or the budget of seconds is spent; trial 0 is always finished.

        Raises:
            TastemakerError: trial 0 failed, or the workers died.
        """
        began = time.monotonic()
        with alone(self.folder):

            def late() -> bool:
                return 0 < time_budget <= time.monotonic() - began

            waiting, running = self._cut_off(), dict[Future[FoldScore], _Open]()
            while True:
                while len(running) < workers.size:
                    opened = next(waiting, None) or self._ask(trials, late())
                    if opened is None:
                        break
                    self._submit(opened, workers, running, late)
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    opened = running.pop(done)
                    if self._take(opened, done):
                        self._submit(opened, workers, running, late)
                if progress:
                    finished = sum(trial.state != RUNNING for trial in self.trials())
                    progress("trials", finished, max(trials, finished))

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        found = []
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.number not in self._known:
                trial = self._read(frozen)
                if trial.state != RUNNING:
                    self._known[frozen.number] = trial
            found.append(self._known.get(frozen.number) or self._read(frozen))
        return found

    def importances(self) -> dict[str, float]:
        """Share of each dial in how good a trial is, by Optuna's own evaluator; empty where there are too few to tell.

        Asked of the first fold alone: every trial was judged by it, those that were pruned too.
        """
        judged, copy = {trial.number: trial for trial in self.trials() if trial.gains}, optuna.create_study(direction=_DOWN)
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.number in judged:  # the evaluator asks what makes a value low
                value = -float(judged[frozen.number].gains[0].mean())
                copy.add_trial(optuna.trial.create_trial(params=frozen.params, distributions=frozen.distributions, value=value))
        if len(judged) < LEAST_TRIALS:
            return {}
        try:
            found: dict[str, float] = optuna.importance.get_param_importances(copy)
        except (ValueError, RuntimeError):  # every trial alike
            return {}
        return found

    def pareto(self) -> list[int]:
        """Numbers of the trials that no other one beats in every objective."""
        return sorted(trial.number for trial in self.study.best_trials)

    def _ask(self, trials: int, late: bool) -> _Open | None:
        known = self.study.get_trials(deepcopy=False)
        begun = sum(trial.state != TrialState.WAITING for trial in known)
        if begun >= trials or (late and begun):
            return None
        if not known:
            self.study.enqueue_trial({dial.key: value_of(self.base, dial.key) for dial in self._at_first()})
        self.study.sampler = _sampler(self.base, begun)
        return self._opened(self.study.ask(), 0)

    def _cut_off(self) -> Iterator[_Open]:
        """Trials that a killed search left half-way, each with the first fold that is not kept."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.sampler = _sampler(self.base, frozen.number)
            opened = self._opened(optuna.Trial(self.study, frozen._trial_id), self._kept(frozen))
            if opened.fold < len(self.folds):
                yield opened
            else:  # killed after its last fold was kept, before the trial was closed
                self._close(opened.trial)

    def _opened(self, trial: optuna.Trial, fold: int) -> _Open:
        """Asks for the value of every dial; what a trial has been given already it gets again."""
        dials = self._at_first() if trial.number == 0 else self.dials
        changes = {dial.key: dial.rounded(_suggest(trial, dial)) for dial in dials}
        return _Open(trial, with_changes(self.base, changes), fold)

    def _at_first(self) -> list[Dial]:
        """Dials whose range holds the value that the settings have; of the others trial 0 tells the sampler nothing."""
        return [dial for dial in self.dials if dial.contains(value_of(self.base, dial.key))]

    def _submit(self, opened: _Open, workers: Workers, running: dict[Future[FoldScore], _Open], late: Callable[[], bool]) -> None:
        """Begins a fold; after the time budget only those of trial 0. What is not begun stays open for the next call."""
        if opened.trial.number == 0 or not late():
            rivals = self._rivals(opened)
            future = (
                workers.submit(opened.settings, opened.fold, rivals) if rivals else workers.submit(opened.settings, opened.fold)
            )
            running[future] = opened

    def _take(self, opened: _Open, done: Future[FoldScore]) -> bool:
        """Keeps a fold; whether the trial goes on with the next one."""
        trial = opened.trial
        try:
            score = done.result()
        except BrokenProcessPool:
            raise TastemakerError(
                "A process that judged a trial died, most likely for lack of memory. The same command goes on from here; try fewer --jobs."
            ) from None
        except OutrunError as ended:
            self._end(trial, opened.fold, ended)
            return False
        except (TastemakerError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
            if trial.number == 0:
                raise
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        self._keep(trial, opened.fold, score)
        opened.fold += 1
        if opened.fold == len(self.folds):
            self._close(trial)
        elif self._is_bad(trial):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        return False

    def _end(self, trial: optuna.Trial, fold: int, ended: OutrunError) -> None:
        """Keeps how far a trial came that ended inside a fold."""
        trial.set_user_attr(f"curve-{fold}", asdict(ended.curve))
        trial.set_user_attr("error", f"Fold {fold + 1} {ended}")
        self.study.tell(trial, state=TrialState.PRUNED)

    def _rivals(self, opened: _Open) -> list[Curve]:
        """Validation curves of the earlier trials in the same fold, where the search asks for it and they are a guide; else none.

        Only earlier trials count, so that a search that was killed rules as it would have ruled.
        """
        number = opened.trial.number
        if not self.base.tune.prune_epochs or number == 0 or len(self.objectives) > 1:
            return []
        earlier = [one for one in self.study.get_trials(deepcopy=False) if one.number < number]
        first = [(_curve(one, 0), self._read(one)) for one in earlier if "fold-0" in one.user_attrs]
        known = [(max(curve.scores), float(trial.gains[0].mean())) for curve, trial in first if curve is not None and curve.scores]
        if not agree([best for best, _ in known], [mean for _, mean in known]):
            return []
        return [curve for one in earlier if (curve := _curve(one, opened.fold)) is not None]

    def _keep(self, trial: optuna.Trial, fold: int, score: FoldScore) -> None:
        """The gains first, then the line in the database that says that they are there."""
        path = self._path(trial.number, fold)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, score.gains, allow_pickle=False)
        partial.replace(path)
        facts = {"parameters": score.parameters, "latency": score.latency, "seconds": score.seconds, **score.facts}
        if score.curve is not None:
            trial.set_user_attr(f"curve-{fold}", asdict(score.curve))
        trial.set_user_attr(f"fold-{fold}", facts)
        if len(self.objectives) == 1:
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            gains = self._read(frozen).gains
            for place in set(range(fold + 1)) - set(frozen.intermediate_values):  # a kill may have come between the two
                trial.report(float(np.concatenate(gains[: place + 1]).mean()), place)

    def _close(self, trial: optuna.Trial) -> None:
        judged = self._read(self.study.get_trials(deepcopy=False)[trial.number])
        self.study.tell(trial, [judged.objective(name) for name in self.objectives])

    def _is_bad(self, trial: optuna.Trial) -> bool:
        name = self.base.tune.pruner
        if len(self.objectives) > 1 or trial.number == 0 or name == "none":
            return False
        if name == "median":
            return bool(trial.should_prune())
        others = [one for one in self.trials() if one.state == COMPLETE]
        ours = self._read(self.study.get_trials(deepcopy=False)[trial.number])
        if not others or len(ours.every()) < LEAST_QUESTIONS:
            return False
        mean, error = gap_of(ours, max(others, key=lambda one: one.quality), self.folds)
        return mean + SURELY * error < 0

    def _read(self, frozen: FrozenTrial) -> Trial:
        kept = range(self._kept(frozen))
        gains = [np.load(self._path(frozen.number, fold), allow_pickle=False) for fold in kept]
        facts: list[dict[str, float]] = [frozen.user_attrs[f"fold-{fold}"] for fold in kept]
        changes = {dial.key: dial.rounded(frozen.params[dial.key]) for dial in self.dials if dial.key in frozen.params}
        if frozen.number == 0:
            changes = {dial.key: value_of(self.base, dial.key) for dial in self.dials}
        return Trial(
            frozen.number, changes, _STATES.get(frozen.state, RUNNING), gains, facts, str(frozen.user_attrs.get("error", ""))
        )

    def _kept(self, frozen: FrozenTrial) -> int:
        """How many folds of a trial are kept."""
        return sum(f"fold-{fold}" in frozen.user_attrs for fold in range(len(self.folds)))

    def _path(self, number: int, fold: int) -> Path:
        return self.folder / "trials" / f"{number:05d}-{fold}.npy"


def _curve(frozen: FrozenTrial, fold: int) -> Curve | None:
    kept = frozen.user_attrs.get(f"curve-{fold}")
    return None if kept is None else Curve(**kept)


def _suggest(trial: optuna.Trial, dial: Dial) -> Any:
    if dial.choices:
        return trial.suggest_categorical(dial.key, dial.choices)
    if dial.whole:
        return trial.suggest_int(dial.key, round(dial.low), round(dial.high), step=round(dial.step) or 1, log=dial.log)
    return trial.suggest_float(dial.key, dial.low, dial.high, step=dial.step or None, log=dial.log)


def _sampler(base: Settings, number: int) -> optuna.samplers.BaseSampler:
    name, seed = base.tune.sampler, 100_003 * base.train.seed + number
    if name == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=STARTUP, seed=seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    raise SettingsError(f"tune.sampler is {name!r}; expected tpe, gp or random.")


def _pruner(base: Settings) -> optuna.pruners.BasePruner:
    name = base.tune.pruner
    if name not in ("paired", "median", "none"):
        raise SettingsError(f"tune.pruner is {name!r}; expected paired, median or none.")
    _sampler(base, 0)  # an unknown name is told before a folder is made
    return optuna.pruners.MedianPruner(n_startup_trials=3) if name == "median" else optuna.pruners.NopPruner()


def _objectives(base: Settings) -> list[str]:
    names = list(base.tune.objectives)
    if names[:1] != ["quality"] or len(set(names)) != len(names) or set(names) - {"quality", "latency", "size"}:
        raise SettingsError(f"tune.objectives is {names}; expected quality, then latency and size where they are wanted.")
    return names
