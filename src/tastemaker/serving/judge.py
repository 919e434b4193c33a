"""Takes a release from stage to stage, or ends it: one worker reads what all of them noted. What it knows is on disk, so a restart loses nothing."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tastemaker.bundle.record import Release, note
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.rollout import CANARY, SHADOW, Rollout
from tastemaker.journal.append import Journal
from tastemaker.journal.lines import LineReader
from tastemaker.journal.trial import Tried
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.settings import Settings
from tastemaker.serving.verdict import Tally, Verdict, judge

LOOK_SECONDS = 1.0
TRIALS = "trials"
"""The folder in the journal where workers note lists of a trial."""
FIGURES = "trial.json"
"""The latest verdict, among the bundles: what the console shows."""
WHO = "tastemaker serve"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the latest trial: `state` is `wait`, `pass` or `stop`; times are epoch seconds."""

    version: str
    stage: str
    share: float
    began: float
    time: float
    lists: int
    wanted: int
    state: str
    words: list[str]
    against: list[str]


class Judge:
    """Follows the trial of a workspace.

    Args:
        bundles: folder of bundles. journal: a connection of its own. settings: `sampling.shown` is read. metrics: where figures go.
    """

    def __init__(self, bundles: Path, journal: Journal, settings: Settings, metrics: Metrics) -> None:
        self._registry, self._journal, self._settings, self._metrics = Registry(bundles), journal, settings, metrics
        self._tally: Tally | None = None
        self._lines = LineReader(journal.path / TRIALS, Tried)
        self._position = 0

    async def follow(self) -> None:
        """Looks on and on, in a thread of its own."""
        thread, loop = ThreadPoolExecutor(1, thread_name_prefix="judge"), asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await loop.run_in_executor(thread, self.look, time.time())
                except Exception as error:  # answers go on, and so does the trial
                    print(f"the trial was not judged ({type(error).__name__}: {error})", flush=True)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def look(self, now: float) -> Verdict | None:
        """Reads what is new and does what it says; None where no bundle is on trial."""
        rollout = self._registry.stages().rollout
        if rollout is None:
            if self._tally is not None:
                self._tally = None
                self._stand("", 0.0)
            return None
        tally = self._read(rollout)
        verdict = judge(tally, now)
        self._tell(tally, verdict, now)
        if verdict.state == "stop":
            self._end(rollout, verdict)
        elif verdict.state == "pass":
            self._go_on(rollout, verdict, now)
        return verdict

    def _read(self, rollout: Rollout) -> Tally:
        if self._tally is None or self._tally.rollout != rollout:
            self._tally, self._position = Tally(rollout, tuple(self._settings.sampling.shown)), rollout.position
            self._lines = LineReader(self._journal.path / TRIALS, Tried)
        for line in self._lines.new():
            self._tally.note(line)
        while events := self._journal.tail(self._position):
            for stored in events:
                self._tally.event(stored.event)
            self._position = events[-1].seq
        return self._tally

    def _go_on(self, rollout: Rollout, verdict: Verdict, now: float) -> None:
        following, live = rollout.next(now, self._journal.position()), self._registry.stages().live
        if not self._registry.change(rollout, following, live=following is None):
            return
        self._metrics.rolled("live" if following is None else "passed")
        self._note(
            "release" if following is None else CANARY, rollout, live, verdict, 1.0 if following is None else following.share
        )

    def _end(self, rollout: Rollout, verdict: Verdict) -> None:
        if self._registry.change(rollout, None):
            self._metrics.rolled("aborted")
            self._note("aborted", rollout, self._registry.stages().live, verdict, rollout.share)

    def _note(self, action: str, rollout: Rollout, live: str | None, verdict: Verdict, share: float) -> None:
        why = f"{rollout.stage} {'ended' if verdict.against else 'passed'}; begun by {rollout.who or 'nobody named'}" + (
            f": {rollout.why}" if rollout.why else ""
        )
        note(
            self._registry.bundles,
            Release(
                action=action, version=rollout.version, before=live, who=WHO, why=why, against=verdict.against, findings=verdict.words, share=share
            ),
        )  # fmt: skip

    def _stand(self, stage: str, share: float) -> None:
        """The stage of the trial; none where it is empty."""
        for one in (SHADOW, CANARY):
            self._metrics.set("tastemaker_rollout_stage_info", float(stage == one), stage=one)
        self._metrics.set("tastemaker_rollout_share_ratio", share)

    def _tell(self, tally: Tally, verdict: Verdict, now: float) -> None:
        rollout, new = tally.rollout, tally.new
        self._stand(rollout.stage, rollout.share)
        if tally.overlaps:
            self._metrics.set("tastemaker_rollout_overlap_ratio", sum(tally.overlaps) / len(tally.overlaps))
        for variant, arm in (("canary", new), ("control", tally.old)):
            if rollout.stage != SHADOW and arm.users:
                self._metrics.set("tastemaker_rollout_taken_ratio", float(arm.taken.mean()), variant=variant)
        wanted = rollout.shadow if rollout.stage == SHADOW else rollout.limits.step_lists
        standing = Standing(
            version=rollout.version, stage=rollout.stage, share=rollout.share, began=rollout.began, time=now, lists=new.lists, wanted=wanted,
            state=verdict.state, words=verdict.words, against=verdict.against,
        )  # fmt: skip
        path = self._registry.bundles / FIGURES
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(standing))
        os.replace(temporary, path)
