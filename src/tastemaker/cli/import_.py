"""`tastemaker import`: validate files, append them to the journal, say exactly what became of every row."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    dump: Annotated[list[Path] | None, typer.Option(help="A gorse dump or Metarank's events: all kinds in one file.")] = None,
    schema: Annotated[list[Path] | None, typer.Option(help="Schemas of Amazon Personalize for the CSV files.")] = None,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Take files whose columns are not those of earlier ones.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate files and append them to the journal."""
    keep_freed()
    from tastemaker.data.intake import as_json

    if not any((events, items, users, edges, dump)):
        raise InputError("Nothing to import: give at least one of --events, --items, --users, --edges, --dump.")
    workspace = open_workspace(directory, overrides or ())
    with rewritten(workspace, {"events": events, "items": items, "users": users}, dump or [], schema or []) as (files, told):
        reports, quarantine = take_in(
            workspace, files["events"], files["items"], files["users"], edges or [], show=not json, accept_drift=accept_drift
        )
    reports[0].guesses += told
    if json:
        typer.echo(as_json(reports).decode())
        return
    show(reports)
    if quarantine:
        typer.echo(f"Refused rows, each with its reason: {quarantine}")
    typer.echo(f"Report: {workspace.reports / 'import.html'}")


@contextmanager
def rewritten(
    workspace: Workspace, files: Mapping[str, list[str] | None], dumps: Sequence[Path], schemas: Sequence[Path]
) -> Iterator[tuple[dict[str, list[str]], list[str]]]:
    """The files to be imported, those of other systems rewritten for a while; and sentences about them.

    Raises:
        InputError: a dump or schema can't be read, or a schema has no file.
    """
    from tastemaker.data.avro_schema import read_schema, rewrite
    from tastemaker.data.dumps import split_dump
    from tastemaker.data.sources import expand

    found = {kind: list(patterns or []) for kind, patterns in files.items()}
    told: list[str] = []
    impressions = bool(workspace.settings.data.positive)
    workspace.runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.runs, prefix="import-") as folder:
        read = [read_schema(path) for path in schemas]
        for schema in read:
            if [other.kind for other in read].count(schema.kind) > 1:
                raise InputError(
                    f"Two schemas of {schema.kind} were given; give one, and import files of another one by themselves."
                )
            if not found[schema.kind]:
                raise InputError(f"A schema of {schema.kind} was given, but no file of them: give it with --{schema.kind}.")
            made = [rewrite(path, schema, Path(folder), impressions) for path in expand(found[schema.kind])]
            found[schema.kind] = [str(path) for path, _ in made]
            told += [sentence for _, sentences in made for sentence in sentences]
        for dump in dumps:
            split = split_dump(dump, Path(folder), impressions)
            told += [f"{dump.name} is of {split.system}: {', '.join(split.files)}", *split.told]
            for kind, path in split.files.items():
                found[kind].append(str(path))
        yield found, told


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
