"""A release in stages: shadow, canary, live. What stage it has reached is kept with the other stages, so that a restart goes on where it was."""

from __future__ import annotations

import msgspec

from tastemaker.schema.settings import ReleaseSettings

SHADOW, CANARY, CONTROL, LIVE = "shadow", "canary", "control", "live"
"""Variants of an answer, and the names of the stages; `control`: people with the live bundle with whom those of the canary are compared."""


class Rollout(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One release under way.

    Attributes:
        version: the bundle on trial. experiment: deals users to variants; another name deals anew.
        limits: what it must show, as it was when the release began.
        step: which of the canary's shares; -1 in the shadow. began: epoch seconds at which this stage began. position: the journal's last event then.
        who, why: who began the release, and their words.
    """

    version: str
    experiment: str
    limits: ReleaseSettings = ReleaseSettings()
    step: int = -1
    began: float = 0.0
    position: int = 0
    who: str = ""
    why: str = ""

    @property
    def shadow(self) -> int:
        """So many mirrored lists come first; 0: none."""
        return self.limits.shadow

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the users, in (0, 1), step by step; empty: it goes live after the shadow."""
        return self.limits.canary

    @property
    def stage(self) -> str:
        """`shadow` or `canary`."""
        return SHADOW if self.step < 0 else CANARY

    @property
    def share(self) -> float:
        """Share of the users who are answered by the bundle on trial, in [0, 1)."""
        return 0.0 if self.step < 0 else self.shares[self.step]

    @property
    def dealt(self) -> dict[str, float]:
        """Shares of the variants: the canary first, so that who is in it stays in it as it grows; a control group of its size last."""
        control = min(self.share, 1 - self.share)
        return {CANARY: self.share, LIVE: 1 - self.share - control, CONTROL: control}

    def started(self, now: float, position: int) -> Rollout:
        """The same at its first stage."""
        return msgspec.structs.replace(self, step=-1 if self.shadow else 0, began=now, position=position)

    def next(self, now: float, position: int) -> Rollout | None:
        """The same one stage further; None: it goes live."""
        if self.step + 1 >= len(self.shares):
            return None
        return msgspec.structs.replace(self, step=self.step + 1, began=now, position=position)
