"""Splits hold back what they say, sequences keep the order of the log, labels choose."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import split
from tastemaker.data.dataset import Dataset
from tastemaker.data.questions import questions
from tastemaker.data.select import condition, positives
from tastemaker.data.sequences import build
from tastemaker.journal.catalogue import ITEM_SCHEMA
from tastemaker.schema.errors import SettingsError

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "event_type": pl.String, "value": pl.Float64}
T0 = 1.6e9
ROWS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("ijkl"), st.integers(0, 5).map(lambda t: T0 + t)), min_size=1, max_size=30
)


def dataset(rows: list[tuple[str, str, float]]) -> Dataset:
    events = pl.DataFrame([(*row, "view", None) for row in rows], schema=SCHEMA, orient="row")
    return Dataset(events.sort("timestamp", maintain_order=True), pl.DataFrame(schema=ITEM_SCHEMA))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, name=st.sampled_from(split.NAMES), share=st.sampled_from([0.1, 0.3, 0.5]))
def test_law_no_test_pair_is_in_train_and_the_same_seed_splits_alike(
    rows: list[tuple[str, str, float]], name: str, share: float
) -> None:
    data = dataset(rows)
    made, again = (split.split(data, name, share, seed=3) for _ in range(2))
    assert made.test.equals(again.test)
    assert made.train.events.equals(again.train.events)
    train = set(made.train.events.select("user_id", "item_id").rows())
    warm, known = {item for _, item in train}, {user for user, _ in train}
    for user, item, cold in made.test.rows():
        assert (user, item) not in train
        assert user in known
        assert cold == (item not in warm)
    assert made.test.height == made.test.unique().height
    assert made.train.item_ids()[: data.items.height] == data.items["item_id"].to_list()


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, share=st.sampled_from([0.0, 0.2, 0.5, 1.0]), most=st.integers(1, 4), base=st.sampled_from([0.0, T0]))
def test_law_the_last_events_of_each_user_are_held_back_and_asked_in_their_order(
    rows: list[tuple[str, str, float]], share: float, most: int, base: float
) -> None:
    data = dataset([(user, item, time - T0 + base) for user, item, time in rows])
    made = split.temporal_user(data, share, most)
    for user in "uvw":
        mine = [row for row in data.events.select("item_id", "timestamp", "user_id").rows() if row[2] == user]
        kept = [row for row in made.train.events.select("item_id", "timestamp", "user_id").rows() if row[2] == user]
        asked = max(1, min(most, int(len(mine) * share)))
        edge = mine[max(len(mine) - asked, 1) - 1][1] if mine else 0.0
        assert kept == [row for row in mine if row[1] <= edge], "a prefix, which parts no two events of one moment"
        assert len(kept) >= len(mine) - asked
        assert kept or not mine
    asked_of = questions(made, data, data.item_ids(), 1_000, 0)
    ids, learned = data.item_ids(), dict(made.train.events["user_id"].value_counts().iter_rows())
    expected = {}
    for user, items in data.events.group_by("user_id", maintain_order=True).agg("item_id").rows():
        for place in range(learned[user], len(items)):
            if items[place] not in items[:place]:
                expected[f"{user}\x1f{place}"] = (user, items[:place], items[place])
    found = {
        row: (user, [ids[item] for item in history], item)
        for (row, item, _), user, history in zip(asked_of.targets.rows(), asked_of.users, asked_of.histories, strict=True)
    }
    assert found == expected


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, share=st.sampled_from([0.1, 0.5]))
def test_law_a_cut_in_time_asks_at_each_later_event_of_who_did_something_before(
    rows: list[tuple[str, str, float]], share: float
) -> None:
    data = dataset(rows)
    made = split.global_time(data, share)
    cut = made.train.events["timestamp"].max()
    expected = []
    for user, items, times in data.events.group_by("user_id", maintain_order=True).agg("item_id", "timestamp").rows():
        later = [place for place in range(1, len(items)) if times[place] > cut and items[place] not in items[:place]]
        expected += [(f"{user}\x1f{place}", items[place]) for place in later]
    assert questions(made, data, data.item_ids(), 1_000, 0).targets.select("user_id", "item_id").rows() == expected


def test_with_no_times_at_all_the_log_itself_is_the_order() -> None:
    events = pl.DataFrame([("u", item, None, "view", None) for item in "ijklm"], schema=SCHEMA, orient="row")
    made = split.split(Dataset(events, pl.DataFrame(schema=ITEM_SCHEMA)), "temporal_user", 0.4)
    assert made.train.events["item_id"].to_list() == list("ijk")
    assert made.test["item_id"].to_list() == ["l", "m"]


def test_of_real_people_nearly_all_are_asked(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "movielens-latest-small" / "ml-latest-small.zip") as archive:
        (tmp_path / "ratings.csv").write_bytes(archive.read("ml-latest-small/ratings.csv"))
    data = Dataset.read(tmp_path / "ratings.csv")
    few, many = split.global_time(data), split.temporal_user(data, 0.2)
    assert few.test["user_id"].n_unique() < 100
    assert many.test["user_id"].n_unique() > 600, "of 610; who rated all in one moment is not asked"
    held = many.test["user_id"].value_counts()["count"]
    assert (held.min(), held.max()) == (1, split.MOST_OF_A_USER)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_law_histories_are_the_events_in_time_and_ties_keep_the_log(rows: list[tuple[str, str, float]]) -> None:
    packed = build(dataset(rows))
    assert packed.offsets[-1] == len(rows)
    for number, user in enumerate(packed.user_ids):
        expected = [item for _, item, _ in sorted((row for row in rows if row[0] == user), key=lambda row: row[2])]
        assert [packed.item_ids[item] for item in packed.history(number)] == expected
    assert packed.counts().sum() == len(rows)
    mask = np.arange(len(rows)) % 2 == 0
    kept = packed.keep(mask)
    assert [len(history) for history in kept.histories()] == [
        int(mask[a:b].sum()) for a, b in zip(packed.offsets, packed.offsets[1:], strict=False)
    ]


def test_global_time_cuts_at_one_moment() -> None:
    data = dataset([("u", item, T0 + time) for time, item in enumerate("ijklmnopqr")])
    made = split.global_time(data, 0.3)
    assert made.train.events["item_id"].to_list() == list("ijklmno")
    assert made.test.rows() == [("u", "p", True), ("u", "q", True), ("u", "r", True)]


def test_an_order_is_split_by_the_last_event_and_says_so() -> None:
    data = dataset([("u", "i", 0.0), ("u", "j", 1.0), ("v", "i", 0.0)])
    assert data.time_is_order
    made = split.split(data, "global_time")
    assert (made.name, made.test.rows()) == ("leave_last_out", [("u", "j", True)])
    with pytest.raises(SettingsError, match="expected global_time"):
        split.split(data, "random")


def test_labels_choose_events() -> None:
    rows = [
        ("u", "i", T0, "rating", 4.0),
        ("u", "j", T0, "rating", 3.5),
        ("u", "k", T0, "rating", None),
        ("u", "l", T0, "like", None),
    ]
    events = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    assert positives(events, ["rating>=4", "like"])["item_id"].to_list() == ["i", "l"]
    assert events.filter(condition("rating < 4"))["item_id"].to_list() == ["j"]
    assert positives(events, []).height == 4
    for wrong in ("", "rating>=", ">=4", "rating>=four", "rating => 4"):
        with pytest.raises(SettingsError, match="Expected an event type"):
            condition(wrong)
    with pytest.raises(SettingsError, match=r"rating \(3\)"):
        positives(events, ["purchase"])


def test_real_behaviours_and_times(shared_data: Path) -> None:
    steam = Dataset.read(shared_data / "steam" / "events.parquet", shared_data / "steam" / "items.parquet")
    assert dict(steam.events["event_type"].value_counts().rows()) == {"purchase": 129_511 - 707, "play": 70_489}
    assert steam.time_is_order
    visits = Dataset.read(shared_data / "yoochoose-sample" / "events.parquet")
    assert visits.events.height == 83_845  # one of the 83,846 rows is a repeat
    assert not visits.time_is_order
    assert visits.events["context"][0] == '{"timestamp_ms":"1396314141719","split":"train"}'
    packed = build(visits)
    assert (packed.n_users, packed.n_items) == (21_210, 2_933)
    assert (np.diff(packed.times)[np.diff(np.repeat(np.arange(packed.n_users), packed.lengths())) == 0] >= 0).all()
