"""One number, three roads: what the stage writes for an event is what a table at once gives for it, and what a service would have answered."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tastemaker.data.stage import feature_table, stage
from tastemaker.features import timeline
from tastemaker.features.base import FeatureQuery
from tastemaker.features.declare import declare
from tastemaker.features.facts import tied_ids
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.memories.memory import Memory
from tastemaker.features.parts import _arrays
from tastemaker.features.past import Log
from tastemaker.schema.events import Event

sys.path.append(str(Path(__file__).parents[1] / "features"))
from world import DAY, EVENTS, EVERY, IDS, features, fold, table

BEGIN = 20_000 * DAY
ALL_FEATURES = features()
quick = settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])


def dated(events: Sequence[Event]) -> list[Event]:
    """The events at times that are times: nobody's events lie in 1970, and each has one."""
    return [msgspec.structs.replace(event, timestamp=BEGIN + (event.timestamp or 0.0)) for event in events]


def staged(made: FeatureSet, events: Sequence[Event], rows: int, segment: int = 7) -> pl.DataFrame:
    """The stage's numbers in the order of the log, which came in several segments."""
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), table(events)
        segments = []
        for begin in range(0, len(events), segment):
            path = folder / f"{begin}.parquet"
            log.slice(begin, segment).drop("seq").write_parquet(path)
            segments.append((path, begin))
        stage(segments, folder / "stage", rows=rows, features=made)
        return feature_table(folder / "stage").collect().sort("seq")


def same(made: FeatureSet, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal numbers; a difference is told by the name of its column."""
    wrong = ~np.isclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not wrong.any(), ", ".join(made.names[column] for column in np.flatnonzero(wrong.any(axis=0)))


def three_roads(made: FeatureSet, events: Sequence[Event], rows: int) -> None:
    """The stage, the table at once, and a service that folded the events before each."""
    ours, log = staged(made, events, rows).select(made.names).to_numpy(), table(events)
    same(made, ours, made.rows(log, log))
    for place, event in enumerate(events):
        state = fold(made, [other for other in events if other.timestamp < event.timestamp])  # type: ignore[operator]
        query = FeatureQuery(event.user_id, [event.item_id], float(event.timestamp or 0.0), event.context)
        same(made, ours[place : place + 1], made.gives(state, query))


@quick
@given(events=EVENTS.filter(bool), rows=st.integers(1, 30))
def test_law_the_stage_gives_the_numbers_of_a_table_at_once_and_of_a_service(events: list[Event], rows: int) -> None:
    three_roads(ALL_FEATURES, dated(events), rows)


SIX = [
    Event(event_id=f"e{n}", user_id="u", item_id="boots", event_type="view", timestamp=BEGIN + DAY * (n // 2), value=4.0)
    for n in range(6)
]


@pytest.mark.parametrize("text", ["item_events", "user_item", "affinity", "item_rank"])
def test_a_stage_that_sees_ties_is_caught(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, log = features(text), table(SIX)
    honest = made.rows(log, log)
    monkeypatch.setattr(timeline, "STRICTLY_BEFORE", "right")  # the classic leak: <= instead of <
    with pytest.raises(AssertionError, match=text):
        same(made, staged(made, SIX, rows=2).select(made.names).to_numpy(), honest)


MEMORIES = list(dict.fromkeys(memory for text in EVERY for memory in declare(text).feature.remembers if not memory.key.paired))


@pytest.mark.parametrize("kind", sorted({type(memory).__name__ for memory in MEMORIES}))
@quick
@given(one=EVENTS, two=EVENTS, later=st.sampled_from([0.0, 900.0, 3 * DAY]))
def test_law_two_contents_joined_are_that_of_all_events(kind: str, one: list[Event], two: list[Event], later: float) -> None:
    """Whichever came first; told at the latest time and after it."""
    two = [msgspec.structs.replace(event, event_id=f"f{event.event_id}") for event in two]
    log, facts = table(one + two), ALL_FEATURES._facts.copy()
    rows, ids = facts.events(log, ordered=True, devices=True), tied_ids(log)
    now = rows.now.max(initial=0.0) + later

    def content(memory: Memory[Any], part: slice) -> Any:
        line = Log(facts, rows.part(part)).line(memory)
        return memory.batch(line, line.codes, ids[part])

    for memory in (memory for memory in MEMORIES if type(memory).__name__ == kind):
        parts = content(memory, slice(0, len(one))), content(memory, slice(len(one), None))
        joined, whole = memory.joined(*parts), content(memory, slice(None))
        slots = np.arange(-1, max(len(facts.user), len(facts.item), 30))
        answers = (memory.read(held, slots, np.full(len(slots), now)) for held in (joined, whole))
        for ours, theirs in zip(*map(_arrays, answers), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=str(memory))


def test_many_slices_are_one_table() -> None:
    """Long enough that memories are carried over many slices, blocks of fading and midnights."""
    rng, events = np.random.default_rng(5), []
    for n in range(120):
        user, item = f"u{rng.zipf(1.5) % 9}", IDS[rng.integers(len(IDS))]
        kind, value = rng.choice(["view", "buy", "rate"]), float(rng.integers(1, 6))
        at = BEGIN + 3_600.25 * float(rng.integers(0, 200))
        events.append(Event(event_id=f"{n}", user_id=user, item_id=item, event_type=kind, timestamp=at, value=value))
    log = table(events)
    found = staged(ALL_FEATURES, events, rows=60, segment=50)
    same(ALL_FEATURES, found.select(ALL_FEATURES.names).to_numpy(), ALL_FEATURES.rows(log, log))
