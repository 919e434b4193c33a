"""What the user is doing right now: a session is a run of events without a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.features.base import Look, Numbers, since
from tastemaker.features.key import USER
from tastemaker.features.memories.latest import Latest
from tastemaker.features.memories.memory import Memory
from tastemaker.features.parameters import Seconds
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns

LENGTH = 20
"""Events of a session that are counted: a longer one is as good as this."""
MINUTE = 60.0


@dataclass(frozen=True)
class Session:
    """`events`: log(1 + events of the session so far), at most 20; `minutes`: log(1 + minutes it lasts); `dwell`: log(1 + minutes since the last
    event, in or out of a session), the longest span (18.93) where none is known; `last`: cosine of the texts of this item and the last one met in
    the session; `same`: share of this item's categories that the last one has. Outside a session all but `dwell` are 0.

    `gap` is the usual 30 minutes of web analytics.
    """

    of: Which = ALL
    gap: Seconds = 30 * MINUTE

    columns = ("events", "minutes", "dwell", "last", "same")
    reads = (Columns.USER_ID, Columns.ITEM_ID, Columns.TIMESTAMP, Columns.EVENT_TYPE, Columns.TEXT, Columns.CATEGORIES)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """The user's latest events."""
        return (Latest(USER, self.of, LENGTH),)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The five numbers."""
        seen = look(Latest(USER, self.of, LENGTH))
        joined = self._joined(look.rows.now, seen.times)
        length = joined.sum(axis=1)
        inside = length > 0
        oldest = seen.times[np.arange(len(length)), np.maximum(length - 1, 0)]
        minutes = np.where(inside, since(look, oldest, MINUTE), 0.0)
        last = np.where(inside, seen.items[:, 0], -1)
        return (
            np.log1p(length),
            minutes,
            since(look, seen.times[:, 0], MINUTE),
            look.cosines(last[:, None])[:, 0],
            _shared(look, last),
        )

    def _joined(self, now: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True for the latest events that hang together with this moment, bool [n, LENGTH]."""
        after = np.concatenate([now[:, None], times[:, :-1]], axis=1)
        with np.errstate(invalid="ignore"):
            close = np.isfinite(times) & (after - times <= self.gap)
        return np.logical_and.accumulate(close, axis=1)


def _shared(look: Look, last: NDArray[np.int64]) -> Numbers:
    own, other = look.facts.categories.read(look.rows.item), look.facts.categories.read(last)
    common = ((own[:, :, None] == other[:, None, :]) & (own[:, :, None] >= 0)).any(axis=2).sum(axis=1)
    share: Numbers = common / np.maximum((own >= 0).sum(axis=1), 1)
    return share
