"""`tastemaker import`: validate files, append them to the journal, say exactly what became of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.data.allocators import keep_freed
from tastemaker.schema.errors import InputError
from tastemaker.schema.reports import ImportReport


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    events: Annotated[list[str] | None, typer.Option(help="Event files or globs.")] = None,
    items: Annotated[list[str] | None, typer.Option(help="Item files or globs.")] = None,
    users: Annotated[list[str] | None, typer.Option(help="User files or globs.")] = None,
    edges: Annotated[list[str] | None, typer.Option(help="Edge files or globs.")] = None,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Take files whose columns are not those of earlier ones.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate files and append them to the journal."""
    keep_freed()
    from tastemaker.data.intake import as_json

    if not any((events, items, users, edges)):
        raise InputError("Nothing to import: give at least one of --events, --items, --users, --edges.")
    workspace = open_workspace(directory, overrides or ())
    reports, quarantine = take_in(
        workspace, events or [], items or [], users or [], edges or [], show=not json, accept_drift=accept_drift
    )
    if json:
        typer.echo(as_json(reports).decode())
        return
    show(reports)
    if quarantine:
        typer.echo(f"Refused rows, each with its reason: {quarantine}")
    typer.echo(f"Report: {workspace.reports / 'import.html'}")


def take_in(
    workspace: Workspace,
    events: list[str],
    items: list[str],
    users: list[str],
    edges: list[str],
    show: bool = True,
    accept_drift: bool = False,
) -> tuple[list[ImportReport], Path | None]:
    """Imports and writes `reports/import.html`; gives a report for each kind of file and the quarantine file, if any."""
    from tastemaker.data.import_page import write_import_page
    from tastemaker.data.intake import Intake, warn_about_links
    from tastemaker.data.quarantine import Quarantine
    from tastemaker.journal.append import Journal

    journal = Journal.open(workspace.journal)
    quarantine = Quarantine(workspace.reports)
    reports = []
    try:
        with progress_bars(show) as tell:
            intake = Intake(journal, workspace.settings.data, quarantine, tell, accept_drift)
            for patterns, take in ((items, intake.items), (users, intake.users), (edges, intake.edges), (events, intake.events)):
                if patterns:
                    reports.append(take(patterns))
        warn_about_links(journal, reports[-1])
        write_import_page(journal, reports, workspace.reports)
    finally:
        quarantine.close()
        journal.close()
    return reports, quarantine.path


def show(reports: list[ImportReport]) -> None:
    """The reports as a table, with the guesses below."""
    table = Table(title="Import", title_justify="left")
    for name in ("", "read", "accepted", "duplicates", "refused", "seconds"):
        table.add_column(name, justify="left" if not name else "right")
    for report in reports:
        counts = (report.read, report.accepted, report.duplicates, sum(report.quarantined.values()))
        table.add_row(report.kind, *(f"{count:,}" for count in counts), f"{report.seconds:.1f}")
    console = Console(highlight=False)
    console.print(table)
    for report in reports:
        for guess in report.guesses:
            console.print(f"  understood: {guess}", markup=False)
        for reason, count in report.quarantined.items():
            console.print(f"  refused: {count:,} {report.kind}: {reason}", markup=False)
        for reason, count in report.warnings.items():
            console.print(f"  odd but kept: {count:,} {reason}", markup=False)
