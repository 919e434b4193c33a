"""Keeps one worker at the stage that the registry says: the live bundle, and the one on trial beside it.

A bundle is loaded and checked beside the ones that answer, then put in place between two requests; one that can't be loaded changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tastemaker.bundle.registry import Registry
from tastemaker.bundle.rollout import Rollout
from tastemaker.inference.brain import Texts
from tastemaker.inference.engine import TextEncoder
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog
from tastemaker.journal.trial import Tried
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.errors import BundleError, SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.erasing import Forgetting
from tastemaker.serving.judge import TRIALS
from tastemaker.serving.trial import Trial
from tastemaker.serving.verdict import LOADING
from tastemaker.serving.watching import trained_of
from tastemaker.serving.wire import Live

WATCH_SECONDS = 0.5


class Follower:
    """Follows the registry of a workspace.

    Args:
        bundles: folder of bundles. answers: what answers in this worker. service: the settings of now. metrics: of this worker. texts: how texts are read.
    """

    def __init__(self, bundles: Path, answers: Answers, service: Settings, metrics: Metrics, texts: Texts = TextEncoder) -> None:
        self._registry, self._answers, self._service, self._metrics = Registry(bundles), answers, service, metrics
        self._texts = texts
        self._log = ServedLog(answers.journal.path / TRIALS, service.serving.record_days)
        self._refused = ""
        self._own: dict[str, Journal] = {}
        self._retired: list[Journal] = []
        self._forgetting = Forgetting(answers.journal)

    def begin(self) -> None:
        """Before the first answer: a trial that is under way goes on with the same users."""
        try:
            rollout = self._registry.stages().rollout
        except BundleError:
            return
        if rollout is not None and rollout.version != self._answers.live.version:
            self._put(rollout, self._load_trial(rollout))

    async def follow(self) -> None:
        """Looks on and on."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.turn()
            except (BundleError, SettingsError, OSError, KeyError, ValueError) as error:
                self._metrics.load_failed()
                print(f"the released bundle was refused, the old one answers on: {error}", flush=True)

    async def turn(self) -> None:
        """One look.

        Raises:
            BundleError, SettingsError, OSError, KeyError, ValueError: a released bundle can't be loaded; the old one answers on.
        """
        trial = self._answers.trial
        self._forgetting.tell([self._answers.live, *([trial.live] if trial is not None else [])])
        stages = self._registry.stages()
        if stages.live and stages.live not in (self._answers.live.version, self._refused):
            await self._take(stages.live)
        await self._follow_trial(stages.rollout)

    async def _take(self, version: str) -> None:
        """Makes a bundle live in this worker: the one on trial as it is, another one from its folder."""
        self._refused, answers = version, self._answers
        trial, before = answers.trial, answers.live.version
        if trial is not None and trial.live.version == version:
            if not trial.answers:
                answers.trial = None
                await asyncio.to_thread(self._release, trial)
            answers.trial = None
            answers.take(trial.live)
        else:
            answers.take(
                await asyncio.to_thread(
                    Live, self._registry.folder(version), answers.journal, service=self._service, texts=self._texts
                )
            )
        self._refused = ""
        self._retire(before)
        self._metrics.model(version, answers.live.channels.n_items, trained_of(answers.live), time.time())

    async def _follow_trial(self, rollout: Rollout | None) -> None:
        trial = self._answers.trial
        if trial is not None and (rollout is None or trial.rollout.experiment != rollout.experiment):
            self._answers.trial, trial_was = None, trial
            await asyncio.to_thread(trial_was.close)
            self._retire(trial_was.live.version)
            trial = None
        if rollout is None or rollout.experiment == self._refused or (trial is not None and trial.rollout == rollout):
            return
        if trial is None:
            self._put(rollout, await asyncio.to_thread(self._load_trial, rollout))
        elif trial.answers:
            trial.move(rollout)
        else:
            self._answers.trial = None
            await asyncio.to_thread(self._release, trial)
            self._put(rollout, trial.live)

    def _release(self, trial: Trial) -> None:
        """Takes a bundle out of the hands of the shadow's thread, up to date."""
        trial.close()
        trial.live.poll()

    def _put(self, rollout: Rollout, live: Live | None) -> None:
        if live is None:
            return
        trial = Trial(rollout, live, self._log, self._metrics, self._answers.clock)
        live.road.timed = self._answers.timed if trial.answers else None  # of the shadow no figure of the service tells
        self._answers.trial = trial

    def _load_trial(self, rollout: Rollout) -> Live | None:
        """The bundle on trial, warm; None where it can't be loaded, of which the log tells."""
        for journal in self._retired:
            journal.close()
        self._retired.clear()
        journal = Journal.open(self._answers.journal.path)
        try:
            live = Live(self._registry.folder(rollout.version), journal, service=self._service, texts=self._texts)
            warm(live)
        except Exception as error:  # whatever is wrong with it: the live one answers on
            journal.close()
            self._refused = rollout.experiment
            self._metrics.load_failed()
            variant, now = rollout.stage, self._answers.clock()
            self._log.write(Tried(experiment=rollout.experiment, step=rollout.step, variant=variant, time=now, error=LOADING))
            print(f"the bundle on trial was refused: {type(error).__name__}: {error}", flush=True)
            return None
        self._own[rollout.version] = journal
        return live

    def _retire(self, version: str) -> None:
        """The journal of a bundle that answers no more is closed when the next one is loaded: a question may still be under way."""
        journal = self._own.pop(version, None)
        if journal is not None:
            self._retired.append(journal)


def warm(live: Live, users: int = 30, k: int = 10) -> None:
    """Makes lists of some of a bundle's own users, so that its first ones in people's hands are not slower than the rest."""
    for user in list(live.brain.users)[:users]:
        live.best([live.query(live.state.history(user))], k)
