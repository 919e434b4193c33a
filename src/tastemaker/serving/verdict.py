"""What a trial says so far: goes on, passes, or is ended. Every rule may be asked after every list, as often as somebody likes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.bundle.rollout import CANARY, CONTROL, SHADOW, Rollout
from tastemaker.evaluation.experiment import difference
from tastemaker.evaluation.sequential import more_than, other_than, rate_exceeds
from tastemaker.journal.trial import Tried
from tastemaker.schema.events import Event
from tastemaker.schema.settings import ReleaseSettings
from tastemaker.serving.trial import SLOW

SURE = 1_000.0
"""So strong must evidence be: one equal bundle in a thousand shows it by chance, by each rule, however long it is looked at."""
LEVEL, HORIZON = 0.99, 2_000
"""Of the interval of the difference in taken lists, and users of both groups at which it is narrowest."""
LEAST_LISTS, LEAST_USERS = 100, 50
"""Fewer lists say nothing of a 99th percentile, fewer users of each group nothing of what is taken."""
SLOW_SHARE = 0.02
LATEST, OPEN = 20_000, 200_000
"""Times that are remembered, and lists whose events are waited for."""
LOADING = "load"
GIVEN_UP = {LOADING: "a worker could not load it", SLOW: "99 of 100 lists took far too long: a worker gave it up at once"}
"""What a worker says that ends a trial."""


@dataclass
class Arm:
    """What one group's lists were like.

    Attributes:
        lists, errors, degraded: how many. seconds, cpu: of the latest lists that did not fail, and of the processor. users: lists and taken lists of each.
    """

    lists: int = 0
    errors: int = 0
    degraded: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    users: dict[str, list[int]] = field(default_factory=dict)

    def note(self, seconds: float, cpu: float, level: int, error: str = "") -> None:
        """One list."""
        self.lists += 1
        self.errors += bool(error)
        self.degraded += level > 0
        if not error:
            self.seconds.append(seconds)
            self.cpu.append(cpu)

    @property
    def taken(self) -> NDArray[np.float64]:
        """Share of each user's lists of which something was taken, [users]."""
        return np.array([taken / lists for lists, taken in self.users.values()], dtype=np.float64)


@dataclass(frozen=True)
class Verdict:
    """What is to be done.

    Attributes:
        state: `wait`, `pass` or `stop`. words: what was looked at. against: what of it speaks against the bundle.
    """

    state: Literal["wait", "pass", "stop"]
    words: list[str]
    against: list[str]


class Tally:
    """The lists of one stage.

    Args:
        rollout: at this stage; lists of others are left out. shown: event types that only say that an item was seen.
    """

    def __init__(self, rollout: Rollout, shown: tuple[str, ...] = ()) -> None:
        self.rollout, self._shown = rollout, frozenset(shown)
        self.new, self.old = Arm(), Arm()
        self.overlaps: list[float] = []
        self.broken = ""
        self._open: dict[str, tuple[Arm, str]] = {}

    def note(self, line: Tried) -> None:
        """One list of the log."""
        if (line.experiment, line.step) != (self.rollout.experiment, self.rollout.step):
            return
        if line.error in GIVEN_UP and not line.request_id:
            self.broken = GIVEN_UP[line.error]
        elif line.variant == SHADOW:
            self.new.note(0.0, line.cpu, line.level, line.error)
            self.old.note(0.0, line.live_cpu, line.live_level)
            if line.overlap is not None:
                self.overlaps.append(line.overlap)
        elif line.variant in (CANARY, CONTROL):
            arm = self.new if line.variant == CANARY else self.old
            arm.note(line.seconds, line.cpu, line.level, line.error)
            if line.request_id and line.user_id:
                arm.users.setdefault(line.user_id, [0, 0])[0] += 1
                self._open[line.request_id] = (arm, line.user_id)
                if len(self._open) > OPEN:
                    self._open.pop(next(iter(self._open)))

    def event(self, event: Event) -> None:
        """Something happened; the first of a list's items that is taken counts."""
        if event.event_type in self._shown:
            return
        arm, user = self._open.get(event.request_id or "", (None, ""))
        if arm is not None and user == event.user_id:
            del self._open[event.request_id or ""]
            arm.users[user][1] += 1


