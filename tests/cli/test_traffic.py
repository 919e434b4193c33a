"""People who visit the demo's service."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from live_service import serving
from tastemaker.cli import traffic
from tastemaker.cli.demo import ask
from tastemaker.cli.workspace import open_workspace
from tastemaker.journal.append import Journal
from toy_bundle import KINDS, write_workspace


def test_visitors_come_look_and_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path / "space")
    monkeypatch.setattr(traffic, "STEP", 0.05)
    monkeypatch.setattr(traffic, "RATE", 400.0)
    with serving(tmp_path / "space") as service:
        with traffic.visited(open_workspace(tmp_path / "space"), lambda path, body: ask(service.url, path, body)):
            end = time.monotonic() + 60
            while Journal.open(tmp_path / "space" / "journal").position() < 60 and time.monotonic() < end:
                time.sleep(0.05)
        events = Journal.open(tmp_path / "space" / "journal").read()
    assert events.height >= 60
    assert events["user_id"].str.starts_with("visitor-").all()
    assert events["request_id"].null_count() == 0
    assert events["position"].null_count() == 0
    kinds = {kind: events.filter(events["item_id"].str.starts_with(kind)).height for kind in KINDS}
    assert min(kinds.values()) > 0, "tastes differ"
