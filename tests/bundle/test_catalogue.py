"""Records of items tell what the table tells, in memory and mapped, and an id is found by itself alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.bundle import catalogue, texts
from tastemaker.bundle.catalogue import RECORDS, TABLE, Catalogue
from tastemaker.bundle.texts import Texts
from tastemaker.schema.errors import BundleError

SCHEMA = {"item_id": pl.String, "title": pl.String, "categories": pl.List(pl.String), "price": pl.Float64, "created_at": pl.Float64, "hidden": pl.Boolean, "extra": pl.String}  # fmt: skip
WORDS = st.text(max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "item_id": WORDS,
            "title": st.none() | WORDS,
            "categories": st.none() | st.lists(WORDS, max_size=3),
            "price": st.none() | st.floats(allow_nan=False),
            "created_at": st.none() | st.floats(0, 2e9),
            "hidden": st.none() | st.booleans(),
            "extra": st.none() | st.dictionaries(WORDS, st.integers() | WORDS, max_size=2).map(lambda told: msgspec.json.encode(told).decode()),
        }
    ),
    max_size=12, unique_by=lambda row: row["item_id"],
)  # fmt: skip


def told(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "extra": msgspec.json.decode(row["extra"]) if row["extra"] else {}, "categories": row["categories"] or []}


def rested(made: Catalogue, folder: Path) -> Catalogue:
    made.save(folder)
    return Catalogue.open(folder)


@given(ROWS, WORDS)
def test_law_records_tell_what_the_table_tells(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], other: str
) -> None:
    made = Catalogue.of(pl.DataFrame(rows, schema=SCHEMA))
    for one in (made, rested(made, tmp_path_factory.mktemp("catalogue"))):
        assert [one[place] for place in range(len(one))] == list(one) == one[:] == [told(row) for row in rows]
        assert [one.index_of[row["item_id"]] for row in rows] == list(range(len(rows)))
        assert list(one.index_of) == [row["item_id"] for row in rows] == [one.item_id(place) for place in range(len(rows))]
        assert one.hidden.tolist() == [bool(row["hidden"]) for row in rows]
        assert [None if time != time else time for time in one.created.tolist()] == [row["created_at"] for row in rows]
        known = other in {row["item_id"] for row in rows}
        assert (other in one.index_of) == known == (one.index_of.get(other) is not None)
        with pytest.raises(IndexError, match="no item"):
            one[len(rows)]


def test_ids_with_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_hash", len)
    made = Catalogue.of(pl.DataFrame({"item_id": ["ab", "c", "cd", "ef"]}))
    assert [made.index_of.get(item_id) for item_id in ("ef", "cd", "ab", "c", "xy", "xyz", "")] == [3, 2, 0, 1, None, None, None]
    with pytest.raises(KeyError):
        made.index_of["xy"]


def test_what_is_kept_in_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_KEPT_ROWS", 3)
    monkeypatch.setattr(catalogue, "_KEPT_IDS", 2)
    made = Catalogue.of(pl.DataFrame({"item_id": [f"i{place}" for place in range(9)]}))
    for _ in range(2):
        assert [made[place]["item_id"] for place in range(9)] == [made.item_id(place) for place in range(9)] == list(made.index_of)
    assert (len(made._rows), len(made._kept_ids)) == (3, 2)


def test_a_bundle_from_before_records_and_one_that_was_cut_off(tmp_path: Path) -> None:
    table = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", None]})
    table.write_parquet(tmp_path / TABLE)
    before = Catalogue.open(tmp_path)
    assert [row["title"] for row in before] == ["A", None]
    before.save(tmp_path)
    assert list(Catalogue.open(tmp_path)) == list(before)
    with (tmp_path / RECORDS).open("r+b") as file:
        file.truncate(5)
    with pytest.raises(BundleError, match="do not belong together"):
        Catalogue.open(tmp_path)


def test_ids_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    Catalogue.of(pl.DataFrame({"item_id": ["a", "b"]})).save(tmp_path)
    Texts.of(["a", "b", "c"]).save(tmp_path, "ids")
    with pytest.raises(BundleError, match="2 records and 3 ids"):
        Catalogue.open(tmp_path)
