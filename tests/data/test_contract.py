"""A file that looks different from those before it is refused with a sentence, unless the difference is harmless or meant."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import InputError
from tastemaker.schema.settings import DataSettings

T0 = 1_600_000_000
EVENTS = "user_id,item_id,timestamp,value,shop\n" + "".join(f"u{n},i{n},{T0 + n},{n},north\n" for n in range(5))


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    importer = Intake(Journal.open(tmp_path / "journal"), DataSettings(), Quarantine(tmp_path))
    importer.events([written(tmp_path, "first.csv", EVENTS)])
    importer.items([written(tmp_path, "first-items.csv", "item_id,title,price,categories\n1,One,2.5,a|b\n2,1984,$3,c\n")])
    return importer


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_column_that_is_gone_is_told_and_can_be_accepted(intake: Intake, tmp_path: Path) -> None:
    path = written(tmp_path, "next.csv", f"user_id,item_id,timestamp,shop\nu,i,{T0},north\n")
    with pytest.raises(
        InputError, match=r"next.csv: no column for value, which every file of events before had \(so far 1\).*--accept-drift"
    ):
        intake.events([path])
    assert intake.journal.position() == 5, "nothing of a refused file is kept"
    intake.accept_drift = True
    report = intake.events([path])
    assert report.accepted == 1
    assert any("value" in sentence and "accepted" in sentence for sentence in report.guesses)
    intake.accept_drift = False
    assert intake.events([written(tmp_path, "third.csv", f"user_id,item_id,timestamp\nu,j,{T0}\n")]).accepted == 1, (
        "value is optional now"
    )


def test_what_is_no_reason(intake: Intake, tmp_path: Path) -> None:
    text = f"item_id,user_id,session_id,colour,timestamp,value\n1,2,s,red,{T0},\n3,4,s,blue,{T0},\n"  # new and reordered, empty, ids all digits
    report = intake.events([written(tmp_path, "next.csv", text)])
    assert report.accepted == 2
    assert "next.csv: gone since the files before: shop" in report.guesses
    assert "next.csv: new since the files before: colour, session_id; kept" in report.guesses
    frame = pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2], "timestamp": [T0, T0 + 1], "value": [1, 2]})
    frame.write_parquet(tmp_path / "typed.parquet")
    assert intake.events([tmp_path / "typed.parquet"]).accepted == 2
    (tmp_path / "header.csv").write_text("user_id,item_id\n")
    assert intake.events([tmp_path / "header.csv"]).read == 0
    assert intake.items([written(tmp_path, "more.csv", "item_id,title,price,categories\n3,1999,,\n")]).accepted == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            f"user_id,item_id,timestamp,value\nu,i,{T0},good\nu,j,{T0},bad\n",
            "value holds text such as 'good', but it held numbers",
        ),
        (
            "a.jsonl",
            f'{{"user_id": "u", "item_id": "i", "timestamp": {T0}, "value": [1, 2]}}',
            r"value holds lists such as '\[1,2\]'",
        ),
        (
            "a.csv",
            "user_id,item_id,timestamp,value\nu,i,1,1\nu,j,2,1\n",
            "an order, not a time, but the files before held epoch seconds",
        ),
        ("a.csv", "user_id,item_id,timestamp,value\nu,i,26666666,1\n", "from 1600000000 to 1600000004 in epoch seconds"),
    ],
)
def test_another_meaning_is_refused(intake: Intake, tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        intake.events([written(tmp_path, name, text)])
    assert intake.journal.position() == 5


def test_a_list_that_became_a_number(intake: Intake, tmp_path: Path) -> None:
    intake.accept_drift = True
    intake.items([written(tmp_path, "lists.jsonl", '{"item_id": "4", "title": "t", "price": 1, "categories": ["a"]}')])
    intake.accept_drift = False
    with pytest.raises(InputError, match="categories holds numbers such as '7', but it held lists"):
        intake.items([written(tmp_path, "numbers.jsonl", '{"item_id": "5", "title": "t", "price": 1, "categories": 7}')])
    with pytest.raises(InputError, match="price holds text such as 'cheap', but it held numbers"):
        intake.items([written(tmp_path, "prices.jsonl", '{"item_id": "5", "title": "t", "price": "cheap", "categories": ["a"]}')])


def test_another_unit_of_time_is_converted_and_told(intake: Intake, tmp_path: Path) -> None:
    path = written(tmp_path, "ms.csv", f"user_id,item_id,timestamp,value\nw,i,{T0}000,1\nw,j,{T0 + 1}500,1\n")
    report = intake.events([path])
    assert "ms.csv: the files before wrote epoch seconds; these times are converted" in report.guesses
    assert intake.journal.read(after=5)["timestamp"].to_list() == [T0, T0 + 1.5]


@pytest.mark.parametrize("most", ["s", "ms"])
def test_a_file_that_mixes_units_is_refused_whole_and_a_few_such_rows_are_put_aside(tmp_path: Path, most: str) -> None:
    usual, odd = ("", "000") if most == "s" else ("000", "")
    importer = Intake(Journal.open(tmp_path / "journal"), DataSettings(), Quarantine(tmp_path))

    def rows(wrong: int) -> str:
        return "user_id,item_id,timestamp\n" + "".join(f"u{n},i,{T0 + n}{odd if n < wrong else usual}\n" for n in range(200))

    with pytest.raises(InputError, match=r"mixes units of time: most are epoch .*, but 30 of 200 rows"):
        importer.events([written(tmp_path, "mixed.csv", rows(30))])
    assert importer.journal.position() == 0
    report = importer.events([written(tmp_path, "few.csv", rows(3))])
    assert (report.accepted, sum(report.quarantined.values())) == (197, 3)
