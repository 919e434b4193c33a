"""A person who is erased is gone from every file of the journal, the others are as they were, and what still knows of the person is told."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from ring import write_ring
from tastemaker.cli.app import call
from tastemaker.journal.append import Journal
from tastemaker.journal.erase import asked_since, erase, finish, pending
from tastemaker.journal.health import faults
from tastemaker.journal.sampled import Sampled
from tastemaker.journal.served import Served, ServedLog, read_served
from tastemaker.journal.trial import Tried
from tastemaker.schema.events import Event
from tastemaker.schema.items import User
from toy_bundle import write_workspace

CANARY = 'Zoë "K4n4ry" \\ O’Hara'
"""An id with all that is hard to find: quotes, a backslash, letters beyond ASCII."""


def on_disk(folder: Path, *words: str) -> list[str]:
    """Files that hold a word as plain bytes, as JSON, or in a Parquet column."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        body = path.read_bytes()
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            body += "".join(map(str, table.select(pl.col(pl.String)).unpivot()["value"].to_list())).encode()
        if any(word.encode() in body or word.replace("\\", "\\\\").replace('"', '\\"').encode() in body for word in words):
            found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """The canary in an imported segment, in the database, in the logs and among refused rows, between others."""
    folder = write_ring(tmp_path / "space", 20)
    rows = [(CANARY, "i1", 1.6e9), ("other", "i2", 1.6e9 + 1), (CANARY, "i3", 1.6e9 + 2)]
    file = tmp_path / "more.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(file)
    assert call(["import", str(folder), "--events", str(file)]) == 0
    journal = Journal.open(folder / "journal")
    journal.put_users([User(user_id=CANARY, extra={"age": "30"}), User(user_id="other")])
    journal.put_edges(pl.DataFrame({"head": [f"user:{CANARY}"], "relation": ["friend"], "tail": ["user:other"], "weight": [1.0]}))
    journal.append(
        [
            Event(user_id=user, item_id="i5", event_id=f"e{place}", timestamp=1.7e9)
            for place, user in enumerate([CANARY, "other", CANARY])
        ]
    )
    journal.close()
    now = time.time()
    for name, line in (
        ("served", lambda user: Served("r" + user, user, now, "v1", [("i1", 1.0, "text", 1.0)])),
        (
            "sampled",
            lambda user: Sampled(
                request_id="r", user_id=user, time=now, moment=now, model_version="v1", items=[], scores=[], sources=[]
            ),
        ),
        ("trials", lambda user: Tried(experiment="x", step=0, variant="canary", user_id=user, time=now)),
    ):
        log = ServedLog(folder / "journal" / name, 30)
        for user in (CANARY, "other", CANARY):
            log.write(line(user))
        log.close()
    (folder / "reports" / "quarantine").mkdir(parents=True, exist_ok=True)
    (folder / "reports" / "quarantine" / "x.jsonl").write_text(
        '{"row": "Zoë \\"K4n4ry\\" \\\\ O’Hara,i9,never"}\n{"row": "other,i9,never"}\n'
    )
    return folder


def test_nothing_is_left_and_the_others_are_as_they_were(space: Path) -> None:
    journal = Journal.open(space / "journal")
    before = journal.read().filter(pl.col("user_id") != CANARY)
    position = journal.position()
    assert on_disk(space, CANARY), "the search finds it where it is"
    found = erase(journal, CANARY, space / "reports")
    assert (found.attributes, found.edges, found.events, found.lines, found.finished) == (True, 1, 4, 7, True)
    assert on_disk(space, CANARY) == []
    assert journal.read().equals(before), "sequence numbers too"
    assert [stored.seq for stored in journal.tail(0)] == before["seq"].to_list()
    assert journal.position() == position
    assert faults(journal) == []
    assert read_served(space / "journal" / "served")["user_id"].unique().to_list() == ["other"]
    assert journal.user("other") is not None
    again = erase(journal, CANARY, space / "reports")
    assert (again.events, again.lines, again.finished) == (0, 0, True)
    journal.close()


def test_an_import_does_not_bring_it_back(space: Path, tmp_path: Path) -> None:
    journal = Journal.open(space / "journal")
    erase(journal, CANARY)
    file = tmp_path / "again.csv"  # another file, so that the ledger of files does not know it
    rows = [(CANARY, "i1", 1.6e9), ("new", "i2", 1.6e9)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(file)
    assert call(["import", str(space), "--events", str(file)]) == 0
    assert "new" in journal.read()["user_id"].to_list()
    assert CANARY not in journal.read()["user_id"].to_list()
    journal.close()


def test_what_was_cut_short_is_finished_and_bundles_are_told(tmp_path: Path) -> None:
    version = write_workspace(tmp_path / "space")
    journal, reader = Journal.open(tmp_path / "space" / "journal"), Journal.open(tmp_path / "space" / "journal")
    journal.append([Event(user_id="u7", item_id="boots-1", event_id="e", timestamp=1.0)])
    reader._database.execute("BEGIN")
    reader._database.execute("SELECT count(*) FROM event").fetchone()  # somebody reads on
    journal.append([Event(user_id="u8", item_id="boots-1", event_id="f", timestamp=1.0)])
    journal._database.execute("PRAGMA busy_timeout=50")
    bundles = tmp_path / "space" / "bundles"
    found = erase(journal, "u7", bundles=bundles)
    assert not found.finished
    assert found.bundles == [version]
    assert [one.user_id for one in asked_since(journal)] == ["u7"]
    reader._database.execute("ROLLBACK")
    assert finish(journal) == 0
    assert [one.user_id for one in asked_since(journal)] == [None]
    assert len(pending(journal, bundles)) == 1, "the bundle knows the person"
    (bundles / version / "users" / "user_ids.parquet").unlink()
    assert pending(journal, bundles) == []
    journal.close()
    reader.close()


def test_the_verb_erases_and_tells_what_is_pending(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["erase", str(space), CANARY]) == 0
    assert "4 events, 7 lines" in capsys.readouterr().out
    assert on_disk(space, CANARY) == []
    assert call(["erase", str(space), "--pending"]) == 0
    assert capsys.readouterr().out.startswith("0 pending")
    assert call(["erase", str(space)]) == 2


def test_a_place_inside_an_import_is_a_place(space: Path) -> None:
    journal = Journal.open(space / "journal")
    everything = journal.read()
    for upto in (1, 60, 120, 121, 123, 125):
        assert journal.read(0, upto).equals(everything.head(upto)), upto
        assert journal.read(50, upto).equals(everything.filter(pl.col("seq").is_between(51, upto)))
    journal.close()
