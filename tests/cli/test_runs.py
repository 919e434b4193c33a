"""What a training leaves behind: records, equal bundles for equal trainings, and a way on after a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

from ring import SETTINGS, write_ring
from tastemaker.cli.app import call
from tastemaker.data.dataset import Dataset
from tastemaker.journal.append import Journal
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.manifest import DataFingerprint
from tastemaker.schema.settings_file import load_settings, to_table
from tastemaker.training.runs import RunRecord, begin_run, list_runs, read_run, save_run


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ring of items without texts, imported and trained once."""
    folder = write_ring(tmp_path_factory.mktemp("runs") / "w")
    assert call(["train", str(folder)]) == 0
    return folder


def copy(workspace: Path, folder: Path) -> Path:
    shutil.copytree(workspace, folder, ignore=shutil.ignore_patterns("runs", "bundles", "reports"))
    return folder


def test_a_record_tells_what_went_in_and_what_came_out(workspace: Path) -> None:
    (record,) = list_runs(workspace / "runs")
    assert record.state == "done"
    assert record.data.events == 600
    assert record.settings["sequence"]["dim"] == 16
    assert record.metrics["validation_ndcg_sequence"] > 0
    assert record.environment["torch"]
    assert record.seconds > 0
    assert record.peak_gib > 0.05
    assert record.bundle in {path.name for path in (workspace / "bundles").iterdir()}
    lines = [json.loads(line) for line in (workspace / "runs" / record.id / "validate.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == list(range(1, 1 + sum("epoch" in line for line in lines)))
    assert {"loss", "rate"} <= lines[0].keys()


def test_a_killed_train_goes_on_to_the_same_bundle(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy(workspace, tmp_path / "w")
    killed = killed_at_first_checkpoint(folder)
    capsys.readouterr()
    assert call(["train", str(folder), "--resume", "--set", "sequence.dim=24"]) == 2
    assert "sequence.dim = 16, and now it is 24" in " ".join(capsys.readouterr().err.split())
    assert call(["train", str(folder), "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (first,) = list_runs(workspace / "runs")
    assert result["run"] == killed.id
    assert result["content"] == first.content, "same seed, data and machine: the same bundle"
    assert call(["train", str(folder), "--resume"]) == 2
    assert "cut short" in capsys.readouterr().err


def killed_at_first_checkpoint(folder: Path) -> RunRecord:
    """The record of a training that was ended by SIGKILL."""
    train = [sys.executable, "-m", "tastemaker", "train", str(folder), "--json"]
    with subprocess.Popen(train, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob("runs/*/*.checkpoint")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    (killed,) = list_runs(folder / "runs")
    assert killed.state == "killed"
    return killed


def test_a_run_goes_on_with_the_events_it_began_with_though_more_have_come(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(workspace, tmp_path / "w")
    killed = killed_at_first_checkpoint(folder)
    journal = Journal.open(folder / "journal")
    journal.append([Event(user_id="new", item_id=f"late{number}", timestamp=1_700_000_000.0 + number) for number in range(7)])
    journal.put_items([Item(item_id="late0", title="new")])
    journal.close()
    capsys.readouterr()
    assert call(["train", str(folder), "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (first,) = list_runs(workspace / "runs")
    assert result["run"] == killed.id
    assert result["content"] == first.content, "the bundle that would have been"
    assert result["later_events"] == 7
    assert any("grown by 7 events" in note for note in result["notes"])
    manifest = json.loads((folder / "bundles" / result["version"] / "manifest.json").read_text())
    assert manifest["data"]["position"] == killed.data.position == 600, "serving folds what came later"


def test_a_run_whose_items_were_changed_says_that_they_are_gone(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(workspace, tmp_path / "w")
    journal = Journal.open(folder / "journal")
    journal.put_items([Item(item_id=f"i{number}", title=f"thing {number}") for number in range(3)])
    marks = journal.marks()
    fingerprint = Dataset.from_journal(journal, load_settings(folder / "tastemaker.toml")).fingerprint()
    data = DataFingerprint(events=600, users=100, items=3, position=marks[0], change=marks[1], sha256=fingerprint)
    run, record = begin_run(folder / "runs", to_table(load_settings(folder / "tastemaker.toml")), data, 0)
    record.status = "failed"
    save_run(run, record)
    journal.put_items([Item(item_id="i1", title="another thing")])
    journal.delete_items(["i2"])
    journal.close()
    capsys.readouterr()
    assert call(["train", str(folder), "--resume"]) == 2
    assert "began with 3 items, and 2 of them were changed or deleted" in " ".join(capsys.readouterr().err.split())


@pytest.mark.long
@pytest.mark.parametrize("dies", [False, True])
def test_torchrun_trains_one_bundle_also_when_a_process_dies(dies: bool, workspace: Path, tmp_path: Path) -> None:
    folder = copy(workspace, tmp_path / "w")
    words = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "tastemaker", "train", str(folder), "--json"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    program = [sys.executable, "-m", "torch.distributed.run", *words]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as process:
        if dies:
            deadline = time.monotonic() + 120
            while not list(folder.glob("runs/*/*.checkpoint")) and time.monotonic() < deadline:
                time.sleep(0.01)
            psutil.Process(process.pid).children()[-1].kill()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    records = list_runs(folder / "runs")
    assert records[-1].state == "done"
    assert len(records) == 1 + dies
    assert all(record.state in ("failed", "killed") for record in records[:-1]), (
        "the first process sees that the other one is gone, or is ended before"
    )
    (alone,) = list_runs(workspace / "runs")
    name = "validation_ndcg_sequence"
    assert records[-1].metrics[name] == pytest.approx(alone.metrics[name], abs=0.2)
    assert len([path for path in (folder / "bundles").iterdir() if path.is_dir()]) == 1
    assert not list((folder / "runs" / records[-1].id).glob("*.job")), "what was handed to the processes is gone"


def test_two_runs_are_compared(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = list_runs(workspace / "runs")
    folder, other = begin_run(
        workspace / "runs", {**first.settings, "sequence": {**first.settings["sequence"], "dim": 32}}, first.data, 0
    )
    other.status, other.content = "done", "other"
    save_run(folder, other)
    try:
        capsys.readouterr()
        assert call(["runs", str(workspace)]) == 0
        shown = capsys.readouterr().out
        assert first.id in shown
        assert first.bundle in shown
        assert call(["runs", str(workspace), first.id, other.id, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["settings"] == {"sequence.dim": [16, 32]}
        assert "sequence.dim" in found["why"]
        assert call(["runs", str(workspace), first.id]) == 2
        assert call(["runs", str(workspace), first.id, "nothing"]) == 2
        assert first.id in capsys.readouterr().err
    finally:
        shutil.rmtree(folder)


def test_a_failed_run_says_why(workspace: Path, tmp_path: Path) -> None:
    folder = copy(workspace, tmp_path / "w")
    assert call(["train", str(folder), "--set", "train.optimiser=lion"]) == 2
    (record,) = list_runs(folder / "runs")
    assert record.state == "failed"
    assert "train.optimiser" in record.error


def test_a_record_of_another_process_is_not_running(tmp_path: Path) -> None:
    folder, record = begin_run(tmp_path, {}, RunRecord(id="").data, 0)
    assert read_run(folder).state == "running"
    process, started = record.process, record.started
    record.process = 2**30
    save_run(folder, record)
    assert read_run(folder).state == "killed"
    record.process, record.started = process, "another boot 7"
    save_run(folder, record)
    assert read_run(folder).state == ("killed" if started else "running"), "its number is another process's now"


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install 'tastemaker[mlflow]'")
def test_runs_are_sent_to_mlflow_once(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is no server, and enough here
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    capsys.readouterr()
    for wanted in (1, 0):
        assert call(["runs", str(workspace), "--mlflow", uri, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sent"] == wanted
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("w").experiment_id])
    assert run.data.params["sequence.dim"] == "16"
    assert run.data.metrics["validation_ndcg_sequence"] > 0
    assert len(client.get_metric_history(run.info.run_id, "validate.loss")) >= 1


def test_items_that_only_later_events_name_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a catalogue the learner knows fewer items than the questions."""
    rows = [(f"u{user}", f"i{(user + step) % 20}", 1_600_000_000 + 86_400 * step + user) for user in range(60) for step in range(6)]
    rows += [
        (f"u{user}", f"late{user % 3 + step}", 1_600_000_000 + 86_400 * (20 + step) + user)
        for user in range(60)
        for step in range(3)
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "events.csv")
    folder = tmp_path / "w"
    assert call(["init", str(folder)]) == 0
    (folder / "tastemaker.toml").write_text(SETTINGS + "[data]\ntest_share = 0.4\n")
    assert call(["import", str(folder), "--events", str(tmp_path / "events.csv")]) == 0
    assert call(["train", str(folder)]) == 0
    capsys.readouterr()
    assert call(["evaluate", str(folder), "--json", "--no-baselines"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["questions"] >= 150
    (ours,) = report["recommenders"].values()
    assert 0 <= ours["metrics"]["NDCG@10"]["mean"] < 0.5, "an item that nothing named is not found"
