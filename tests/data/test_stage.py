"""The stage that needs no memory gives what the road through memory gives: the same histories, split and features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.dataset import Dataset
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.data.sequences import build
from tastemaker.data.split import global_time, leave_last_out
from tastemaker.data.stage import FEATURES, TARGET, TRAIN, feature_table, histories, stage
from tastemaker.features import runs
from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.events import Event
from tastemaker.schema.settings import DataSettings


def journal_of(folder: Path, rows: int, first: float, step: float, live: int = 5) -> Journal:
    """A log in two imports with live events between them, out of order, with many ties."""
    rng = np.random.default_rng(7)
    table = pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in rng.zipf(1.3, rows) % 40],
            "item_id": [f"i{number}" for number in rng.zipf(1.2, rows) % 25],
            "timestamp": first + step * rng.integers(0, rows // 3, rows),
            "event_type": rng.choice(np.array(["view", "buy"]), rows),
            "value": rng.random(rows),
        }
    )
    journal = Journal.open(folder / "journal")
    for half, name in ((table.head(rows // 2), "a"), (table.tail(rows - rows // 2), "b")):
        half.write_parquet(folder / f"{name}.parquet")
        Intake(journal, DataSettings(), Quarantine(folder)).events([folder / f"{name}.parquet"])
        journal.append([Event(user_id="u1", item_id=f"i{n}", event_type="view", timestamp=first + n * step) for n in range(live)])
        journal.append([Event(user_id="newcomer", item_id=name, event_type="view", timestamp=first + step * rows)])
    return journal


def staged(journal: Journal, folder: Path, split: str, rows: int) -> pl.DataFrame:
    (folder / "live").mkdir()
    stage(journal.sealed(folder / "live"), folder / "stage", split, 0.2, rows=rows)
    return feature_table(folder / "stage").collect()


@pytest.mark.parametrize(
    ("first", "step", "split"), [(1.6e9, 3_600.0, "global_time"), (1.6e9, 90.0, "leave_last_out"), (0.0, 1.0, "global_time")]
)
def test_histories_and_split_are_those_of_the_road_through_memory(tmp_path: Path, first: float, step: float, split: str) -> None:
    journal = journal_of(tmp_path, 600, first, step)
    features = staged(journal, tmp_path, split, rows=90)
    assert len(list((tmp_path / "stage").glob("features-*"))) > 3, "the log was not cut into pieces"
    data = Dataset.from_journal(journal)
    ours, theirs = histories(tmp_path / "stage"), build(data)
    assert sorted(ours.user_ids) == sorted(theirs.user_ids)
    assert sorted(ours.item_ids) == sorted(theirs.item_ids)

    def said(packed: object, user: str) -> list[tuple[str, float, str]]:
        number = packed.user_ids.index(user)  # type: ignore[attr-defined]
        there = slice(packed.offsets[number], packed.offsets[number + 1])  # type: ignore[attr-defined]
        items = [packed.item_ids[item] for item in packed.items[there]]  # type: ignore[attr-defined]
        kinds = [packed.type_names[kind] for kind in packed.event_types[there]]  # type: ignore[attr-defined]
        return list(zip(items, packed.times[there].tolist(), kinds, strict=True))  # type: ignore[attr-defined]

    for user in theirs.user_ids:
        assert said(ours, user) == said(theirs, user)
    made = global_time(data, 0.2) if split == "global_time" and first else leave_last_out(data)
    rows = journal.read().join(features, on="seq")
    assert rows.height == data.events.height == 612
    assert set(rows.filter(pl.col("part") == TRAIN)["seq"]) == set(made.train.events["seq"])
    targets = rows.filter(pl.col("part") == TARGET).select("user_id", "item_id")
    assert sorted(targets.rows()) == sorted(made.test.select("user_id", "item_id").rows())
    train = dict(pl.read_parquet(tmp_path / "stage" / "items.parquet").rows())
    assert {item for item, count in train.items() if count == 0} >= set(made.test.filter("cold")["item_id"])
    assert sum(train.values()) == made.train.events.height


@pytest.mark.parametrize("step", [3_600.0, 86_400.0 * 30])
def test_features_are_those_of_the_feature_set(tmp_path: Path, step: float) -> None:
    journal = journal_of(tmp_path, 400, 1.5e9, step)
    found = staged(journal, tmp_path, "global_time", rows=70).sort("seq")
    events, made = journal.read(), FeatureSet.declared(FEATURES)
    assert found.columns == ["seq", "part", *made.names]
    assert found["seq"].equals(events["seq"])
    np.testing.assert_allclose(found.select(made.names).to_numpy(), made.rows(events, events), rtol=1e-5, atol=1e-6)
    assert (found["item_events"] > 0).mean() > 0.5


def test_the_number_of_pieces_changes_nothing(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, 500, 1.6e9, 600.0)
    (tmp_path / "live").mkdir()
    found = []
    for rows in (60, 10_000):
        stage(journal.sealed(tmp_path / "live"), tmp_path / f"stage-{rows}", rows=rows)
        found.append(feature_table(tmp_path / f"stage-{rows}").collect().sort("seq"))
    assert found[0].drop("item_faded").equals(found[1].drop("item_faded"))
    assert np.allclose(found[0]["item_faded"], found[1]["item_faded"], rtol=1e-5)


@pytest.mark.parametrize("rows", [90, 5_000])
def test_exactly_the_share_is_held_back(tmp_path: Path, rows: int) -> None:
    """Where all times differ: 1,000 events, a tenth."""
    moments = 1.6e9 + 60.0 * np.random.default_rng(1).permutation(1_000)
    names = [f"u{number % 40}" for number in range(1_000)]
    table = pl.DataFrame({"user_id": names, "item_id": [f"i{number % 7}" for number in range(1_000)], "timestamp": moments})
    table.write_parquet(tmp_path / "log.parquet")
    journal = Journal.open(tmp_path / "journal")
    Intake(journal, DataSettings(), Quarantine(tmp_path)).events([tmp_path / "log.parquet"])
    stage(journal.sealed(tmp_path), tmp_path / "stage", share=0.1, rows=rows)
    features = feature_table(tmp_path / "stage").collect().sort("seq")
    held_back = features.filter(pl.col("part") != TRAIN)["seq"].to_numpy() - 1
    assert sorted(moments[held_back]) == sorted(moments)[900:]


def test_nothing_to_stage_and_unknown_splits_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no imported events"):
        stage([], tmp_path)
    with pytest.raises(SettingsError, match="expected global_time or leave_last_out"):
        stage([], tmp_path, split="cold_items")


WORDS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([5, 2**63, 2**63 + 1, 2**63 + 2]), max_size=50)


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_law_grouped_brings_equal_keys_together_and_keeps_their_order(keys: list[int]) -> None:
    order, begins = runs.grouped(np.array(keys, dtype=np.uint64))
    assert sorted(order.tolist()) == list(range(len(keys)))
    groups: dict[int, list[int]] = {}
    for row, new in zip(order.tolist(), begins.tolist(), strict=True):
        assert new == (keys[row] not in groups)
        groups.setdefault(keys[row], []).append(row)
    assert all(rows == sorted(rows) for rows in groups.values())
    assert (runs.places(begins) == [groups[keys[row]].index(row) for row in order]).all()


SLOTS = st.integers(0, 3) | st.integers(0, 2**17) | st.sampled_from([0xFFFF, 0x10000, 2**31 - 1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SLOTS, SLOTS), max_size=40), st.booleans())
def test_law_codes_are_grouped_in_their_order(pairs: list[tuple[int, int]], paired: bool) -> None:
    codes = [first << 32 | second if paired else second for first, second in pairs]
    order, begins = runs.grouped_codes(np.array(codes, dtype=np.int64))
    assert order.tolist() == sorted(range(len(codes)), key=lambda row: codes[row])
    ordered = [codes[row] for row in order.tolist()]
    assert begins.tolist() == [place == 0 or ordered[place - 1] != code for place, code in enumerate(ordered)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=40))
def test_law_the_order_in_time_keeps_ties_as_they_stand(times: list[int]) -> None:
    order = runs.in_time(np.array(times, dtype=np.float64))
    rows = list(range(len(times))) if order is None else order.tolist()
    assert rows == sorted(range(len(times)), key=lambda row: times[row])


def test_a_few_late_events_among_many_are_brought_in_order() -> None:
    times = np.arange(400.0)
    times[[50, 51, 399]] = [7.0, 7.0, 50.5]
    assert (runs.in_time(times) == np.argsort(times, kind="stable")).all()
