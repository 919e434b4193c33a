"""`tastemaker runs`: lists the trainings of a workspace, compares two, or sends them to MLflow."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError
from tastemaker.training.runs import RunRecord, differences, list_runs, read_run

METRIC = "validation_ndcg_fusion"


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    compare: Annotated[list[str] | None, typer.Argument(help="Two runs to compare.")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Send all finished runs to this MLflow tracking URI.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the trainings and compare two of them."""
    workspace = open_workspace(directory)
    records = list_runs(workspace.runs)
    if mlflow is not None:
        from tastemaker.cli._mlflow import send

        sent = send(records, workspace.runs, mlflow, workspace.path.resolve().name)
        typer.echo(json_module.dumps({"sent": sent}) if json else f"{sent} runs sent to {mlflow}")
        return
    if not compare:
        _list(records, json)
        return
    if len(compare) != 2:
        raise InputError(f"{len(compare)} run was named; two are compared, as in: tastemaker runs {directory} RUN RUN")
    one, other = (read_run(workspace.runs / name) for name in compare)
    _compare(one, other, json)


def _list(records: list[RunRecord], json: bool) -> None:
    if json:
        typer.echo(json_module.dumps([{**msgspec.to_builtins(record), "state": record.state} for record in records]))
        return
    if not records:
        typer.echo("No run yet. Begin one: tastemaker train DIR")
        return
    table = Table(box=None)
    for name in ("run", "state", "began", "seconds", "GiB", "events", "NDCG@10", "bundle", "content"):
        table.add_column(name, no_wrap=True)
    for record in records:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.began))
        quality = record.metrics.get(METRIC)
        table.add_row(
            record.id,
            record.state,
            when,
            f"{record.seconds:.0f}",
            f"{record.peak_gib:.2f}",
            f"{record.data.events:,}",
            "" if quality is None else f"{quality:.4f}",
            record.bundle,
            record.content[:8],
        )
    Console(width=max(Console().width, 120)).print(table)


def _compare(one: RunRecord, other: RunRecord, json: bool) -> None:
    changed, metrics = differences(one, other), _metrics(one, other)
    same = bool(one.content) and one.content == other.content
    if json:
        typer.echo(json_module.dumps({"settings": changed, "metrics": metrics, "same_content": same, "why": why(one, other)}))
        return
    table = Table(box=None)
    for name in ("", one.id, other.id):
        table.add_column(name, no_wrap=True)
    for name, (first, second) in {**changed, **metrics}.items():
        table.add_row(name, *(f"{value:.4f}" if isinstance(value, float) else str(value) for value in (first, second)))
    Console(width=max(Console().width, 100)).print(table)
    typer.echo("Both bundles hold the same." if same else why(one, other))


def why(one: RunRecord, other: RunRecord) -> str:
    """A sentence that says why two bundles are not the same; empty where they are."""
    if not one.content or not other.content:
        return "One of the runs wrote no bundle."
    if one.content == other.content:
        return ""
    changed = differences(one, other)
    if changed:
        return f"The bundles differ, as these differ: {', '.join(changed)}."
    kinds = sorted(name for name in one.environment.keys() | other.environment.keys() if _differ(one, other, name))
    if kinds:
        return f"The bundles differ with the same data and settings, as the machines or packages differ: {', '.join(kinds)}."
    return "The bundles differ with the same data, settings and machine: sums of several threads are rounded in another order."


def _differ(one: RunRecord, other: RunRecord, name: str) -> bool:
    return bool(one.environment.get(name) != other.environment.get(name))


def _metrics(one: RunRecord, other: RunRecord) -> dict[str, tuple[Any, Any]]:
    names = [*one.metrics, *(name for name in other.metrics if name not in one.metrics)]
    return {name: (one.metrics.get(name), other.metrics.get(name)) for name in names}
