"""Edges on their way in: what is refused and why, what a later row changes, whose ids a RecBole file names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tastemaker.data.edges import BAD_TEXT, BAD_WEIGHT, MISSING
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError
from tastemaker.schema.graph import SELF_LOOP
from tastemaker.schema.reports import ImportReport
from tastemaker.schema.settings import DataSettings


def taken_in(
    folder: Path, text: bytes, name: str = "edges.csv"
) -> tuple[dict[tuple[str, str, str], float], ImportReport, list[str]]:
    """Edges of the journal afterwards, the report, and the reasons of what was refused."""
    (folder / name).write_bytes(text)
    journal, quarantine = Journal.open(folder / "journal"), Quarantine(folder)
    report = Intake(journal, DataSettings(), quarantine).edges([folder / name])
    quarantine.close()
    edges = {(head, relation, tail): weight for head, relation, tail, weight in journal.edges().iter_rows()}
    journal.close()
    assert report.read == report.accepted + report.duplicates + sum(report.quarantined.values())
    found = [json.loads(line)["reason"] for line in quarantine.path.read_text().splitlines()] if quarantine.path else []
    return edges, report, found


def test_bad_rows_are_refused_each_with_its_reason(tmp_path: Path) -> None:
    rows = b"user:1,friend,user:2,1\n,friend,user:2,1\nuser:1,,user:3,1\nuser:1,friend,user:1,1\n"
    rows += b"user:1,friend,user:4,nan\nuser:1,friend,user:5,-2\nuser:1,friend,user:6,inf\nuser:1,friend,user:7,much\n"
    rows += b"user:1,friend,user:\xff,1\n user:1 ,friend,user:8,\nuser:1,friend,user:2,1\n"
    edges, report, reasons = taken_in(tmp_path, b"head,relation,tail,weight\n" + rows)
    assert edges == {("user:1", "friend", "user:2"): 1.0, ("user:1", "friend", "user:8"): 1.0}
    assert sorted(reasons) == sorted([MISSING, MISSING, SELF_LOOP, *[BAD_WEIGHT] * 4, BAD_TEXT])
    assert (report.accepted, report.duplicates) == (2, 1)


def test_a_later_weight_counts_and_zero_takes_an_edge_away(tmp_path: Path) -> None:
    header = b"head,relation,tail,weight\n"
    taken_in(tmp_path, header + b"user:1,friend,user:2,1\nuser:1,friend,user:3,1\n", "one.csv")
    edges, report, _ = taken_in(
        tmp_path, header + b"user:1,friend,user:2,5\nuser:1,friend,user:3,0\nuser:1,friend,user:9,0\n", "two.csv"
    )
    assert edges == {("user:1", "friend", "user:2"): 5.0}
    assert (report.accepted, report.duplicates) == (2, 1)  # nobody was friends with user 9


def test_recbole_links_say_which_ids_are_items(tmp_path: Path) -> None:
    (tmp_path / "films.link").write_text("item_id:token\tentity_id:token\n7\tm.01\n")
    kg = b"head_id:token\trelation_id:token\ttail_id:token\nm.01\tfilm.film.director\tm.02\nm.02\tfilm.director.film\tm.03\n"
    edges, report, _ = taken_in(tmp_path, kg, "films.kg")
    assert set(edges) == {("item:7", "film.film.director", "entity:m.02"), ("entity:m.02", "film.director.film", "entity:m.03")}
    assert any("films.link" in guess for guess in report.guesses)


def test_names_of_nodes_come_along_and_a_lacking_column_is_told(tmp_path: Path) -> None:
    edges, report, _ = taken_in(tmp_path, b"head,relation,tail,tail_name\nitem:1,mentions,entity:5,Tom Hanks\n")
    assert ("entity:5", "name", "Tom Hanks") in edges
    assert report.accepted == 1
    with pytest.raises(InputError, match=r"no column for tail.*Found: head, relation"):
        taken_in(tmp_path, b"head,relation\na,b\n", "short.csv")
