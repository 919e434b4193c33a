"""Which items are fresh right now: those of which little is known. An item graduates by being taken, by being shown, or by its age."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.protocols import FloatArray, IntArray
from tastemaker.schema.settings import FreshSettings

DAY = 86_400.0


@dataclass
class Evidence:
    """What is known of one item.

    Attributes:
        taken, shown: events. born: epoch seconds of `created_at`, or None.
    """

    taken: int = 0
    shown: int = 0
    born: float | None = None

    def graduated(self, rule: FreshSettings, now: float) -> str | None:
        """The reason why the item is fresh no more; None while it is."""
        if rule.graduate_taken and self.taken >= rule.graduate_taken:
            return f"taken {self.taken} times"
        if rule.graduate_shown and self.shown >= rule.graduate_shown:
            return f"shown {self.shown} times"
        if rule.graduate_days and self.born is not None and now - self.born >= rule.graduate_days * DAY:
            return f"{(now - self.born) / DAY:.0f} days old"
        return None


class FreshItems:
    """Evidence of the items that can be fresh: those newer than the bundle, and young ones of the bundle whose `created_at` is known.

    Args:
        created: epoch seconds of `created_at` of the bundle's items, float64 [n_base]; NaN where unknown. trained: training events of each, [n_base].
        rule: when an item graduates. now: epoch seconds.
    """

    def __init__(self, created: NDArray[np.float64], trained: FloatArray, rule: FreshSettings, now: float) -> None:
        self.n_base, self._trained, self.rule = len(created), trained, rule
        self._evidence: dict[int, Evidence] = {}
        for place in np.flatnonzero(~np.isnan(created)).tolist():
            one = Evidence(int(trained[place]), 0, float(created[place]))
            if one.graduated(rule, now) is None:
                self._evidence[place] = one
        self._fresh: IntArray | None = None
        self._until = np.inf

    def add(self, place: int) -> None:
        """An item that is newer than the bundle."""
        self._evidence.setdefault(place, Evidence())
        self._fresh = None

    def put(self, place: int, created_at: float | None) -> None:
        """An item's fields were written."""
        if place not in self._evidence and place < self.n_base and created_at is not None:
            self._evidence[place] = Evidence(int(self._trained[place]))
        if place in self._evidence:
            self._evidence[place].born = created_at
            self._fresh = None

    def take(self, place: int) -> None:
        """Somebody took the item."""
        if place in self._evidence:
            self._evidence[place].taken += 1
            self._fresh = None

    def show(self, place: int) -> None:
        """Somebody was shown the item."""
        if place in self._evidence:
            self._evidence[place].shown += 1
            self._fresh = None

    def now(self, now: float) -> IntArray:
        """Items that are fresh at a time (epoch seconds), growing, int32 [F]; counted anew only when something changed or the next one is too old."""
        if self._fresh is None or now >= self._until:
            young = sorted(place for place, one in self._evidence.items() if one.graduated(self.rule, now) is None)
            self._fresh = np.array(young, dtype=np.int32)
            days = self.rule.graduate_days
            born = [one.born for place in young if (one := self._evidence[place]).born is not None] if days else []
            self._until = min((float(time) + days * DAY for time in born if time is not None), default=np.inf)
        return self._fresh

    def why_not(self, place: int, now: float) -> str | None:
        """Why an item is not fresh; None if it is."""
        one = self._evidence.get(place)
        return "the bundle knows it" if one is None else one.graduated(self.rule, now)
