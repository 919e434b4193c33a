"""`tastemaker health`: are live features those of the journal; and the alert rules of a workspace for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tastemaker.cli.workspace import open_workspace

SCORED = 2_000
"""Of so many lists, the latest, scores are made once more."""


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    rules: Annotated[
        Path | None, typer.Option(help="Write Prometheus' alert rules with the thresholds of [alerts] to this file.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Replay sampled live lists from the journal; exit code 1 if fewer features are equal than `alerts.equal_share`, or scores differ by more than
    `alerts.score_difference`."""
    workspace = open_workspace(directory, overrides or ())
    from tastemaker.journal.append import Journal
    from tastemaker.journal.lines import LineReader
    from tastemaker.journal.sampled import Sampled
    from tastemaker.monitoring.rules import prometheus
    from tastemaker.serving.replaying import replay, replay_scores
    from tastemaker.serving.watching import EQUAL_FILE

    if rules is not None:
        rules.write_text(prometheus(workspace.settings.alerts))
    journal = Journal.open(workspace.journal)
    samples = LineReader(workspace.journal / "sampled", Sampled).new()
    found = replay(workspace.bundles, journal, samples)
    journal.close()
    scores, difference = replay_scores(workspace.bundles, workspace.journal, samples[-SCORED:], workspace.settings)
    found = msgspec.structs.replace(found, scores=scores, score_difference=difference)
    workspace.reports.mkdir(exist_ok=True)
    text = msgspec.json.encode(found)
    (workspace.reports / EQUAL_FILE).write_bytes(text)
    if json:
        typer.echo(text.decode())
    elif found.equal is None:
        typer.echo("No list was sampled, so nothing could be replayed. Serve with alerts.sample above 0 first.")
    else:
        typer.echo(
            f"{found.equal:.4%} of {found.numbers:,} live features of {found.lists:,} lists came out again from the journal."
        )
        if found.score_difference is not None:
            typer.echo(f"{found.scores:,} live scores differ by {found.score_difference:.4%} on average from those made once more.")
        for name, count in sorted(found.differing.items(), key=lambda one: -one[1]):
            typer.echo(f"  {name}: {count:,} differ")
    limits = workspace.settings.alerts
    unequal = found.equal is not None and found.equal < limits.equal_share
    raise typer.Exit(1 if unequal or (found.score_difference or 0.0) > limits.score_difference else 0)
