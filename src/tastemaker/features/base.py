"""What a feature is: four answers in one file.

1. `remembers`: the state that it keeps. 2. `update`: what one event changes. 3. `reads`: the event columns that it looks at.
4. `gives`: numbers for a query. `batch` is the fast road to the same state for a whole table: a law in the tests says that it equals
the fold of single events, so what training sees and what serving sees can't drift apart. A feature must never know files or models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.events import Event

State = TypeVar("State")


@dataclass(frozen=True)
class FeatureQuery:
    """Numbers are asked for one user and several items at one moment (epoch seconds)."""

    user_id: str
    item_ids: Sequence[str]
    now: float


class Feature(Protocol[State]):
    """The shape that all features share."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that `gives` returns."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Event columns that the feature looks at."""

    def remembers(self) -> State:
        """An empty memory."""

    def update(self, state: State, event: Event) -> None:
        """Folds one event into the memory."""

    def batch(self, events: pl.DataFrame) -> State:
        """The memory after all events of a table with the journal's columns, in their order."""

    def gives(self, state: State, query: FeatureQuery) -> NDArray[np.float32]:
        """Numbers, float32 [items of the query, names]; NaN where there is nothing to tell."""


def fold(feature: Feature[State], events: Iterable[Event]) -> State:
    """The memory after single events, one by one: what a service does all day."""
    state = feature.remembers()
    for event in events:
        feature.update(state, event)
    return state
