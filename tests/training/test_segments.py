"""Which attributes say what people like: found on a world with one telling column, one telling number and several that say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from switching import side_by_side
from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.models import segments as segments_room
from tastemaker.models.segments import Column, Segments, newcomer_scores, with_profile
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.protocols import QueryState
from tastemaker.training.segments import learn_segments

PEOPLE, ITEMS = 400, 60


def world(telling: bool = True) -> tuple[pl.DataFrame, Sequences]:
    """People of the north take the first third of the items three times as often; those above forty the last third."""
    random = np.random.default_rng(3)
    people: list[dict[str, Any]] = []
    events = []
    for user in range(PEOPLE):
        region, age = random.choice(["North", "south"]), int(random.integers(18, 70))
        told = {
            "region": region,
            "age": str(age),
            "shoe": str(random.integers(36, 46)),
            "note": f"text {user}",
            "tags": ["a"],
            "one": "x",
        }
        people.append({"user_id": f"p{user}", "extra": json.dumps(told)})
        share = np.linspace(2, 1, ITEMS)
        if telling:
            share[:20] *= 3 if region == "North" else 1
            share[40:] *= 4 if age > 40 else 1
        for item in random.choice(ITEMS, 12, replace=False, p=share / share.sum()):
            events.append(
                {
                    "user_id": f"p{user}",
                    "item_id": f"i{item}",
                    "timestamp": 1.6e9 + len(events),
                    "event_type": "event",
                    "value": None,
                }
            )
    table = pl.DataFrame(events, schema_overrides={"value": pl.Float64})
    return pl.DataFrame(people), build(Dataset(table, pl.DataFrame()), [f"i{item}" for item in range(ITEMS)])


def test_the_telling_columns_are_chosen_and_tell_the_right_thing(tmp_path: Path) -> None:
    users, sequences = world()
    found = learn_segments(users, sequences, False, 0)
    assert found.segments is not None
    assert {column.name for column in found.segments.columns} == {"region", "age"}
    assert found.gain > 2 * found.error > 0
    assert "region" in found.note
    found.segments.save(tmp_path / "segments")
    segments = Segments.load(tmp_path / "segments")
    north, words = segments.popular({"region": "NORTH "}) or (np.zeros(0), "")
    south, _ = segments.popular({"region": "south"}) or (np.zeros(0), "")
    assert words == "region north"
    assert (north.min(), north.max()) == (0.0, 1.0)
    assert north[:20].mean() - north[20:40].mean() > south[:20].mean() - south[20:40].mean() + 0.1
    old, words = segments.popular({"age": 66}) or (np.zeros(0), "")
    young, _ = segments.popular({"age": 19.5}) or (np.zeros(0), "")
    assert words.startswith("age above")
    assert old[40:].mean() > young[40:].mean() + 0.1
    age = next(column for column in segments.columns if column.name == "age")
    assert age.edges is not None
    assert [age.segment({"age": age.edges[0]}), age.segment({"age": age.edges[0] + 1})] == [0, 1], (
        "an edge belongs to what lies below"
    )
    for nobody in ({}, {"region": "west"}, {"age": "old"}, {"region": ["north"]}, {"shoe": "40"}):
        assert segments.popular(nobody) is None
    same, _ = found.segments.popular({"region": "north", "age": 30}) or (np.zeros(0), "")
    again, _ = segments.popular({"age": 30, "region": "north"}) or (np.ones(0), "")
    assert same.tolist() == again.tolist()


def test_columns_that_say_nothing_are_refused() -> None:
    found = learn_segments(*world(telling=False), False, 0)
    assert found.segments is None
    assert "no attribute tells" in found.note
    nobody = pl.DataFrame(schema={"user_id": pl.String, "extra": pl.String})
    assert learn_segments(nobody, world()[1], False, 0).segments is None
    assert learn_segments(pl.DataFrame(), world()[1], False, 0).note == ""


def test_a_segment_is_smoothed_towards_all() -> None:
    users, sequences = world()
    found = learn_segments(users, sequences, False, 0).segments
    assert found is not None
    place = next(place for place, column in enumerate(found.columns) if column.name == "region")
    prior = np.bincount(sequences.items, minlength=ITEMS) / len(sequences.items)
    for segment in range(found.columns[place].size):
        assert (prior * np.exp(found.lift(place, segment))).sum() == pytest.approx(1, abs=0.01), "it is a distribution again"


def test_only_people_without_a_history_are_told_by_their_kind() -> None:
    import scipy.sparse as sp

    lifts = sp.csr_matrix(np.array([[0, 0, 2.0]], np.float32))
    segments = Segments(np.zeros(3, np.float32), [Column("a", values=["x"])], [np.zeros(1, np.float32)], [lifts])
    known = QueryState(np.array([1], np.int32), np.zeros(2, np.float32))
    assert with_profile(known, segments, {"a": "x"}) is known
    new = with_profile(QueryState(np.zeros(0, np.int32), None), segments, {"a": "x"})
    assert new.popular is not None
    assert new.popular.tolist() == [0, 0, 1]
    own = np.array([[0.0], [0.0], [1.0]], np.float32)
    found = ChannelScores(np.arange(3, dtype=np.int32), ("popular",), own, own.astype(np.int32), own[:, 0], 3)
    assert newcomer_scores(np.array([5, 4, 3], np.float32), found, new).tolist() == [0, 0, 1]
    stranger = QueryState(np.zeros(0, np.int32), None)
    assert newcomer_scores(np.array([5, 4, 3], np.float32), found, stranger).tolist() == [0, 0, 1], "what is popular with everybody"
    assert newcomer_scores(np.array([5, 4, 3], np.float32), found, known).tolist() == [5, 4, 3]


def _segments(items: int, regions: int) -> Segments:
    random = np.random.default_rng(4)
    lifts = sp.random(regions, items, 0.3, format="csr", rng=random, dtype=np.float32)
    column = Column("region", 0.7, values=[str(number) for number in range(regions)])
    return Segments(np.log(random.random(items, dtype=np.float32) + 0.1), [column], [np.zeros(regions, np.float32)], [lifts])


def test_the_popularity_of_the_latest_kinds_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_room, "kept_of", lambda size: 4)
    segments, fresh = _segments(50, 9), _segments(50, 9)
    first = segments.popular({"region": "0"})
    assert first is not None
    with pytest.raises(ValueError, match="read-only"):
        first[0][0] = 1
    for number in (1, 2, 3, 0, 4, 5):  # the first kind comes again, and so stays
        told, wanted = segments.popular({"region": str(number)}), fresh._popular((number,))
        assert told is not None
        assert (told[0].tolist(), told[1]) == (wanted[0].tolist(), wanted[1])
    again = segments.popular({"region": "0"})
    assert again is not None
    assert again[0] is first[0], "computed anew"
    assert segments._latest.cache_info().currsize == 4
    assert segments.popular({"region": "far"}) is None


def test_threads_may_ask_for_kinds_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_room, "kept_of", lambda size: 4)
    segments = _segments(20, 12)
    wanted = [segments._popular((number,))[0].tolist() for number in range(12)]

    def right(stride: int) -> bool:
        numbers = [turn * stride % 12 for turn in range(4_000)]
        told = [segments.popular({"region": str(number)}) for number in numbers]
        return all(one is not None and one[0].tolist() == wanted[number] for one, number in zip(told, numbers, strict=True))

    assert all(side_by_side(right, (1, 5, 7)))
