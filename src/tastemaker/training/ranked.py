"""Lists of a brain that was just trained, ordered by its ranker as a service would: features as of each question's own moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.features.ranking import ListRanker
from tastemaker.models.segments import newcomer_scores
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import Asker, FloatArray, IntArray, QueryState

if TYPE_CHECKING:
    from tastemaker.training.fit import TrainedBrain

_PART = 2_048
"""Questions whose features are looked up together."""
_BATCH = 256


@dataclass(frozen=True)
class Asked:
    """Who asks, and when.

    Attributes:
        users: user ids, [Q]. times: epoch seconds of the questions, float64 [Q].
        log: all that happened; of it a question is told what came before its own moment.
    """

    users: Sequence[str]
    times: NDArray[np.float64]
    log: pl.DataFrame


def recommend_ranked(brain: TrainedBrain, states: Sequence[QueryState], asked: Asked, k: int) -> list[tuple[IntArray, FloatArray]]:
    """The k best items for each question and their final scores, best first.

    Args:
        brain: with a ranker. states: of the histories, [Q].
    """
    ranker, best = list_ranker(brain), []
    for begin in range(0, len(states), _PART):
        part = slice(begin, begin + _PART)
        found = list(_candidates(brain, states[part]))
        scores = [brain.fusion.score(one, len(state.history)) for one, state in zip(found, states[part], strict=True)]
        first = [ranker.first(score) for score in scores]
        told = _told(brain, found, first, asked, part) if ranker.decides else None
        for place, (one, score, state) in enumerate(zip(found, scores, states[part], strict=True)):
            asker = Asker(asked.users[begin + place], float(asked.times[begin + place]))
            state = msgspec.structs.replace(state, asker=asker)
            final = score
            if ranker.decides:
                final = ranker.ranked(one, score, state, first[place], None if told is None else told[place]).scores
            final = newcomer_scores(final, one, state)
            order = np.argsort(-final, kind="stable")[:k]
            best.append((one.items[order], final[order]))
    return best


def list_ranker(brain: TrainedBrain) -> ListRanker:
    """The brain's ranker over its own catalogue."""
    assert brain.ranker is not None
    given, channels = brain.ranker.input, brain.channels
    codes = given.categories.of_items(list(brain.catalogue.iter_rows(named=True)))
    return ListRanker.wanted(
        brain.ranker.ranker,
        given,
        brain.fusion,
        channels.items.rows,
        channels.text.rows,
        lambda items: codes[items],
        brain.settings.ranker,
    )


def _candidates(brain: TrainedBrain, states: Sequence[QueryState]) -> Iterator[ChannelScores]:
    for begin in range(0, len(states), _BATCH):
        yield from brain.channels.candidates(states[begin : begin + _BATCH], brain.settings.fusion.depth)


def _told(
    brain: TrainedBrain, found: Sequence[ChannelScores], first: Sequence[NDArray[np.int64]], asked: Asked, part: slice
) -> list[FloatArray] | None:
    """Declared features of the candidates that are ordered, one array a question; None where the brain has none."""
    if brain.features is None:
        return None
    sizes = [len(places) for places in first]
    ids = brain.sequences.item_ids
    queries = pl.DataFrame(
        {
            Columns.USER_ID: np.repeat(np.array(list(asked.users[part]), dtype=object), sizes),
            Columns.ITEM_ID: [ids[item] for one, places in zip(found, first, strict=True) for item in one.items[places].tolist()],
            Columns.TIMESTAMP: np.repeat(asked.times[part], sizes),
        },
        schema_overrides={Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String},
    )
    return np.split(brain.features.features.rows(asked.log, queries), np.cumsum(sizes)[:-1])
