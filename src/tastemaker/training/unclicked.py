"""What the answer that a held-back event was chosen from showed in vain: the sharpest negatives that a log can give a ranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.impressions import impressions
from tastemaker.data.negatives import OwnItems, Unclicked
from tastemaker.data.sequences import Sequences
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import IntArray
from tastemaker.schema.settings import SamplingSettings


@dataclass(frozen=True)
class LeftAlone:
    """What the answers of held-back events left alone.

    Attributes:
        request: user · items + item of a click, to its answer; where a user clicked an item more than once, the first time counts.
        source: what each answer showed in vain, without what its user took another day.
        n_items: N.
        places: of each answer, where it showed an item (0 is the first): answer to item to place.
    """

    request: dict[int, int]
    source: Unclicked
    n_items: int
    places: dict[int, dict[int, int]]

    def positions(self, user: int, target: int, items: IntArray) -> NDArray[np.int64]:
        """Where the answer of a target showed items, int64 [n]; -1 where it did not, or the log does not tell."""
        known = self.places.get(self.request.get(user * self.n_items + target, -1), {})
        return np.array([known.get(item, -1) for item in items.tolist()], dtype=np.int64)

    def of(self, user: int, target: int) -> IntArray:
        """Items that were shown beside the target and left alone, int32 [n]; none where no answer is known."""
        request = self.request.get(user * self.n_items + target)
        if request is None:
            return np.zeros(0, dtype=np.int32)
        return self.source.of(request)


def left_alone(sequences: Sequences, log: pl.DataFrame, item_ids: list[str], settings: SamplingSettings) -> LeftAlone | None:
    """Joins the clicks of a log with what was shown beside them; None where the log tells of nothing shown or the settings do not want it.

    Args:
        sequences: the whole histories; what a user meets in the end is no negative.
        log: every event, whatever its type. item_ids: what an index stands for.
        settings: `ranker`, `shown` and `clicked` are read.
    """
    if settings.ranker == "candidates" or Columns.EVENT_TYPE not in log.columns:
        return None
    if not log[Columns.EVENT_TYPE].is_in(list(settings.shown)).any():
        return None
    shown = impressions(log, settings.shown, settings.clicked)
    clicks, source = shown.unclicked(sequences.user_ids, item_ids, OwnItems(sequences))
    keys = clicks.users * len(item_ids) + clicks.items
    request: dict[int, int] = {}
    for key, number in zip(keys.tolist(), clicks.requests.tolist() if clicks.requests is not None else [], strict=True):
        request.setdefault(key, number)
    return LeftAlone(request, source, len(item_ids), shown.places(sequences.user_ids, item_ids))
