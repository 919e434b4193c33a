"""Tries the steps in order, keeps those that stay in the budget, and builds the smaller bundle of them.

Judged is a bundle that has not learned from the questions: the live one if enough newer events are there, else one trained on the earlier part of the log. What
held there is then applied to the bundle that is compressed. What was tried is kept in a folder: a ladder that was cut short goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.verify import MANIFEST
from tastemaker.bundle.write import write_bundle
from tastemaker.compression.budget import Budget, Questions, Verdict
from tastemaker.compression.figures import Figures, Probe, gained
from tastemaker.compression.step import NotApplicable, Step, Tools
from tastemaker.schema.errors import BundleError

ACCEPTED, REFUSED, SKIPPED = "accepted", "refused", "skipped"
Group = Sequence[Step]
"""Steps that do the same more or less strongly, the strongest first: the first one that stays in the budget is taken."""


class Tried(msgspec.Struct, kw_only=True):
    """One rung.

    Attributes:
        step, part, words: of the step.
        state: accepted, refused or skipped. why: in a sentence.
        version: the bundle that it made.
        parent: version that it was made of.
        facts: what the step told of itself.
        verdict: what it cost; None: it was skipped.
        figures: its sizes and speeds; None: it was skipped.
        seconds: that it took, judging included.
    """

    step: str
    part: str
    words: str
    state: str
    why: str = ""
    version: str | None = None
    parent: str | None = None
    facts: dict[str, float | int | str] = {}
    verdict: Verdict | None = None
    figures: Figures | None = None
    seconds: float = 0.0


class State(msgspec.Struct):
    """What a ladder has done so far, as it is kept on disk."""

    before: Figures | None = None
    tried: list[Tried] = []


@dataclass
class Ladder:
    """One compression.

    Args:
        folder: the bundles tried and the state lie here.
        groups: the steps.
        tools: what they need.
        probe: measures sizes and speeds.
        questions: what is asked.
        share: of the quality that may be lost.
        resamples: of the bootstrap.
    """

    folder: Path
    groups: Sequence[Group]
    tools: Tools
    probe: Probe
    questions: Questions
    share: float
    resamples: int = 1_000
    state: State = field(default_factory=State)

    def climb(self, judged: Path) -> list[Tried]:
        """Tries all steps on the bundle that can be judged; gives what came of each."""
        self.state = self._read()
        current, done = judged, {one.step: one for one in self.state.tried}
        answers = self.tools.open(judged)
        budget = Budget(self.share, self.questions, answers, self.resamples)
        self.probe.compare_with(judged)
        if self.state.before is None:
            self.state.before = self.probe.measure(judged, answers, None)
        held, total = self.state.before, sum(len(group) for group in self.groups)
        seen = 0
        for group in self.groups:
            taken = False
            for step in group:
                seen += 1
                if taken:
                    continue
                one = done.get(step.name)
                if one is None or one.parent != current.name or not self._stands(one):
                    one = self._try(step, current, budget, held)
                    self.state.tried = [other for other in self.state.tried if other.step != step.name] + [one]
                    self._write()
                if one.state == ACCEPTED:
                    taken, current, held = True, self.folder / str(one.version), one.figures or held
                if self.tools.progress:
                    self.tools.progress("compress", seen, total)
        return self.state.tried

    def tried(self) -> list[Tried]:
        """What came of the steps of this ladder, in their order; what an earlier call with other steps did is left out."""
        order = {step.name: place for place, step in enumerate(step for group in self.groups for step in group)}
        return sorted((one for one in self.state.tried if one.step in order), key=lambda one: order[one.step])

    def accepted(self) -> list[str]:
        """Names of the steps that stayed in the budget, in order."""
        return [one.step for one in self.tried() if one.state == ACCEPTED]

    def build(self, parent: Path, bundles: Path) -> str:
        """Applies the accepted steps to a bundle and writes the smaller one beside it; gives its version.

        Raises:
            BundleError: no step was accepted.
        """
        steps = {step.name: step for group in self.groups for step in group}
        accepted = [steps[name] for name in self.accepted()]
        if not accepted:
            raise BundleError("No step stayed inside the budget, so there is no smaller bundle. Allow more with --budget.")
        current = parent
        for place, step in enumerate(accepted):
            last = place == len(accepted) - 1
            current = self._made(step, current, bundles if last else self.folder, parent if last else current)
            if self.tools.progress:
                self.tools.progress("build", place + 1, len(accepted))
        return current.name

    def _stands(self, one: Tried) -> bool:
        """Whether what a rung made is still there; a skipped one has made nothing."""
        return one.version is None or (self.folder / one.version / MANIFEST).is_file()

    def _try(self, step: Step, current: Path, budget: Budget, held: Figures) -> Tried:
        """Takes one step from `current`, whose figures are `held`."""
        began = time.perf_counter()
        one = Tried(step=step.name, part=step.part, words=step.words, state=SKIPPED, parent=current.name)
        try:
            made = self._made(step, current, self.folder, current, one.facts)
        except NotApplicable as reason:
            one.why = str(reason)
        else:
            answers = self.tools.open(made)
            one.version = made.name
            one.verdict = budget.judge(answers)
            one.figures = self.probe.measure(made, answers, step.part)
            faults = [*self.probe.faults(one.figures, step), gained(held, one.figures, step.gains)]
            faults = [words for words in faults if words]
            one.state = ACCEPTED if one.verdict.accepted and not faults else REFUSED
            one.why = "; ".join([one.verdict.words, *faults])
        one.seconds = time.perf_counter() - began
        return one

    def _made(
        self, step: Step, current: Path, bundles: Path, parent: Path, facts: dict[str, float | int | str] | None = None
    ) -> Path:
        manifest = open_bundle(parent, check=False).manifest

        def fill(place: Path) -> None:
            found = step.apply(current, place, replace(self.tools, judging=facts is not None))
            if facts is not None:
                facts.update(found)

        version = write_bundle(
            bundles, fill, settings=manifest.settings, data=manifest.data, metrics=manifest.metrics, parents=[parent.name]
        )
        return bundles / version

    @property
    def _path(self) -> Path:
        return self.folder / "state.json"

    def _read(self) -> State:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return State()

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".tmp")
        partial.write_bytes(msgspec.json.encode(self.state))
        partial.replace(self._path)
