"""Cells that are numbers are read as numbers; one that is none changes how its block is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tastemaker.data import delimited
from tastemaker.data.delimited import Lines, read_lines
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings

HEAD = b"user_id,item_id,timestamp,value\n"
GOOD = b"u1,i1,1600000000,1.5\nu2,007,1600000060,\nu3,i3,1600000120.25,3\n"


def tables(path: Path, *numbers: str) -> list[pl.DataFrame]:
    with path.open("rb") as file:
        lines = Lines(file, path, tabs=False, quotes=True)
        return [table for table, _, _ in read_lines(lines, lines.names, numbers)]


def test_numbers_are_read_as_numbers_and_ids_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + GOOD)
    (table,) = tables(path, "timestamp", "value")
    assert table.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "value": pl.Float64}
    assert table["item_id"].to_list() == ["i1", "007", "i3"]
    assert table["timestamp"].to_list() == [1600000000.0, 1600000060.0, 1600000120.25]
    assert table["value"].to_list() == [1.5, None, 3.0]
    assert set(tables(path)[0].dtypes) == {pl.String}


@pytest.mark.parametrize("odd", [b"u4,i4,1600000180,abc\n", b"u4,i4,yesterday,2\n", b'u4,"i,4",1600000180,x\n'])
def test_a_cell_that_is_no_number_is_told_and_the_others_stay_the_same_events(
    odd: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    clean, dirty = tmp_path / "clean.csv", tmp_path / "dirty.csv"
    clean.write_bytes(HEAD + GOOD)
    dirty.write_bytes(HEAD + GOOD + odd + GOOD.replace(b"u", b"v"))
    journal, quarantine = Journal.open(tmp_path / "journal"), Quarantine(tmp_path)
    first = Intake(journal, DataSettings(), quarantine).events([clean])
    second = Intake(journal, DataSettings(), quarantine).events([dirty])
    assert (first.accepted, first.duplicates) == (3, 0)
    assert (second.read, second.accepted, second.duplicates, sum(second.quarantined.values())) == (7, 3, 3, 1)
    kept = journal.read()
    assert kept["value"].to_list() == [1.5, None, 3.0] * 2
    assert kept["timestamp"].to_list()[3:] == kept["timestamp"].to_list()[:3]
