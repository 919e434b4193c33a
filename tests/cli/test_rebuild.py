"""`tastemaker rebuild`: a whole journal gives the same state; a damaged one is told."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from tastemaker.cli.app import call
from tastemaker.journal.append import Journal
from tastemaker.journal.health import faults
from tastemaker.journal.stores import sync_file
from tastemaker.schema.events import Event
from tastemaker.streaming.features import LiveFeatures
from toy_bundle import write_features, write_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_workspace(tmp_path, besides=write_features)
    journal = Journal.open(tmp_path / "journal")
    journal.append([Event(user_id=f"u{n % 7}", item_id=f"boots-{n % 5}", timestamp=1e9 + n) for n in range(100)])
    with journal.importing() as staging:
        part = staging / "part.parquet"
        pl.DataFrame({"event_id": ["a", "b"], "user_id": ["u1", "u2"], "item_id": ["boots-1", "coffee-1"], "timestamp": [1e9, 2e9]}).write_parquet(part)  # fmt: skip
        sync_file(part)
        journal.commit_import("events", [("sha", "file")], [part], [2])
    journal.close()
    return tmp_path


def rebuilt(workspace: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    code = call(["rebuild", str(workspace), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_whole_journal_gives_the_same_state(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = rebuilt(workspace, capsys)
    assert (code, found["events"], found["faults"], found["differing"]) == (0, 102, [], [])
    assert found["features"] == 6


def test_a_state_that_differs_is_told(workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LiveFeatures.fold_event
    monkeypatch.setattr(LiveFeatures, "fold_event", lambda self, event: plain(self, event) if event.user_id != "u3" else None)
    code, found = rebuilt(workspace, capsys)
    assert code == 1
    assert "item_events" in found["differing"]  # type: ignore[operator]


def test_a_damaged_journal_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal.open(workspace / "journal")
    assert faults(journal) == []
    (segment,) = journal.segments.iterdir()
    pl.read_parquet(segment).head(1).write_parquet(segment)
    assert any("holds 1 rows; expected 2" in words for words in faults(journal))
    segment.unlink()
    assert any("is missing" in words for words in faults(journal))
    journal.close()
    with sqlite3.connect(workspace / "journal" / "live.sqlite") as database:
        database.execute("DELETE FROM event WHERE seq=50")
    code, found = rebuilt(workspace, capsys)
    assert code == 1
    assert any("The counter says 102" in words for words in found["faults"])  # type: ignore[attr-defined]
