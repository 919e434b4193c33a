"""Questions for people of whom little is known, and the curve made of them."""

from __future__ import annotations

import numpy as np
import polars as pl

from tastemaker.data.dataset import Dataset
from tastemaker.data.newcomers import FEWEST, NUMBERS, first_events
from tastemaker.data.split import Split
from tastemaker.evaluation.curve import curve_section, first_events_curve
from tastemaker.evaluation.frontier import frontier_section, unlikeness

ITEMS = [f"i{item}" for item in range(20)]


def log(users: int, begin: float, name: str, length: int = 12) -> list[dict[str, object]]:
    return [
        {
            "user_id": f"{name}{user}",
            "item_id": ITEMS[(user + step) % 20],
            "timestamp": begin + 100 * step + user,
            "event_type": "event",
            "value": None,
        }
        for user in range(users)
        for step in range(length)
    ]


def split(newcomers: int) -> tuple[Split, Dataset]:
    schema = {"value": pl.Float64}
    early = pl.DataFrame(log(30, 1e9, "old"), schema_overrides=schema)
    late = pl.DataFrame(log(newcomers, 2e9, "new"), schema_overrides=schema) if newcomers else early.clear()
    test = pl.DataFrame(
        {"user_id": [f"old{user}" for user in range(30)], "item_id": [ITEMS[(user + 15) % 20] for user in range(30)]}
    )
    train = Dataset(early, pl.DataFrame())
    return Split(train, test, "global_time", "x"), Dataset(pl.concat([early, late]), pl.DataFrame())


def test_newcomers_are_asked_for_the_event_after_their_first_ones() -> None:
    part, whole = split(FEWEST + 20)
    asked = first_events(part, whole, ITEMS, 60, 0)
    assert len(set(asked.users)) == 60
    assert all(user.startswith("new") for user in asked.users)
    targets = dict(asked.targets.iter_rows())
    for row, number, user, history in zip(asked.rows, asked.numbers.tolist(), asked.users, asked.histories, strict=True):
        first = int(user.removeprefix("new"))
        assert history.tolist() == [(first + step) % 20 for step in range(number)]
        assert targets[row] == ITEMS[(first + number) % 20]
    assert sorted(set(asked.numbers.tolist())) == list(NUMBERS)


def test_without_newcomers_people_of_before_are_asked_as_if_little_were_known() -> None:
    part, whole = split(3)
    asked = first_events(part, whole, ITEMS, 100, 0)
    assert {len(history) for history in asked.histories} == set(NUMBERS)
    assert all(user.startswith("old") for user in asked.users)
    row = asked.rows.index("old4\x1f3")
    assert asked.histories[row].tolist() == [13, 14, 15]
    assert dict(asked.targets.iter_rows())["old4\x1f3"] == "i19"
    assert "as if only" in asked.words


def curve(hit_from: int, lost: int = -1) -> dict[str, object]:
    """Ours is right from some number of events on, but for one, popularity never."""
    numbers = np.repeat(np.array(NUMBERS), 40)
    rows = [f"u{place}\x1f{number}" for place, number in enumerate(numbers)]
    targets = pl.DataFrame({"user_id": rows, "item_id": ["right"] * len(rows)})
    ours = pl.DataFrame(
        {
            "user_id": rows,
            "item_id": ["right" if number >= hit_from and number != lost else "wrong" for number in numbers],
            "rank": 1,
        }
    )
    floor = pl.DataFrame({"user_id": rows, "item_id": "wrong", "rank": 1})
    weak = pl.DataFrame(
        {
            "user_id": rows,
            "item_id": ["right" if number == 1 and place % 2 else "wrong" for place, number in enumerate(numbers)],
            "rank": 1,
        }
    )
    return first_events_curve(ours, {"popularity": floor, "recent popularity": weak}, targets, numbers, "some <people>", 200)


def test_the_number_of_events_until_popularity_is_beaten() -> None:
    found = curve(3)
    assert found["floor"] == "recent popularity", "the better of the two"
    assert found["beats"] == 3
    assert "Events until we beat popularity: 3." in str(found["sentence"])
    assert curve(1, lost=5)["beats"] == 10, "a lead that is lost again is none"
    assert curve(99)["beats"] is None
    assert "not shown within 10 events" in str(curve(99)["sentence"])
    page = curve_section(found, "Tastemaker")
    assert "&lt;people&gt;" in page
    assert page.count("<circle") == 2 * len(NUMBERS)
    assert "1.0000" in page


def test_unlikeness_and_its_page() -> None:
    assert unlikeness(np.eye(4, dtype=np.float32)) == 1.0
    assert unlikeness(np.ones((3, 1), np.float32)) == 0.0
    assert unlikeness(np.array([[1.0], [-1.0]])) == 2.0
    assert unlikeness(np.zeros((1, 3))) == 0.0
    points = [
        {"by": by, "strength": strength, "NDCG@10": 0.1 - strength / 20, "unlikeness": strength, "categories": 3.0}
        for by, strength in (("none", 0.0), ("mmr", 0.5), ("dpp", 0.5))
    ]
    page = frontier_section({"k": 10, "questions": 7, "points": points})
    assert page.count("<circle") == 4
    assert "by score alone" in page
