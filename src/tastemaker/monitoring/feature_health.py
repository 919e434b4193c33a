"""How features of the last hour are: missing, out of range, drifted; against what the bundle knew, or against the hour before.

A feature of the catalogue or the context (a price, words, a device) has a fixed reference: the bundle's own lists. One that remembers what happened has none:
counts grow without bound, items grow older, what is shown is met more often and shown the more, and each is as it should be. Within 24 clean hours the order of
counts within a list moves as far from that of the release as the counts do, so neither ranks nor scaling help; but all of it is slow. What breaks a memory (it
is lost, a unit changes, a source stops) is sudden. So features with a memory are compared with the window before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.journal.sampled import Sampled
from tastemaker.monitoring import drift
from tastemaker.monitoring.drift import Bins, Drift
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.settings import AlertSettings

ROUNDING = 1e-5
"""Of float32, relative."""
FRESH_SLOT = "fresh slot"
"""The source of places that the reference has not: they are left out where places are compared with it."""
MOVING = 2.0
"""Times the effect: from one hour to the next people and popular things change by themselves, those of a daily board (`item_rank`) at midnight."""
NOWHERE = (np.inf, -np.inf)
"""The range of nothing."""


@dataclass(frozen=True)
class FeatureReference:
    """What a feature was like before.

    Attributes:
        low, high: of its numbers in training and in the bundle's lists; infinity and its negative where neither tells.
        read: less the mean of their list, as a ranker reads them, in the bundle's lists; None: it remembers what happened, so the window before is its reference.
    """

    low: float
    high: float
    read: Bins | None = None


@dataclass(frozen=True)
class _Told:
    """Features of one list: raw float32 [k, F]; read [places that the fresh slot did not take, F]."""

    time: float
    user: str
    raw: NDArray[np.float32]
    read: NDArray[np.float32]


class FeatureHealth:
    """Figures of features in a window, of lists for people whom the bundle knows.

    Args:
        settings: thresholds and window. metrics: where figures go.
    """

    def __init__(self, settings: AlertSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._reference: Mapping[str, FeatureReference] = {}
        self._names: list[str] = []
        self._now: deque[_Told] = deque()
        self._before: deque[_Told] = deque()

    def begin(self, reference: Mapping[str, FeatureReference]) -> None:
        """A bundle goes live, with what its features are like by name."""
        self._reference = reference
        self._now.clear()
        self._before.clear()

    def shown(self, answer: Sampled) -> None:
        """A list of the sample."""
        asked = [place for place, source in enumerate(answer.sources) if source != FRESH_SLOT]
        if not (answer.known and answer.user_id and answer.values and asked):
            return
        if answer.names != self._names:
            self._names = answer.names
            self._now.clear()
            self._before.clear()
        raw = np.array([[np.nan if x is None else x for x in row] for row in answer.values], dtype=np.float64)
        self._now.append(_Told(answer.time, answer.user_id, raw.astype(np.float32), within(raw[asked]).astype(np.float32)))

    def look(self, now: float) -> list[Drift]:
        """Sets the figures of the window that ends now; gives the checks of drift."""
        window = self._settings.window_seconds
        while self._now and self._now[0].time < now - window:
            self._before.append(self._now.popleft())
        while self._before and self._before[0].time < now - 2 * window:
            self._before.popleft()
        owners = _owners(self._now)
        if drift.independent(owners) < self._settings.drift_rows:
            return []
        raw, read = _tables(self._now)
        past = _Past.of(self._before, self._settings.drift_rows)
        found = []
        for place, name in enumerate(self._names):
            values, reference = raw[:, place], self._reference.get(name)
            finite = np.isfinite(values)
            self._metrics.set("tastemaker_feature_missing_ratio", float(1 - finite.mean()), feature=name)
            if reference is None:
                continue
            before, seen, effect = reference.read, [(reference.low, reference.high)], self._settings.drift_effect
            if before is None and past is not None:
                effect *= MOVING
                before = past.bins(place)
                seen.append(_range_of(past.raw[:, place]))
            self._range(name, seen, values[finite])
            if before is not None:
                chance = self._settings.drift_chance
                found.append(drift.numbers(f"feature:{name}", before, read[:, place], owners, effect, chance))
        return found

    def _range(self, name: str, seen: Sequence[tuple[float, float]], values: NDArray[np.float32]) -> None:
        """Tells the share of numbers that lie further outside what was seen than that is wide; nothing where nothing is known to have been seen."""
        low, high = min(one for one, _ in seen), max(one for _, one in seen)
        if low > high:
            return
        width = max(high - low, 1e-9)
        strange = (values < low - width) | (values > high + width)
        self._metrics.set("tastemaker_feature_out_of_range_ratio", float(strange.mean()) if len(values) else 0.0, feature=name)


@dataclass(frozen=True)
class _Past:
    """The window before: tables of its lists and how many independent rows they are worth."""

    raw: NDArray[np.float32]
    read: NDArray[np.float32]
    rows: float

    @classmethod
    def of(cls, lists: Sequence[_Told] | deque[_Told], least: int) -> _Past | None:
        """None where there are too few independent rows to compare with."""
        rows = drift.independent(_owners(lists))
        return cls(*_tables(lists), rows) if rows >= least else None

    def bins(self, place: int) -> Bins | None:
        """Of one column. It is a sample as well, so its counts are those of independent rows."""
        return Bins.of(self.read[:, place], self.rows)


def within(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features of one list, [k, F], less their means there; what only rounding tells apart is equal."""
    mean = values.astype(np.float64).mean(axis=0, keepdims=True)
    found: NDArray[np.float64] = values - mean
    return np.where(np.abs(found) <= ROUNDING * np.maximum(np.abs(mean), 1.0), 0.0, found)


def _owners(lists: Sequence[_Told] | deque[_Told]) -> list[str]:
    return [one.user for one in lists for _ in range(len(one.read))]


def _tables(lists: Sequence[_Told] | deque[_Told]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.concatenate([one.raw for one in lists]), np.concatenate([one.read for one in lists])


def _range_of(values: NDArray[np.float32]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else NOWHERE
