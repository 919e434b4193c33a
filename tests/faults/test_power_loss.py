"""The power goes while events are written: what was acknowledged is there, once and whole, and nothing is there that nobody sent."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from recording_disk import FULL, IOERR_FSYNC, RecordingDisk, crash

from tastemaker.journal import stores
from tastemaker.journal.append import Journal
from tastemaker.schema.errors import JournalError
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item

BATCH = 7


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingDisk]:
    found, plain = RecordingDisk(), sqlite3.connect

    def connect(path: Path, **options: object) -> sqlite3.Connection:
        return plain(f"file:{path}?vfs=recorder", uri=True, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(stores.sqlite3, "connect", connect)
    yield found
    monkeypatch.undo()
    found.close()


def event(number: int) -> Event:
    return Event(
        user_id=f"u{number % 5}", item_id=f"i{number % 11}", event_id=f"e{number}", timestamp=1e9 + number, context={"n": number}
    )


def written(disk: RecordingDisk, folder: Path, batches: int) -> None:
    """Batches of events and now and then items, with checkpoints between, each told when it is acknowledged."""
    journal = Journal.open(folder)
    journal._database.execute("PRAGMA wal_autocheckpoint=20")
    for number in range(batches):
        journal.append([event(number * BATCH + place) for place in range(BATCH)])
        disk.told((number + 1) * BATCH)
        if number % 9 == 0:
            journal.put_items([Item(item_id=f"i{number}", title="boots " * 200)])
    journal.close()


def lost(disk: RecordingDisk, folder: Path, images: int, seed: int = 0) -> int:
    """Builds crashes at random moments and looks at what a journal that opens them holds; gives in how many something acknowledged was lost."""
    rng, found = random.Random(seed), 0
    record = list(disk.record)
    first = next(place for place, done in enumerate(record) if done.what == "told")
    for image in range(images):
        place = folder / f"image-{image}"
        place.mkdir(parents=True)
        told = crash(record[: rng.randint(first, len(record))], rng, place)
        try:
            journal = Journal.open(place)
            rows = journal.tail(0, 10**6)
            position = journal.position()
            journal.close()
        except (JournalError, sqlite3.Error):
            found += 1
            continue
        numbers = [int(row.event.event_id[1:]) for row in rows]
        assert numbers == list(range(len(numbers))), "an event is there twice, or out of order, or one before it is missing"
        assert all(row.event == event(number) for number, row in enumerate(rows)), "something is there that nobody sent"
        if len(numbers) >= told:
            assert len(numbers) - told in (0, BATCH), "half a batch is there"
            assert position == len(rows), "the counter is not what is there"
        found += len(numbers) < told
    return found


@pytest.mark.parametrize(("batches", "images"), [(40, 80), pytest.param(300, 1_000, marks=pytest.mark.long)])
def test_no_acknowledged_event_is_lost_when_the_power_goes(disk: RecordingDisk, tmp_path: Path, batches: int, images: int) -> None:
    written(disk, tmp_path / "journal", batches)
    assert sum(done.what == "sync" for done in disk.record) >= batches
    assert lost(disk, tmp_path / "images", images) == 0


def test_a_journal_that_does_not_sync_is_caught(disk: RecordingDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = stores.connect

    def careless(path: Path) -> sqlite3.Connection:
        made = plain(path)
        made.execute("PRAGMA synchronous=NORMAL")
        return made

    monkeypatch.setattr("tastemaker.journal.append.connect", careless)
    written(disk, tmp_path / "journal", 40)
    monkeypatch.setattr("tastemaker.journal.append.connect", plain)
    assert lost(disk, tmp_path / "images", 40) > 0


@pytest.mark.parametrize(("what", "code"), [("write", FULL), ("sync", IOERR_FSYNC)])
def test_a_disk_that_refuses_acknowledges_nothing_and_loses_nothing(
    disk: RecordingDisk, tmp_path: Path, what: str, code: int
) -> None:
    journal = Journal.open(tmp_path / "journal")
    journal.append([event(number) for number in range(BATCH)])
    disk.fault = lambda done, file: code if done == what and file.endswith("-wal") else 0
    for number in range(3):
        with pytest.raises(JournalError, match="nothing of this change was kept"):
            journal.append([event(BATCH + number)])
        assert journal.position() == BATCH, "answers go on from what is there"
    disk.fault = lambda done, file: 0
    assert journal.append([event(BATCH)]).accepted == 1
    assert [row.event.event_id for row in journal.tail(0)] == [f"e{number}" for number in range(BATCH + 1)]
    journal.close()
