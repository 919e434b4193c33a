"""When something is wrong, said once: each condition writes itself as PromQL and evaluates itself on the service's own figures."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tastemaker.monitoring.metrics import Samples

FINE, FINE_SECONDS, COARSE_SECONDS, LONGEST = 10.0, 7_200.0, 300.0, 3 * 86_400.0
"""Looks are remembered every 10 seconds for two hours, every 5 minutes for three days."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True)
class Series:
    """Some series of one metric: those whose labels match, a regular expression a label, as in Prometheus."""

    name: str
    match: tuple[tuple[str, str], ...] = ()

    def promql(self, window: str = "") -> str:
        """The selector."""
        inner = ",".join(f'{label}=~"{pattern}"' for label, pattern in self.match)
        return self.name + (f"{{{inner}}}" if inner else "") + (f"[{window}]" if window else "")

    def read(self, samples: Samples) -> dict[tuple[tuple[str, str], ...], float]:
        """Its values of one look, by labels."""
        found = {}
        for (name, labels), value in samples.items():
            if name == self.name and all(re.fullmatch(pattern, dict(labels).get(label, "")) for label, pattern in self.match):
                found[labels] = value
        return found


class History:
    """Looks at some series' sums, over three days.

    Args:
        series: whose sums are remembered.
    """

    def __init__(self, series: Iterable[Series]) -> None:
        self._series = list(dict.fromkeys(series))
        self._times: list[float] = []
        self._sums: list[dict[Series, float]] = []
        self.now = 0.0
        self.samples: Samples = {}

    def add(self, samples: Samples, now: float) -> None:
        """A look: all series' values at a moment."""
        self.now, self.samples = now, samples
        if self._times and now - self._times[-1] < FINE:
            return
        self._times.append(now)
        self._sums.append({one: sum(one.read(samples).values()) for one in self._series})
        self._thin(now)

    def increase(self, series: Series, seconds: float) -> float:
        """How much a sum grew in the last seconds, or since the first look."""
        if not self._times:
            return 0.0
        place = max(bisect_right(self._times, self.now - seconds) - 1, 0)
        return max(sum(series.read(self.samples).values()) - self._sums[place][series], 0.0)

    def _thin(self, now: float) -> None:
        """Leaves one look of five minutes where they are older than two hours; forgets those before three days."""
        if len(self._times) % 64:
            return
        kept: list[int] = []
        for place, time in enumerate(self._times):
            if time < now - LONGEST - COARSE_SECONDS:
                continue
            if time < now - FINE_SECONDS and kept and time - self._times[kept[-1]] < COARSE_SECONDS:
                continue
            kept.append(place)
        self._times, self._sums = [self._times[place] for place in kept], [self._sums[place] for place in kept]


class Condition(Protocol):
    """What a rule asks."""

    def promql(self) -> str:
        """The same in Prometheus' language; whatever series it gives are wrong."""

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """Labels and value of whatever is wrong now."""

    def series(self) -> list[Series]:
        """Whose sums have to be remembered."""


@dataclass(frozen=True)
class Above:
    """A figure is above a limit, or below it. `least_of`: only where this other figure is at least so much."""

    figure: Series
    limit: float
    below: bool = False

    def promql(self) -> str:
        """As in `Condition`."""
        return f"{self.figure.promql()} {'<' if self.below else '>'} {self.limit:g}"

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        found = self.figure.read(history.samples)
        return [(dict(labels), x) for labels, x in found.items() if (x < self.limit if self.below else x > self.limit)]

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return []


@dataclass(frozen=True)
class AboveOther:
    """A figure is above another figure with the same labels."""

    figure: Series
    other: Series
    by: tuple[str, ...]

    def promql(self) -> str:
        """As in `Condition`."""
        return f"{self.figure.promql()} > on({', '.join(self.by)}) {self.other.promql()}"

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        limits = {self._key(dict(labels)): x for labels, x in self.other.read(history.samples).items()}
        found = self.figure.read(history.samples)
        return [(dict(labels), x) for labels, x in found.items() if x > limits.get(self._key(dict(labels)), float("inf"))]

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return []

    def _key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels.get(name, "") for name in self.by)


