"""`tastemaker stage`: histories, a split and the declared features of every event, as files, from a journal that no memory holds."""

from __future__ import annotations

import json as json_module
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.data.allocators import keep_freed
from tastemaker.schema.cluster import prepare

if TYPE_CHECKING:
    from tastemaker.data.stage import Each


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    ray: Annotated[str | None, typer.Option("--ray", help="Work on a Ray cluster: its address, or `local`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write histories, split and features of all events to `stage/`, in bounded memory."""
    keep_freed()
    found = stage(open_workspace(directory, overrides or ()), ray)
    if json:
        typer.echo(json_module.dumps(found))
        return
    typer.echo(
        f"{found['events']:,} events of {found['users']:,} users with {found['items']:,} items in {found['seconds']:.0f} s; "
        f"{found['targets']:,} are held back by {found['split']}; {len(found['features'])} columns of features."
    )
    typer.echo(f"Files: {found['path']}")


def stage(workspace: Workspace, ray: str | None = None) -> dict[str, Any]:
    """Stages the journal into the workspace's `stage/`; gives counts, the names of the columns and the path.

    Args:
        workspace: its settings `data.split`, `data.test_share` and `features.use` are read. Features of texts find no vectors here and are 0.
        ray: address of a cluster, or `local`; None: this machine's threads.

    Raises:
        InputError: the journal holds no event. SettingsError: a split that the stage does not know.
    """
    import polars as pl

    from tastemaker.data.stage import TARGET, feature_table, histories
    from tastemaker.data.stage import stage as run_stage
    from tastemaker.features.feature_set import FeatureSet
    from tastemaker.journal.append import Journal

    began, settings, folder = time.perf_counter(), workspace.settings, workspace.path / "stage"
    each = None if ray is None else cluster(ray)
    journal = Journal.open(workspace.journal)
    try:
        features = FeatureSet.declared(settings.features.use, journal.items())
        with tempfile.TemporaryDirectory(dir=workspace.path, prefix="live-") as live:
            segments = journal.sealed(Path(live))
            made = run_stage(segments, folder, settings.data.split, settings.data.test_share, each=each, features=features)
    finally:
        journal.close()
    packed = histories(folder)
    targets = feature_table(folder).filter(pl.col("part") == TARGET).select(pl.len()).collect(engine="streaming").item()
    return {
        "events": made.rows,
        "users": packed.n_users,
        "items": packed.n_items,
        "targets": int(targets),
        "split": made.split,
        "features": made.features,
        "seconds": time.perf_counter() - began,
        "path": str(folder),
    }


def cluster(ray: str) -> Each:
    """Runs a step on every task by the workers of a cluster.

    Raises:
        InputError: no cluster answers at the address.
    """
    prepare(ray)
    from tastemaker.data._ray import connect, each

    connect(ray)
    return each
