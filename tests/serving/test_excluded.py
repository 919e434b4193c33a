"""What a request excludes is left out one by one, to the same answers as by a mask of the whole catalogue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tastemaker.index.channels import Channels
from tastemaker.journal.append import Journal
from tastemaker.schema.items import Item
from tastemaker.schema.queries import Answer, Recommended, RecommendQuery
from tastemaker.schema.settings import IndexSettings, ServingSettings, Settings
from tastemaker.serving import answers as answering
from tastemaker.serving.answers import Answers
from tastemaker.serving.wire import Live, open_live
from toy_bundle import BRANDS, items, write_workspace

SERVICE = ServingSettings(fresh_slots=2)
World = tuple[Live, Journal]
PER_KIND = 20
OWN = [f"boots-{number}" for number in range(0, PER_KIND, 3)]
EVERYTHING = [item.item_id for item in items(PER_KIND)] + [f"new-{number}" for number in range(6)]
CHEAP = {"all": [{"field": "price", "lte": 25}, {"field": "categories", "any_of": ["boots", "guitar"]}]}
ASKED: list[dict[str, Any]] = [
    {"k": 10, "exclude": OWN},
    {"k": 10, "exclude": [*OWN, *OWN, "no such item"], "explain": True},
    {"k": 10, "exclude": ["boots-1"], "filter": CHEAP},
    {"k": 100, "exclude": OWN, "filter": CHEAP},
    {"k": 1_000, "exclude": OWN},
    {"k": 10, "exclude": EVERYTHING[3:]},
    {"k": 10, "exclude": EVERYTHING},
    {"k": 10, "exclude": ["boots-5", "boots-6"], "filter": {"field": "title", "eq": "none of them"}},
    {"k": 10, "exclude": OWN, "diversity": 0.6, "explain": True},
    {"k": 10, "exclude": OWN, "max_per": [{"field": "categories", "count": 3}]},
    {"k": 8, "exclude": OWN, "pinned": [{"item_id": "boots-3"}, {"item_id": "guitar-7", "place": 2}], "explain": True},
    {"k": 10, "exclude": [*OWN, "new-1"], "boost": [{"filter": {"field": "categories", "any_of": ["coffee"]}, "places": 5}]},
    {"k": 10, "exclude": OWN, "session": [{"item_id": "boots-3"}, {"item_id": "coffee-2"}]},
    {"k": 10, "exclude": OWN, "user_id": None},
    {"k": 10, "exclude": OWN, "user_id": "nobody knows"},
    {"k": 10},
]
QUERIES = [msgspec.convert({"user_id": "u0", "request_id": f"r{at}"} | one, RecommendQuery) for at, one in enumerate(ASKED)]
QUERIES += [msgspec.structs.replace(one, user_id="u1", request_id=f"other {one.request_id}") for one in QUERIES[:6]]


def _as_many(place: Path) -> None:
    """The channels as those of a large catalogue."""
    channels = Channels.load(place / "channels")
    channels.save(place / "large", IndexSettings(kind="approximate"))
    shutil.rmtree(place / "channels")
    (place / "large").rename(place / "channels")


@pytest.fixture(scope="module", params=["every item is looked at", "approximate"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, large = tmp_path_factory.mktemp("excluded"), request.param == "approximate"
    write_workspace(folder, items(PER_KIND), besides=_as_many if large else lambda place: None)
    journal = Journal.open(folder / "journal")
    titles = [
        f"{BRANDS[number]} {BRANDS[number + 1]} hiking boots" for number in range(6)
    ]  # no two alike: equals may change places
    new = [Item(item_id=f"new-{at}", title=title, categories=["boots"], price=9.0) for at, title in enumerate(titles)]
    hidden = [Item(item_id=f"coffee-{number}", title="coffee", hidden=True) for number in range(3)]
    journal.put_items(new + hidden)
    opened = open_live(folder / "bundles", journal, service=Settings())
    opened.road.gatherer.seconds = 0.0
    assert opened.channels.items.approximate == large
    yield opened, journal
    journal.close()


def _told(world: World, together: int, level: int = 0) -> list[dict[str, Any]]:
    answers = Answers(*world, SERVICE, level=lambda: level, clock=lambda: 1.8e9)
    told = []
    for begin in range(0, len(QUERIES), together):
        for answer in answers.recommend_many(QUERIES[begin : begin + together]):
            assert isinstance(answer, Answer), answer
            told.append(msgspec.to_builtins(answer) | {"items": [_rounded(item) for item in answer.items]})
    return told


def _rounded(item: Recommended) -> dict[str, Any]:
    """Products of one size and of another are summed in another order."""
    return msgspec.to_builtins(item) | {"score": round(item.score, 4)}


@pytest.mark.parametrize("level", [0, 1, 3, 4])
def test_one_by_one_is_as_by_a_mask_alone_and_together(world: World, monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    alone, together = _told(world, 1, level), _told(world, len(QUERIES), level)
    monkeypatch.setattr(answering, "MANY_EXCLUDED", -1)
    masked = _told(world, 1, level)
    for query, one, other, wanted in zip(QUERIES, alone, together, masked, strict=True):
        assert one == other == wanted, query
        shown = [item["item_id"] for item in one["items"]]
        assert not set(shown) & set(query.exclude), query
        assert len(shown) == len(set(shown))
    sizes = [len(one["items"]) for one in alone[:8]]
    assert (sizes[0], sizes[6:]) == (10, [0, 0])
    assert 0 < sizes[5] <= 3
    assert sizes[4] < len(EVERYTHING) - len(OWN)
    assert "excluded" in alone[6]["notes"][0]
    assert any("boots-3" in note and "excluded" in note for note in alone[10]["notes"])
    if level < 3:
        assert any(item["source"] == "fresh slot" for one in alone for item in one["items"]), "no slot was looked at"


def test_no_mask_is_made_for_some_items_and_one_is_for_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    without = answering._without
    monkeypatch.setattr(answering, "_without", lambda barred, places: made.append(len(places)) or without(barred, places))
    wanted = _told(world, 1)
    assert made == []
    monkeypatch.setattr(answering, "MANY_EXCLUDED", len(OWN) + 1)
    assert _told(world, 1) == wanted
    assert set(made) == {len(EVERYTHING) - 3, len(EVERYTHING)}
