"""`tastemaker profile`: what the data looks like, as a page, and the baseline that later data is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from tastemaker.data.profile import Profile


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Look at the journal: a page for people, figures for programs, the baseline for drift."""
    import msgspec

    from tastemaker.data.profile_findings import findings

    profile, path = look(open_workspace(directory, overrides or ()), show=not json)
    if json:
        typer.echo(msgspec.json.encode(profile).decode())
        return
    console = Console(highlight=False)
    console.print(f"{profile.events:,} events of {profile.users.n:,} users with {profile.items.n:,} items")
    for sentence in findings(profile):
        console.print(f"  {sentence}", markup=False)
    typer.echo(f"Report: {path}")


def look(workspace: Workspace, show: bool = True) -> tuple[Profile, Path]:
    """Profiles the journal and writes `reports/profile.html`, `profile.json` and `baseline.json`; gives the figures and the page's path.

    Raises:
        InputError: the journal holds no event.
    """
    from tastemaker.data.profile import baseline_of_journal, profile_of
    from tastemaker.data.profile_page import write_profile
    from tastemaker.journal.append import Journal

    journal = Journal.open(workspace.journal)
    try:
        with progress_bars(show) as tell:
            profile = profile_of(journal, workspace.settings, tell)
            baseline = baseline_of_journal(journal, workspace.settings)
    finally:
        journal.close()
    return profile, write_profile(profile, baseline, workspace.reports)
