"""`tastemaker train`: journal to candidate bundle; the first bundle of a workspace becomes live at once."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.errors import InputError

if TYPE_CHECKING:
    from tastemaker.training.features import TrainedFeatures


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate on held-back events, refit on all of them, write a candidate bundle."""
    result = train(open_workspace(directory, overrides or ()), show=not json)
    if json:
        typer.echo(json_module.dumps(result))
        return
    typer.echo(
        f"Bundle {result['version']} ({result['stage']}) learned from {result['events']:,} events of "
        f"{result['users']:,} users with {result['items']:,} items in {result['seconds']:.0f} s."
    )
    for name, value in result["metrics"].items():
        typer.echo(f"  {name}: {value:.4f}" if isinstance(value, float) else f"  {name}: {value}")
    for note in result["notes"]:
        typer.echo(f"  {note}")
    if "ranker_rows" in result:
        rows = result["ranker_rows"]
        typer.echo(
            f"Rows for a ranker: {rows['rows']:,} with {rows['columns']} features in {rows['path']}; {rows['report']} tells why these"
        )
    if result["stage"] == "live":
        typer.echo(f"Next: tastemaker evaluate {directory}, then tastemaker serve {directory}")
    else:
        typer.echo(f"Next: tastemaker release {directory} {result['version']}")


def train(workspace: Workspace, show: bool = True) -> dict[str, Any]:
    """Trains on the whole journal and writes a bundle; gives its version, stage, counts, metrics and seconds.

    Raises:
        InputError: the journal holds no event.
    """
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.write import write_bundle
    from tastemaker.data.dataset import Dataset
    from tastemaker.journal.append import Journal
    from tastemaker.schema.settings import to_table
    from tastemaker.training.fit import fit

    began = time.perf_counter()
    journal = Journal.open(workspace.journal)
    try:
        position, change = journal.position(), journal.change()
        data = Dataset.from_journal(journal, workspace.settings)
    finally:
        journal.close()
    if data.events.height == 0:
        raise InputError(
            f"The journal of {workspace.path} holds no event, so there is nothing to learn from. "
            f"Import some first: tastemaker import {workspace.path} --events FILE --items FILE"
        )
    run_dir = workspace.runs / time.strftime("%Y%m%d-%H%M%S")
    with progress_bars(show) as progress:
        brain = fit(data, workspace.settings, progress=progress, run_dir=run_dir, cache_dir=workspace.runs / "cache")
    version = write_bundle(
        workspace.bundles,
        brain.export,
        settings=to_table(workspace.settings),
        data=brain.fingerprint(position=position, change=change),
        metrics=brain.metrics,
    )
    stage = Registry(workspace.bundles).add(version)
    rows = keep_rows(brain.features, run_dir, workspace.reports) if brain.features is not None else {}
    return {
        "version": version,
        "stage": stage,
        "events": data.events.height,
        "users": data.events["user_id"].n_unique(),
        "items": data.items.height,
        "seconds": time.perf_counter() - began,
        "metrics": brain.metrics,
        "notes": brain.notes,
        **rows,
    }


def keep_rows(trained: TrainedFeatures, run_dir: Path, reports: Path) -> dict[str, Any]:
    """Writes the ranker's rows and the page about their columns; gives what was written."""
    from tastemaker.training.feature_page import write_feature_page

    run_dir.mkdir(parents=True, exist_ok=True)
    table, path = trained.table(), run_dir / "ranker_rows.parquet"
    table.write_parquet(path)
    page = write_feature_page(trained, reports)
    return {
        "ranker_rows": {"rows": table.height, "columns": len(trained.preparation.columns), "path": str(path), "report": str(page)}
    }
