"""`tastemaker profile` from a file to the page, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tastemaker.cli.app import call


def workspace(folder: Path, rows: str) -> str:
    (folder / "events.csv").write_text("user_id,item_id,timestamp\n" + rows)
    space = str(folder / "space")
    assert call(["init", space]) == 0
    assert call(["import", space, "--events", str(folder / "events.csv")]) == 0
    return space


def test_a_page_figures_and_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = workspace(tmp_path, "".join(f"u{n % 3},i{n % 4},{1_600_000_000 + 86_400 * n + 7 * n}\n" for n in range(12)))
    capsys.readouterr()
    assert call(["profile", space, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    reports = tmp_path / "space" / "reports"
    assert printed == json.loads((reports / "profile.json").read_bytes())
    assert (printed["events"], printed["users"]["n"], printed["items"]["n"]) == (12, 3, 4)
    assert (printed["timeline"]["days"], printed["catalogue"]) == (12, None)
    assert json.loads((reports / "baseline.json").read_bytes())["events"] == 12
    assert call(["profile", space, "--set", "data.positive=event"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "12 events of 3 users with 4 items" in out
    assert "There is no catalogue" in out
    assert "profile.html" in out
    assert "12" in (reports / "profile.html").read_text(encoding="utf-8")


def test_an_empty_journal_is_bad_input_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space"
    assert call(["init", str(space)]) == 0
    capsys.readouterr()
    assert call(["profile", str(space)]) == 2
    assert "Import some first" in " ".join(capsys.readouterr().err.split())
    assert not (space / "reports" / "profile.html").exists()


def test_movielens_profiles_as_published(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    archive = zipfile.ZipFile(shared_data / "movielens-latest-small" / "ml-latest-small.zip")
    for name in ("ratings.csv", "movies.csv"):
        (tmp_path / name).write_bytes(archive.read(f"ml-latest-small/{name}"))
    space = str(tmp_path / "space")
    call(["init", space])
    call(["import", space, "--events", str(tmp_path / "ratings.csv"), "--items", str(tmp_path / "movies.csv")])
    capsys.readouterr()
    assert call(["profile", space, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["events"], found["users"]["n"], found["items"]["n"], found["catalogue"]["items"]) == (100_836, 610, 9_724, 9_742)
    assert found["catalogue"]["unmet"] == 18
    assert found["timeline"]["columns"][0][0] == "1996-03-29"
    assert found["value"]["histogram"]["values"] == [0.5 * step for step in range(1, 11)]
