"""`evaluate` of a bundle whose users went on: the bundle itself is judged, with floors that know what it knew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import toy_bundle
from tastemaker.cli.app import call
from tastemaker.cli.evaluate import ENOUGH_USERS
from tastemaker.evaluation.recommenders import OURS

USERS = ENOUGH_USERS + 20


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A live bundle, and one later event of each user: the next item of the user's own kind."""
    toy_bundle.write_later_workspace(tmp_path / "space", USERS)
    return tmp_path / "space"


def test_newer_events_judge_the_bundle_itself_with_the_floors_beside(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["evaluate", str(workspace), "--json", "--set", "evaluation.k=5,30", "--set", "evaluation.bootstrap=50"]) == 0
    report = json.loads(capsys.readouterr().out)
    text = json.dumps(report)
    assert "the bundle itself was judged" in text
    found = {name: one["metrics"] for name, one in report["recommenders"].items()}
    hits = {name: metrics["HitRate@30"]["mean"] for name, metrics in found.items()}
    assert len(hits) == 6, "ours and five floors"
    ours = hits.pop(OURS)
    assert ours == 1.0, "12 of 60 items are left of the user's kind: all of them fit into 30 places"
    assert max(hits.values()) <= ours
    assert min(hits.values()) > 0, "a floor that knew nothing of the bundle's events would find nothing"