@dataclass(frozen=True)
class Share:
    """A part of a whole, counted over each of some windows (seconds), is above a limit in all of them.

    Attributes:
        part, whole: counters. limit: in [0, 1]. rest: the part is what must not be missing: 1 - part / whole is above the limit.
        least: the whole must have grown by so much in the shortest window.
    """

    part: Series
    whole: Series
    limit: float
    windows: tuple[float, ...]
    rest: bool = False
    least: float = 0.0

    def promql(self) -> str:
        """As in `Condition`."""
        asked = [self._one(window) for window in self.windows]
        if self.least:
            asked.append(f"sum(increase({self.whole.promql(duration(min(self.windows)))})) > {self.least:g}")
        return " and ".join(asked)

    def _one(self, window: float) -> str:
        w = duration(window)
        share = f"sum(rate({self.part.promql(w)})) / sum(rate({self.whole.promql(w)}))"
        return f"(1 - {share}) > {self.limit:.6g}" if self.rest else f"({share}) > {self.limit:.6g}"

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        shares = []
        for window in self.windows:
            whole = history.increase(self.whole, window)
            if whole <= 0:
                return []
            share = history.increase(self.part, window) / whole
            shares.append(1 - share if self.rest else share)
        if self.least and history.increase(self.whole, min(self.windows)) <= self.least:
            return []
        return [({}, shares[0])] if min(shares) > self.limit else []

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return [self.part, self.whole]


@dataclass(frozen=True)
class Grew:
    """A counter grew by more than a number in a window (seconds)."""

    counter: Series
    window: float
    by: float = 0.0

    def promql(self) -> str:
        """As in `Condition`."""
        return f"sum(increase({self.counter.promql(duration(self.window))})) > {self.by:g}"

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        grown = history.increase(self.counter, self.window)
        return [({}, grown)] if grown > self.by else []

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return [self.counter]


@dataclass(frozen=True)
class Since:
    """A moment (epoch seconds) is longer ago than so many seconds; with `busy` only while that counter grows in the same time."""

    moment: Series
    seconds: float
    busy: Series | None = None

    def promql(self) -> str:
        """As in `Condition`."""
        asked = f"time() - max({self.moment.promql()}) > {self.seconds:g}"
        if self.busy is not None:
            asked += f" and sum(increase({self.busy.promql(duration(self.seconds))})) > 0"
        return asked

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        found = self.moment.read(history.samples)
        if not found or (self.busy is not None and history.increase(self.busy, self.seconds) <= 0):
            return []
        ago = history.now - max(found.values())
        return [({}, ago)] if ago > self.seconds else []

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return [self.busy] if self.busy is not None else []


@dataclass(frozen=True)
class Either:
    """One of two conditions holds."""

    one: Condition
    two: Condition

    def promql(self) -> str:
        """As in `Condition`."""
        return f"({self.one.promql()}) or ({self.two.promql()})"

    def wrong(self, history: History) -> list[tuple[dict[str, str], float]]:
        """As in `Condition`."""
        return self.one.wrong(history) or self.two.wrong(history)

    def series(self) -> list[Series]:
        """As in `Condition`."""
        return [*self.one.series(), *self.two.series()]


@dataclass(frozen=True)
class Rule:
    """One alert.

    Attributes:
        name: also the file name of its page in docs/runbooks. severity: `page` (somebody must look now) or `ticket` (on a working day).
        condition: what is wrong. seconds: for so long before it fires. summary: one sentence, `{{ $value }}` is the figure.
        metrics: names that it reads.
    """

    name: str
    severity: str
    condition: Condition
    seconds: float
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)


def duration(seconds: float) -> str:
    """As Prometheus writes it: `5m`, `3d`, `90s`."""
    whole = max(round(seconds), 1)
    return next(f"{whole // size}{unit}" for size, unit in _UNITS if whole % size == 0)
