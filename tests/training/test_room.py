"""What processes of one machine tell each other through shared memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tastemaker.schema.errors import TrainingError
from tastemaker.training import room
from tastemaker.training.room import Room

PROGRAM = """
import sys, torch
from pathlib import Path
from tastemaker.training.room import Room
place = int(sys.argv[2])
here = Room(Path(sys.argv[1]), place, 2)
for turn in range(300):
    value = torch.full((1 + turn % 7, 3), float(turn * 10 + place))
    told = here.values(value)
    assert torch.equal(told, torch.stack([torch.full_like(value, turn * 10.0), torch.full_like(value, turn * 10.0 + 1)])), told
    here.sum_into(value)
    assert torch.equal(value, torch.full_like(value, turn * 20.0 + 1)), value
"""


def opened(folder: Path, parts: int, patience: float = 60.0) -> list[Room]:
    path = folder / "room"
    with path.open("wb") as file:
        file.truncate(Room.bytes_of(parts))
    return [Room(path, place, parts, patience) for place in range(parts)]


def test_two_processes_hear_each_other_in_every_turn(tmp_path: Path) -> None:
    opened(tmp_path, 2)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "room")]
    first, second = (subprocess.Popen([*command, str(place)], stderr=subprocess.PIPE) for place in range(2))
    errors = [process.communicate(timeout=60)[1].decode() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors


def test_what_is_longer_than_a_slot_goes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_SLOT", 8)
    values = [torch.arange(21.0) * (place + 1) for place in range(3)]
    told: dict[int, torch.Tensor] = {}
    sums = [value.clone() for value in values]

    def talk(place: int, here: Room) -> None:
        told[place] = here.values(values[place].view(3, 7))
        here.sum_into(sums[place])

    threads = [threading.Thread(target=talk, args=one) for one in enumerate(opened(tmp_path, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for place in range(3):
        assert torch.equal(told[place], torch.stack(values).view(3, 3, 7))
        assert torch.equal(sums[place], torch.arange(21.0) * 6)


def test_who_waits_too_long_says_for_whom(tmp_path: Path) -> None:
    first, _ = opened(tmp_path, 2, patience=0.05)
    with pytest.raises(TrainingError, match="Process 1 of the training did not answer"):
        first.values(torch.ones(2))
