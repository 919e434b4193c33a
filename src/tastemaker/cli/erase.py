"""`tastemaker erase`: a person is taken out of a workspace, and what still knows them is told."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    user: Annotated[str | None, typer.Argument(help="Whose data.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Tell which erasures are not complete, and why.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Erase a person: attributes, connections, events, and every log that names them. Exit code 1 if it has to be finished later."""
    from tastemaker.journal.append import Journal
    from tastemaker.journal.erase import erase, finish, holders
    from tastemaker.journal.erase import pending as pending_in

    if (user is None) != pending:
        raise InputError("Name a user to erase, or ask for --pending.")
    workspace = open_workspace(directory)
    journal = Journal.open(workspace.journal)
    try:
        if user is not None:
            found = erase(journal, user, workspace.reports, workspace.bundles)
            told = msgspec.to_builtins(found)
            words = f"Erased: {found.events:,} events, {found.lines:,} lines of logs. " + (
                f"Bundles that learned from them: {', '.join(found.bundles)}. Train and release, then remove these folders."
                if found.bundles
                else "No bundle knows them."
            )
            done = found.finished
        else:
            finish(journal, workspace.reports)
            waiting = [(one, holders(workspace.bundles, one.digest, one.time)) for one in pending_in(journal, workspace.bundles)]
            days = [(time.time() - one.time) / 86_400 for one, _ in waiting]
            told = {
                "pending": [
                    {"days": age, "unfinished": one.user_id is not None, "bundles": bundles}
                    for age, (one, bundles) in zip(days, waiting, strict=True)
                ]
            }
            done = all(one.user_id is None for one, _ in waiting)
            lines = [
                f"  since {age:.1f} days: {', '.join(bundles) or 'the journal'}"
                for age, (_, bundles) in zip(days, waiting, strict=True)
            ]
            words = "\n".join([f"{len(waiting)} pending", *lines])
    finally:
        journal.close()
    typer.echo(json_module.dumps(told) if json else words)
    raise typer.Exit(0 if done else 1)
