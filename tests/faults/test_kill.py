"""kill -9 in the middle of writing: what was acknowledged is there, once, and nothing else is half there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings

WRITER = """
import sys
from pathlib import Path
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
journal, number = Journal.open(Path(sys.argv[1])), int(sys.argv[2])
while True:
    batch = [Event(user_id="u", item_id="i", event_id=f"e{number + place}") for place in range(7)]
    journal.append(batch)
    number += 7
    print(number, flush=True)
"""
IMPORTER = """
import sys
from pathlib import Path
from tastemaker.data.intake import Intake
from tastemaker.data.quarantine import Quarantine
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import DataSettings
folder = Path(sys.argv[1])
print("begun", flush=True)
Intake(Journal.open(folder / "journal"), DataSettings(), Quarantine(folder)).events([folder / "events.csv"])
"""


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.long)])
def test_acknowledged_events_survive_kill(tmp_path: Path, rounds: int) -> None:
    acknowledged = 0
    rng = random.Random(0)
    for _ in range(rounds):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(acknowledged)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        acknowledged = int(child.stdout.readline())
        time.sleep(rng.uniform(0.02, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split()]
        acknowledged = max([acknowledged, *said])
        child.wait()
        journal = Journal.open(tmp_path)
        stored = [row.event.event_id for row in journal.tail(0, limit=10**6)]
        journal.close()
        assert len(stored) == len(set(stored)), "an event is there twice"
        assert stored[:acknowledged] == [f"e{number}" for number in range(acknowledged)], "an acknowledged event is lost"
        assert len(stored) - acknowledged in (0, 7), "half a batch is there"
        acknowledged = len(stored)


@pytest.mark.parametrize("wait", [0.05, 0.4, 0.9])
def test_a_killed_import_leaves_nothing_and_can_be_repeated(tmp_path: Path, wait: float) -> None:
    lines = ["user_id,item_id,timestamp"] + [
        f"u{number % 977},i{number % 331},{1_600_000_000 + number}" for number in range(300_000)
    ]
    (tmp_path / "events.csv").write_text("\n".join(lines))
    child = subprocess.Popen([sys.executable, "-c", IMPORTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(wait)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    journal = Journal.open(tmp_path / "journal")
    assert journal.position() in (0, 300_000)
    before = journal.position()
    report = Intake(journal, DataSettings(), Quarantine(tmp_path)).events([tmp_path / "events.csv"])
    assert report.accepted == 300_000 - before
    assert journal.position() == 300_000
    assert journal.read()["event_id"].n_unique() == 300_000
    assert list((tmp_path / "journal" / "staging").iterdir()) == []
