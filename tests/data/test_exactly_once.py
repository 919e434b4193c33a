"""Live events and imports share one set of ids, one import runs at a time, and readers never see half of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import JournalError
from tastemaker.schema.events import AppendResult, Event
from tastemaker.schema.settings import DataSettings


def intake(folder: Path) -> Intake:
    return Intake(Journal.open(folder / "journal"), DataSettings(), Quarantine(folder))


def events_file(folder: Path, name: str, ids: list[str]) -> Path:
    path = folder / name
    path.write_text("event_id,user_id,item_id,timestamp\n" + "".join(f"{row},u,i,1600000000\n" for row in ids))
    return path


def test_an_event_that_came_live_is_a_duplicate_of_the_import_and_the_other_way_round(tmp_path: Path) -> None:
    importer = intake(tmp_path)
    importer.journal.append([Event(user_id="u", item_id="i", event_id="live-1")])
    report = importer.events([events_file(tmp_path, "a.csv", ["live-1", "file-1"])])
    assert (report.accepted, report.duplicates) == (1, 1)
    assert importer.journal.append([Event(user_id="u", item_id="i", event_id="file-1")]) == AppendResult(0, 1)
    assert importer.journal.read()["event_id"].to_list() == ["live-1", "file-1"]


@pytest.mark.parametrize("name", ["0123456789abcdef", "0123456789ABCDEF", "+123456789abcdef", "x"])
def test_ids_that_look_like_hashes_are_known_again(tmp_path: Path, name: str) -> None:
    importer = intake(tmp_path)
    assert importer.events([events_file(tmp_path, "a.csv", [name])]).accepted == 1
    report = importer.events([events_file(tmp_path, "b.csv", [name, "new"])])
    assert (report.accepted, report.duplicates) == (1, 1)


def test_a_live_event_in_the_middle_of_an_import_keeps_it_out_whole(tmp_path: Path) -> None:
    importer = intake(tmp_path)

    def meanwhile(what: str, done: int, total: int) -> None:
        importer.journal.append([Event(user_id="u", item_id="i", event_id="both")])

    importer.tell = meanwhile
    path = events_file(tmp_path, "a.csv", ["both", "other"])
    with pytest.raises(JournalError, match="repeat the import"):
        importer.events([path])
    assert importer.journal.read()["event_id"].to_list() == ["both"]
    report = importer.events([path])
    assert (report.accepted, report.duplicates) == (1, 1)


def test_one_import_at_a_time_and_leftovers_go(tmp_path: Path) -> None:
    first, second = intake(tmp_path), intake(tmp_path)
    path = events_file(tmp_path, "a.csv", ["a"])
    with first.journal.importing(), pytest.raises(JournalError, match="Another import"):
        second.events([path])
    assert second.events([path]).accepted == 1
    kept = {file.name for file in first.journal.segments.iterdir()}
    (first.journal.segments / "000000000000002-000000000000009.parquet").write_bytes(b"left by a killed import")
    (first.journal.path / "staging" / "000000.parquet").write_bytes(b"left too")
    assert first.journal.read().height == 1, "a segment that is not registered does not exist"
    assert first.events([path]).accepted == 0
    assert {file.name for file in first.journal.segments.iterdir()} == kept
    assert list((first.journal.path / "staging").iterdir()) == []


@pytest.mark.parametrize("way", ["tail", "read"])
def test_what_is_committed_while_a_reader_reads_can_not_tear_its_answer(tmp_path: Path, way: str) -> None:
    importer = intake(tmp_path)
    importer.events([events_file(tmp_path, "a.csv", ["a-1", "a-2"])])

    class Slow(Journal):
        def _segments(self, after: int, last: int) -> list[str]:
            found = super()._segments(after, last)  # between the look at the segments and the look at the live rows:
            importer.events([events_file(tmp_path, "b.csv", ["b-1", "b-2"])])
            importer.journal.append([Event(user_id="u", item_id="i", event_id="live")])
            return found

    reader = Slow.open(tmp_path / "journal")

    def seen(after: int) -> list[int]:
        return [row.seq for row in reader.tail(after)] if way == "tail" else reader.read(after)["seq"].to_list()

    first = seen(0)
    assert first == [1, 2]
    assert first + seen(first[-1]) == [1, 2, 3, 4, 5]
