"""`tastemaker train`: journal to candidate bundle; the first bundle of a workspace becomes live at once."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.cluster import prepare
from tastemaker.schema.errors import InputError

if TYPE_CHECKING:
    from tastemaker.data.dataset import Dataset
    from tastemaker.schema.manifest import DataFingerprint
    from tastemaker.schema.settings import Settings
    from tastemaker.training.encoder import Spread
    from tastemaker.training.features import TrainedFeatures
    from tastemaker.training.runs import RunRecord
    from tastemaker.training.together import Launch


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the latest run that was cut short.")] = False,
    hold: Annotated[
        int, typer.Option("--hold", min=0, help="Leave the last so many events out, to ask for them at the release.")
    ] = 0,
    ray: Annotated[str | None, typer.Option("--ray", help="Train on a Ray cluster: its address, or `local`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate on held-back events, refit on all of them, write a candidate bundle."""
    workspace = open_workspace(directory, overrides or ())  # what is wrong with it is told before torch is loaded
    from tastemaker.training.group import rank
    from tastemaker.training.together import dismiss, follow, join

    if not join():
        _show(directory, train(workspace, not json, resume, ray, hold), json)
        return
    try:
        if rank() > 0:
            follow()
        else:
            _show(directory, train(workspace, not json, resume, hold=hold), json)
    finally:
        dismiss()


