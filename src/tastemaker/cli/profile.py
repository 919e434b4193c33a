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
    ray: Annotated[str | None, typer.Option("--ray", help="Work on a Ray cluster: its address, or `local`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Look at the journal: a page for people, figures for programs, the baseline for drift."""
    import msgspec

    from tastemaker.data.profile_findings import findings

    found, path = profile(open_workspace(directory, overrides or ()), show=not json, ray=ray)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    console = Console(highlight=False)
    console.print(f"{found.events:,} events of {found.users.n:,} users with {found.items.n:,} items")
    for sentence in findings(found):
        console.print(f"  {sentence}", markup=False)
    typer.echo(f"Report: {path}")


def profile(workspace: Workspace, show: bool = True, ray: str | None = None) -> tuple[Profile, Path]:
    """Profiles the journal and writes `reports/profile.html`, `profile.json` and `baseline.json`; gives the figures and the page's path.

    Args:
        show: progress bars. ray: address of a cluster, or `local`; None: this process.

    Raises:
        InputError: the journal holds no event.
    """
    from tastemaker.data.profile import Each, look
    from tastemaker.data.profile_page import write_profile
    from tastemaker.journal.append import Journal

    each: Each | None = None
    if ray is not None:
        from tastemaker.cli.stage import cluster

        each = cluster(ray)
    journal = Journal.open(workspace.journal)
    try:
        with progress_bars(show) as tell:
            found, baseline = look(journal, workspace.settings, tell, each)
    finally:
        journal.close()
    return found, write_profile(found, baseline, workspace.reports)
