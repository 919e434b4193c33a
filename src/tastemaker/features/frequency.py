"""How often somebody or something was met: ever, in a window, or lately. Items and users are counted by the same lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.base import DAY, Look, Numbers
from tastemaker.features.key import Key
from tastemaker.features.memories.faded import Faded
from tastemaker.features.memories.memory import Memory
from tastemaker.features.memories.tally import Tally
from tastemaker.features.memories.window import Window
from tastemaker.features.parameters import Seconds
from tastemaker.features.which import ALL, Which


@dataclass(frozen=True)
class Events:
    """log(1 + events of a key), ever or in a window. 0 for what was never met."""

    of: Which = ALL
    window: Seconds = np.inf

    key: ClassVar[Key]
    columns = ("",)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A tally, or a window."""
        return (Tally(self.key, self.of) if np.isinf(self.window) else Window(self.key, self.of, self.window),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The count."""
        if np.isinf(self.window):
            return (_logs(look(Tally(self.key, self.of)).events),)
        return (_logs(look(Window(self.key, self.of, self.window))),)


@dataclass(frozen=True)
class FadedEvents:
    """log(1 + faded events of a key). 0 for what was never met."""

    of: Which = ALL
    half_life: Seconds = 7 * DAY

    key: ClassVar[Key]
    columns = ("",)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """A faded sum."""
        return (Faded(self.key, self.of, self.half_life),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The sum."""
        return (np.log1p(look(Faded(self.key, self.of, self.half_life))),)


def _logs(counts: NDArray[np.int64]) -> Numbers:
    """log(1 + counts), which few different numbers have: each is computed once, float64 [m]."""
    most = int(counts.max(initial=0))
    return np.log1p(counts) if most > len(counts) else np.log1p(np.arange(most + 1))[counts]
