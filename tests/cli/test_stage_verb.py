"""`tastemaker stage` from files to features, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tastemaker.cli.app import call
from tastemaker.data.stage import feature_table
from tastemaker.features.feature_set import FeatureSet
from tastemaker.journal.append import Journal
from tastemaker.schema.settings import Settings


def test_the_default_features_of_a_workspace_are_those_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"u{n % 5},i{n % 7},{1_600_000_000 + 40_000 * (n * 7 % 60)}\n" for n in range(60))
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + rows)
    items = "".join(f"i{n},Item {n},{'shoes' if n % 2 else 'tents'},{n + 1.5}\n" for n in range(6))
    (tmp_path / "items.csv").write_text("item_id,title,categories,price\n" + items)
    space = str(tmp_path / "space")
    assert call(["init", space]) == 0
    assert call(["import", space, "--events", str(tmp_path / "events.csv"), "--items", str(tmp_path / "items.csv")]) == 0
    capsys.readouterr()
    assert call(["stage", space, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["events"], told["users"], told["items"], told["split"]) == (60, 5, 7, "global_time")
    journal = Journal.open(tmp_path / "space" / "journal")
    events, made = journal.read(), FeatureSet.declared(Settings().features.use, journal.items())
    found = feature_table(Path(told["path"])).collect().sort("seq")
    assert told["features"] == made.names
    np.testing.assert_allclose(found.select(made.names).to_numpy(), made.rows(events, events), rtol=1e-5, atol=1e-5)
    assert not list((tmp_path / "space").glob("live-*"))


def test_an_empty_journal_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = str(tmp_path / "space")
    assert call(["init", space]) == 0
    assert call(["stage", space]) == 2
    assert "no imported events" in " ".join(capsys.readouterr().err.split())
