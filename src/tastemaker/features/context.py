"""When and on what it is asked: time of the day, day of the week, device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import DAY, Look, Numbers
from tastemaker.features.facts import DEVICES
from tastemaker.features.memories.memory import Memory
from tastemaker.schema.columns import Columns

MONDAY = 4 * DAY
"""The first Monday after the epoch, which began on a Thursday."""


@dataclass(frozen=True)
class TimeOfDay:
    """Sine and cosine of the time of the day (0 at midnight) and of the week (0 on Monday, 0:00), so that 23:59 lies beside 0:00.

    `east`: hours ahead of UTC of those who are asked, as in `east=8` for China; 24 - n for n hours west. Four zeros without a time.
    """

    east: float = 0.0

    columns = ("day_sin", "day_cos", "week_sin", "week_cos")
    reads = (Columns.TIMESTAMP,)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Nothing."""
        return ()

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The four numbers."""
        timed = np.isfinite(look.rows.now)
        local = np.where(timed, look.rows.now, 0.0) + self.east * 3_600.0
        day, week = (2 * np.pi * (moment / length % 1.0) for moment, length in ((local, DAY), (local - MONDAY, 7 * DAY)))
        return tuple(np.where(timed, number, 0.0) for number in (np.sin(day), np.cos(day), np.sin(week), np.cos(week)))


@dataclass(frozen=True)
class Device:
    """1 for the device that the context names (`{"device": "mobile"}`), 0 for the others. All zeros where none or another one is named."""

    columns = DEVICES
    reads = (Columns.CONTEXT,)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Nothing."""
        return ()

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """One number for each known device."""
        return tuple((look.rows.device == look.facts.device.find(name)).astype(np.float64) for name in DEVICES)