def _show(directory: Path, result: dict[str, Any], json: bool) -> None:
    if json:
        typer.echo(json_module.dumps(result))
        return
    typer.echo(
        f"Bundle {result['version']} ({result['stage']}) learned from {result['events']:,} events of "
        f"{result['users']:,} users with {result['items']:,} items in {result['seconds']:.0f} s."
    )
    typer.echo(
        f"Run {result['run']}; hash over the bundle's files {result['content'][:16]}: equal for the same data, settings and kind of machine."
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


def train(workspace: Workspace, show: bool = True, resume: bool = False, ray: str | None = None, hold: int = 0) -> dict[str, Any]:
    """Trains on the whole journal and writes a bundle; gives its version, stage, counts, metrics and seconds.

    Args:
        workspace: where the journal is and the bundle goes.
        show: progress bars.
        resume: go on with the latest run that was cut short, on the events that the journal held when it began.
        ray: address of a cluster, or `local`; None: this machine.
        hold: so many of the journal's last events are left out. Serving folds them in, and `release` can ask for what no bundle has learned.

    Raises:
        InputError: the journal holds no event; or there is no run to go on with, or it had other data or settings.
    """
    from tastemaker.training.runs import end_run, unfinished

    began = time.perf_counter()
    earlier = unfinished(workspace.runs) if resume else None
    data, fingerprint, later = _read(workspace, earlier, hold)
    folder, record = _run(workspace, fingerprint, earlier)
    try:
        result = _train(workspace, data, fingerprint, folder, record, show, ray)
    except KeyboardInterrupt:
        end_run(folder, record, "stopped", "Stopped by a key.")
        raise
    except Exception as error:
        end_run(folder, record, "failed", f"{type(error).__name__}: {error}")
        raise
    end_run(folder, record, "done")
    if later > hold:
        result["notes"] = [*result["notes"], _later_words(workspace, later)]
    return {
        **result,
        "later_events": later,
        "run": record.id,
        "content": record.content,
        "seconds": time.perf_counter() - began,
        "metrics": record.metrics,
    }


def _later_words(workspace: Workspace, later: int) -> str:
    return (
        f"The journal has grown by {later:,} events since this run began. It learned from those of its beginning, as the bundle says; "
        f"serving folds the later ones in. To learn from them: tastemaker train {workspace.path}"
    )


def _read(workspace: Workspace, earlier: RunRecord | None, hold: int) -> tuple[Dataset, DataFingerprint, int]:
    """The journal's events, those of its beginning for an earlier run, which they are, and how many came later."""
    from tastemaker.data.dataset import Dataset
    from tastemaker.journal.append import Journal
    from tastemaker.schema.manifest import DataFingerprint

    journal = Journal.open(workspace.journal)
    try:
        marks = journal.marks()
        position, change = max(marks[0] - hold, 0), marks[1]
        if earlier is not None and earlier.data.position:
            position, change = earlier.data.position, earlier.data.change
        data, clock = Dataset.from_journal(journal, workspace.settings, (position, change)), journal.clock(position)
    finally:
        journal.close()
    if data.events.height == 0:
        raise InputError(
            f"The journal of {workspace.path} holds no event, so there is nothing to learn from. "
            f"Import some first: tastemaker import {workspace.path} --events FILE --items FILE"
        )
    users, items = data.events["user_id"].n_unique(), data.items.height
    sha256 = data.fingerprint()
    counts = {"events": data.events.height, "users": users, "items": items}
    found = DataFingerprint(**counts, position=position, change=change, sha256=sha256, clock=clock or msgspec.UNSET)
    return data, found, marks[0] - position


def _run(workspace: Workspace, fingerprint: DataFingerprint, record: RunRecord | None) -> tuple[Path, RunRecord]:
    """The folder and the record of a new run, or of the one to go on with."""
    from tastemaker.schema.settings_file import to_table
    from tastemaker.training.runs import RunRecord, begin_run, differences, go_on

    settings, seed = to_table(workspace.settings), workspace.settings.train.seed
    if record is None:
        return begin_run(workspace.runs, settings, fingerprint, seed)
    other = differences(record, RunRecord(id="", settings=settings, data=fingerprint))
    if other:
        name, (then, now) = next(iter(other.items()))
        raise InputError(
            f"Run {record.id} began with {name} = {then!r}, and now it is {now!r}. "
            "Go on with the same data and settings, or begin a new run without --resume."
        )
    if record.data.items != fingerprint.items:
        gone = record.data.items - fingerprint.items
        raise InputError(
            f"Run {record.id} began with {record.data.items:,} items, and {gone:,} of them were changed or deleted since: what they were is gone. "
            "Begin a new run without --resume."
        )
    go_on(workspace.runs / record.id, record)
    return workspace.runs / record.id, record


def _train(
    workspace: Workspace,
    data: Dataset,
    fingerprint: DataFingerprint,
    folder: Path,
    record: RunRecord,
    show: bool,
    ray: str | None,
) -> dict[str, Any]:
    """Learns, writes the bundle and the ranker's rows; fills the record."""
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.write import write_bundle
    from tastemaker.training.fit import fit

    launch, spread = _cluster(ray, workspace.settings, folder)
    with progress_bars(show) as progress:
        brain = fit(data, workspace.settings, progress, folder, workspace.runs / "cache", launch=launch, spread=spread)
    record.metrics = dict(brain.metrics)
    version = write_bundle(
        workspace.bundles,
        brain.export,
        settings=record.settings,
        data=msgspec.structs.replace(brain.fingerprint(fingerprint.position, fingerprint.change), clock=fingerprint.clock),
        metrics=brain.metrics,
    )
    record.bundle = version
    record.content = open_bundle(workspace.bundles / version, check=False).manifest.content()
    stage = Registry(workspace.bundles).add(version)
    rows = keep_rows(brain.features, folder, workspace.reports) if brain.features is not None else {}
    counts = {"events": fingerprint.events, "users": fingerprint.users, "items": fingerprint.items}
    return {"version": version, "stage": stage, **counts, "notes": brain.notes, **rows}


def _cluster(ray: str | None, settings: Settings, folder: Path) -> tuple[Launch | None, Spread | None]:
    """What has models trained and texts read on a cluster; None: this machine does."""
    if ray is None:
        return None, None
    prepare(ray)
    from tastemaker.training._ray import launch_on, reader_on

    return launch_on(ray), reader_on(ray, settings, folder)


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
