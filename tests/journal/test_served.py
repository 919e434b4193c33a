"""Kept answers: what is read is what was written, a cut line costs one answer, and a refusing disk costs no answer to a user."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tastemaker.journal.served import Served, ServedLog, read_served


def served(number: int, when: float) -> Served:
    return Served(
        f"r{number}", "u" if number % 2 else None, when, "v1", [("a", 1.5, "text", 1.0), (f"b{number}", 0.5, "fresh slot", 0.25)]
    )


def test_written_and_read_again(tmp_path: Path) -> None:
    log, now = ServedLog(tmp_path / "served", 30), time.time()
    for number in range(3):
        log.write(served(number, now + number))
    log.close()
    found = read_served(tmp_path / "served")
    assert found.height == 6
    assert found["request_id"].to_list() == ["r0", "r0", "r1", "r1", "r2", "r2"]
    assert found.row(3, named=True) == {
        "request_id": "r1", "user_id": "u", "timestamp": now + 1, "model_version": "v1", "item_id": "b1", "position": 1, "score": 0.5,
        "source": "fresh slot", "propensity": 0.25, "variant": "live",
    }  # fmt: skip
    assert read_served(tmp_path / "nothing").height == 0


def test_a_cut_line_is_left_out_and_old_files_go(tmp_path: Path) -> None:
    old = tmp_path / "2020-01-01-1.jsonl"
    old.write_bytes(b"{}\n")
    os.utime(old, (1.0, 1.0))
    log = ServedLog(tmp_path, 30)
    log.write(served(1, time.time()))
    log.write(served(2, time.time()))
    log.close()
    assert not old.exists()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert read_served(tmp_path)["request_id"].unique().to_list() == ["r1"]


def test_a_refusing_disk_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = ServedLog(tmp_path / "file", 30)
    log.write(served(1, time.time()))
    assert log.lost == 1
    log = ServedLog(tmp_path / "served", 30)
    log.write(Served("r", "\ud800", time.time(), "v1", []))
    assert log.lost == 1