def judge(tally: Tally, now: float) -> Verdict:
    """What a stage says at a moment (epoch seconds)."""
    limits = tally.rollout.limits
    if tally.broken:
        return Verdict("stop", [], [tally.broken])
    shadow = tally.rollout.stage == SHADOW
    words, against = (_shadow if shadow else _canary)(tally, limits)
    slow = _slow("of the processor", tally.new.cpu, tally.old.cpu, limits)
    for wrong, found in (
        _degraded(tally, limits),
        slow,
        *([] if shadow else [_slow("", tally.new.seconds, tally.old.seconds, limits)]),
    ):
        words.append(found)
        against += [found] if wrong else []
    if against:
        return Verdict("stop", words, against)
    enough = (
        tally.new.lists >= tally.rollout.shadow
        if shadow
        else tally.new.lists >= limits.step_lists and now - tally.rollout.began >= limits.step_seconds
    )
    return Verdict("pass" if enough else "wait", words, [])


def _shadow(tally: Tally, limits: ReleaseSettings) -> tuple[list[str], list[str]]:
    """No failure at all, and lists that have something in common with the live ones."""
    errors = f"{tally.new.errors:,} of {tally.new.lists:,} lists failed"
    mean = float(np.mean(tally.overlaps)) if tally.overlaps else 1.0
    common = f"{mean:.0%} of the live top 10 is in its own"
    enough = len(tally.overlaps) >= min(LEAST_LISTS, tally.rollout.shadow)
    return [errors, common], [
        *([errors] if tally.new.errors else []),
        *([f"{common}, at least {limits.overlap:.0%} is asked for"] if enough and mean < limits.overlap else []),
    ]


def _canary(tally: Tally, limits: ReleaseSettings) -> tuple[list[str], list[str]]:
    """First whether the groups are as they were dealt; then failures, and what was taken."""
    new, old, dealt = tally.new, tally.old, tally.rollout.dealt
    against = []
    sizes = f"{len(new.users):,} users, {len(old.users):,} in the control group"
    if other_than(len(new.users), len(new.users) + len(old.users), dealt[CANARY] / (dealt[CANARY] + dealt[CONTROL])) >= SURE:
        against.append(f"{sizes}: not as they were dealt, so that nothing can be compared")
    errors = f"{new.errors:,} of {new.lists:,} lists failed, {old.errors:,} of {old.lists:,} in the control group"
    if rate_exceeds((new.errors, new.lists), (old.errors, old.lists), limits.trial_errors) >= SURE:
        against.append(errors)
    words = [sizes, errors]
    if min(len(new.users), len(old.users)) >= LEAST_USERS and (base := float(old.taken.mean())) > 0:
        change = difference(new.taken, old.taken, LEVEL, HORIZON)
        taken = f"taken lists change by {change.mean / base:+.1%} [{change.low / base:+.1%}, {change.high / base:+.1%}]"
        words.append(taken)
        if change.high < -limits.trial_loss * base:
            against.append(taken)
    return words, against


def _degraded(tally: Tally, limits: ReleaseSettings) -> tuple[bool, str]:
    new, old = tally.new, tally.old
    words = f"{new.degraded:,} of {new.lists:,} lists lacked something, {old.degraded:,} of {old.lists:,} of the live bundle's"
    return rate_exceeds((new.degraded, new.lists), (old.degraded, old.lists), limits.trial_errors) >= SURE, words


def _slow(what: str, new: Sequence[float], old: Sequence[float], limits: ReleaseSettings) -> tuple[bool, str]:
    if len(old) < LEAST_LISTS or not new:
        return False, f"its times are not known yet ({len(old):,} lists to compare with)"
    times = np.array(new)
    tail, limit = float(np.quantile(times, 0.99)), limits.trial_slower * float(np.quantile(np.array(old), 0.99))
    words = (
        f"99 of 100 lists took at most {1e3 * tail:.1f} ms {what}".rstrip()
        + f", {1e3 * limit / limits.trial_slower:.1f} ms with the live bundle"
    )
    return more_than(int((times > limit).sum()), len(times), SLOW_SHARE) >= SURE, words
