"""Has a stream changed: Page's cumulative sums, one number at a time."""

from __future__ import annotations

import math


class PageHinkley:
    """Watches the mean of a stream, both ways (E. S. Page, 1954; D. V. Hinkley, 1971), in units of its own standard deviation.

    Mean and spread are those of the first `warm` numbers and then stand still, so that a slow change does not hide itself. The mean time between false
    alarms of independent numbers grows as exp(2 * slack * limit); a shift by d is found after about limit / (d - slack) numbers.

    Args:
        slack: shifts below this many standard deviations are let pass. limit: sum at which the stream has changed. warm: numbers that are only learned from.

    Attributes:
        statistic: the larger of both sums.
    """

    def __init__(self, slack: float = 0.15, limit: float = 60.0, warm: int = 300) -> None:
        self.slack, self.limit, self.warm = slack, limit, warm
        self.reset()

    def reset(self) -> None:
        """Learns anew, as after a release."""
        self._n, self._mean, self._square = 0, 0.0, 0.0
        self._up = self._down = 0.0

    @property
    def statistic(self) -> float:
        """How far the sums have got."""
        return max(self._up, self._down)

    @property
    def changed(self) -> bool:
        """The mean is another one."""
        return self.statistic > self.limit

    def add(self, value: float) -> None:
        """The next number; what is not finite is left out."""
        if not math.isfinite(value):
            return
        if self._n < self.warm:  # B. P. Welford, 1962
            self._n += 1
            gap = value - self._mean
            self._mean += gap / self._n
            self._square += gap * (value - self._mean)
            return
        spread = math.sqrt(self._square / self._n) or max(abs(self._mean), 1e-9)
        away = (value - self._mean) / spread
        self._up = max(0.0, self._up + away - self.slack)
        self._down = max(0.0, self._down - away - self.slack)
