"""Faults of a service and of its data, each planted in a running world, with the alerts that must tell of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from tastemaker.journal.read import EVENT_SCHEMA
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.events import Event
from tastemaker.schema.protocols import FloatArray
from watched_world import World

Plant = Callable[[World], None]


def stale_features(world: World) -> None:
    """The journal is not folded any more."""
    world.answers.live.poll = lambda *_: None  # type: ignore[method-assign]


def dead_encoder(world: World) -> None:
    """Every text is read as nothing in particular, while the shop adds things."""
    encoder = world.answers.live.brain.text
    encoder.encode = lambda texts: np.full((len(texts), encoder.width), 0.1, dtype=np.float32)  # type: ignore[method-assign]
    world.every.append(lambda now: world.add_item())


def popularity_collapse(world: World) -> None:
    """Everybody is shown what is popular."""
    channels = world.answers.live.channels
    _score_by(world, lambda found: channels.popular[found.items].astype(np.float32))


def traffic_shift(world: World) -> None:
    """Only people of one kind come."""
    world.crowd.who = [f"u{user}" for user in range(0, len(world.crowd.tastes.users), 3)]


def unit_change(world: World) -> None:
    """A client sends percent where it sent stars."""
    before = world.crowd.value
    assert before is not None
    world.crowd.value = lambda liking: 20 * before(liking)


def nan_scores(world: World) -> None:
    """The model gives no numbers."""
    _score_by(world, lambda found: np.full(len(found.items), np.nan, dtype=np.float32))


def bot_flood(world: World) -> None:
    """One client sends 240 events a minute."""

    def flood(now: float) -> None:
        world.tell(
            [Event(user_id="bot", item_id=f"boots-{number}", timestamp=now, event_type="click", value=1.0) for number in range(120)]
        )

    world.every.append(flood)


def frozen_journal(world: World) -> None:
    """Nothing can be written."""
    world.writer.journal._database.execute("PRAGMA query_only = ON")


def lost_memory(world: World) -> None:
    """What features remember of people and items is gone, as after a start without the journal."""
    state = world.answers.live.state
    assert state.features is not None
    state.features = state.features.rebuilt(pl.DataFrame(schema=EVENT_SCHEMA))


FAULTS: dict[str, tuple[Plant, set[str]]] = {
    "stale features": (stale_features, {"FeaturesStale"}),
    "dead encoder": (dead_encoder, {"Drift"}),
    "popularity collapse": (popularity_collapse, {"Drift", "ListsCollapsed"}),
    "traffic shift": (traffic_shift, {"Drift"}),
    "unit change": (unit_change, {"Drift"}),
    "NaN scores": (nan_scores, {"ScoresNotFinite"}),
    "bot flood": (bot_flood, {"EventsSuspicious"}),
    "lost memory": (lost_memory, {"Drift"}),
    "frozen journal": (frozen_journal, {"EventsNotStored", "EventsSilent"}),
}
"""By name: how it is planted, and the alerts of which one must tell."""


def _score_by(world: World, score: Callable[[ChannelScores], Any]) -> None:
    road = world.answers.live.road
    road.ranker, right = None, road.fusion

    class Wrong:
        def score(self, found: ChannelScores, history_length: int) -> FloatArray:
            return score(found)

        def parts(self, found: ChannelScores, history_length: int) -> FloatArray:
            return right.parts(found, history_length)

    wrong = road.fusion = Wrong()
    for stages in (road.stages, road.after_source):
        stages[:] = [(name, stage) for name, stage in stages if name not in ("hydrate", "rank")]
        for _, stage in stages:
            if hasattr(stage, "_fusion"):
                stage._fusion = wrong
