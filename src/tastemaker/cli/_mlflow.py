"""Sends the records of runs to an MLflow tracking server or folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tastemaker.schema.errors import MissingExtraError
from tastemaker.training.runs import RunRecord


def send(records: Sequence[RunRecord], runs: Path, uri: str, experiment: str) -> int:
    """Sends the finished runs that are not there yet, with settings, metrics and curves; gives their number.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    try:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingExtraError("mlflow", "Sending runs to MLflow") from None
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found is not None else client.create_experiment(experiment)
    known = {run.data.tags.get("tastemaker.run") for run in client.search_runs([place], max_results=10_000)}
    sent = 0
    for record in records:
        if record.status != "done" or record.id in known:
            continue
        made = client.create_run(place, start_time=int(record.began * 1_000), run_name=record.id)
        settings = [
            Param(f"{section}.{key}", str(value)[:500]) for section, keys in record.settings.items() for key, value in keys.items()
        ]
        ended = int(record.ended * 1_000)
        figures = [Metric(name, float(value), ended, 0) for name, value in record.metrics.items()]
        for begin in range(0, len(settings), 100):  # the API takes 100 at a time
            client.log_batch(made.info.run_id, params=settings[begin : begin + 100])
        client.log_batch(made.info.run_id, metrics=[*figures, *_curves(runs / record.id)][:1_000])
        tags = {"tastemaker.run": record.id, "tastemaker.bundle": record.bundle, "tastemaker.data": record.data.sha256}
        for name, text in tags.items():
            client.set_tag(made.info.run_id, name, text)
        client.set_terminated(made.info.run_id, end_time=ended)
        sent += 1
    return sent


def _curves(folder: Path) -> list[object]:
    """Loss and validation after each epoch of each training of a run."""
    from mlflow.entities import Metric

    found: list[object] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "epoch" in row:
                at, epoch = int(row["at"] * 1_000), int(row["epoch"])
                found += [
                    Metric(f"{path.stem}.{name}", float(row[name]), at, epoch) for name in ("loss", "validation") if name in row
                ]
    return found
