"""Who judges the steps: the later events of the configured split, or the last ones of each user where it leaves few."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tastemaker.cli import judges
from tastemaker.cli.judges import held_back
from tastemaker.cli.workspace import Workspace
from tastemaker.compression.steps import ladder
from tastemaker.data.dataset import Dataset
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import CompressSettings, Settings

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "event_type": pl.String, "value": pl.Float64}
USERS, EVENTS = 40, 10


def dataset(come_back: int) -> Dataset:
    """Everybody does ten things one after the other in a year of his own, and the last of some comes after all others."""
    rows = [
        (
            f"u{user}",
            f"i{(user + place) % 15}",
            1.6e9 + 1_000 * user + place + 1e6 * (place + 1 == EVENTS and user < come_back),
            "view",
            None,
        )
        for user in range(USERS)
        for place in range(EVENTS)
    ]
    events = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("timestamp", maintain_order=True)
    return Dataset(events, pl.DataFrame(schema=ITEM_SCHEMA))


def workspace(**compress: object) -> Workspace:
    return Workspace(Path("nowhere"), Settings(compress=CompressSettings(**compress)))  # type: ignore[arg-type]


def chosen(data: Dataset, **compress: object) -> tuple[str, int]:
    part, asked = held_back(workspace(**compress), data)
    return part.name, len(set(asked.users))


def test_where_few_came_back_the_last_events_of_everybody_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    few, all_of_them = dataset(3), dataset(USERS)
    name, people = chosen(few, split="global_time")
    assert name == "global_time"
    assert people < USERS // 4
    assert chosen(few) == ("temporal_user", USERS)
    assert chosen(few, effort="quick") == ("global_time", people), "the bundle that `evaluate` left behind is used"
    assert chosen(all_of_them) == ("global_time", USERS), "more than all are not won"
    assert chosen(all_of_them, split="temporal_user", effort="quick") == ("temporal_user", USERS)
    assert chosen(few, split="leave_last_out") == ("leave_last_out", USERS)
    monkeypatch.setattr(judges, "ENOUGH_PEOPLE", people)
    assert chosen(few) == ("global_time", people)


def test_an_unknown_split_is_told() -> None:
    with pytest.raises(SettingsError, match=r"compress\.split is 'random'; expected auto, global_time"):
        ladder(CompressSettings(split="random"))


def test_questions_speak_the_numbers_of_the_bundle_that_is_judged_and_name_who_asks() -> None:
    data = dataset(3)
    _, asked = held_back(workspace(), data)
    whole, early = data.item_ids(), data.item_ids()[::-1][:-1]  # numbered otherwise, and one is not known yet
    made = judges._as_questions(asked, whole, early, 25, 7)
    again = judges._as_questions(asked, whole, early, 25, 7)
    assert len(made) == len(made.targets) == len(made.users) == 25
    assert made.askers is not None
    assert made.askers == again.askers
    wanted = dict(zip(asked.rows, asked.targets["item_id"], strict=True))
    place = {(user, time): row for row, (user, time) in enumerate(zip(asked.users, asked.times.tolist(), strict=True))}
    for history, target, group, asker in zip(made.histories, made.targets, made.users.tolist(), made.askers, strict=True):
        row = place[asker.user_id, asker.now]
        named = [whole[item] for item in asked.histories[row]]
        assert [early[item] for item in history] == [item for item in named if item in early]
        item = wanted[asked.rows[row]]
        assert target.tolist() == [early.index(item) if item in early else -1]
        assert group == list(dict.fromkeys(one.user_id for one in made.askers)).index(asker.user_id)
    assert "earlier events alone" in made.words
