"""Learning anew when it is time: the reasons, the gates, a kill in the middle, and never two at once."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ring import visits, write_ring
from tastemaker.bundle.record import read_record
from tastemaker.bundle.registry import Registry
from tastemaker.bundle.verify import read_manifest
from tastemaker.cli.app import call
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.training.runs import list_runs

pytest.importorskip("torch")
FEW = ["--set", "watch.new_events=200", "--set", "release.least=50"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained once; then 300 more events of new people came."""
    return write_ring(tmp_path_factory.mktemp("watch") / "w")


def come(space: Path, name: str, users: int = 50) -> None:
    journal = Journal.open(space / "journal")
    rows = visits(users, 6, 1, name, time.time() - 90_000)
    journal.append([Event(user_id=user, item_id=item, timestamp=moment) for user, item, moment in rows])
    journal.close()


def look(space: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert call(["watch", str(space), "--once", "--json", *FEW, *words]) == code
    return json.loads(capsys.readouterr().out)


def test_a_life_of_rounds(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = look(space, capsys)
    assert first["state"] == "released"
    assert "no bundle yet" in first["words"]
    assert look(space, capsys)["state"] == "idle"
    come(space, "second")
    told = look(space, capsys)
    assert told["state"] == "released", told
    assert Registry(space / "bundles").stages().live == told["version"] != first["version"]
    assert Registry(space / "bundles").stages().previous == first["version"]
    assert read_manifest(space / "bundles" / told["version"]).data.position == 750, (
        "half of the new events are asked for, not learned"
    )
    (line,) = read_record(space / "bundles")
    assert (line.who, line.why) == ("watch", "watch: 300 events came since the live bundle learned")
    assert any("that neither has learned from" in words for words in line.findings)
    come(space, "third")
    refused = look(space, capsys, "--set", "release.load_seconds=0.0001")
    assert refused["state"] == "refused"
    assert "after it is opened" in refused["words"]
    assert Registry(space / "bundles").stages().live == told["version"]
    history = [json.loads(text) for text in (space / "runs" / "watch.jsonl").read_text().splitlines()]
    assert [one["state"] for one in history] == ["released", "released", "refused"]


@pytest.mark.long
def test_a_killed_round_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_ring(tmp_path / "w")
    command = [sys.executable, "-m", "tastemaker", "watch", str(folder), "--once", *FEW]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob("runs/*/*.checkpoint")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)  # its training must not outlive it
    (killed,) = list_runs(folder / "runs")
    while killed.state == "running" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert killed.state == "killed"
    come(folder, "later")
    told = look(folder, capsys)
    assert told["state"] == "released"
    runs = list_runs(folder / "runs")
    assert len(runs) == 1, [(run.id, run.state, run.began) for run in runs]
    (run,) = runs
    assert (run.id, run.state, run.bundle) == (killed.id, "done", told["version"])
    assert run.data.position == 600


def test_one_at_a_time_and_what_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_ring(tmp_path / "w")
    (folder / "runs").mkdir(exist_ok=True)
    with (folder / "runs" / "watch.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert call(["watch", str(folder), "--once"]) == 2
        assert "Another `tastemaker watch`" in capsys.readouterr().err
    bad = ("--set", "text.model=no/such-model", "--set", "data.positive=[]")
    (folder / "items.csv").write_text("item_id,title\ni0,a lamp\n")
    assert call(["import", str(folder), "--items", str(folder / "items.csv")]) == 0
    words = [look(folder, capsys, *bad, code=1)["words"] for _ in range(3)]
    assert "tried again" in words[0]
    assert "given up" in words[2]
    assert not (folder / "runs" / "watch.json").exists()
