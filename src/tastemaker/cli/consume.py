"""`tastemaker consume`: events of a log, into the journal."""

from __future__ import annotations

import json as json_module
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.workspace import open_workspace

if TYPE_CHECKING:
    from tastemaker.streaming.intake import Taken

EVERY = 2.0
"""Seconds between two lines."""


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    source: Annotated[
        str | None, typer.Option("--from", help="redis://HOST:PORT/0?stream=NAME, kafka://HOST:PORT/TOPIC or journal:FOLDER.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Consumers of a group share the log; default from the settings.")] = None,
    rewind: Annotated[
        list[str] | None, typer.Option(help="`all`, or PARTITION:PLACE as often as needed: read again what comes after.")
    ] = None,
    once: Annotated[bool, typer.Option(help="End when nothing is left.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Read a log of events into the journal, each event once; beside a service, or instead of one on machines that only learn."""
    from tastemaker.journal.append import Journal
    from tastemaker.schema.errors import InputError
    from tastemaker.streaming.intake import Intake, Taken
    from tastemaker.streaming.log import open_log

    workspace = open_workspace(directory)
    settings = workspace.settings.serving
    address, team = source or settings.events_from, group or settings.events_group
    if not address:
        raise InputError("No log of events is named. Say --from kafka://HOST:PORT/TOPIC, or set serving.events_from.")
    log = open_log(address)
    if rewind:
        log.rewind(team, _places(rewind))
    total, began, last = [Taken()], time.monotonic(), [0.0]

    def count(taken: Taken) -> None:
        total[0] += taken
        if not json and time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            typer.echo(_words(total[0]) if not taken.error else f"The log can't be read, or the journal not written: {taken.error}")

    intake = Intake(Journal.open(workspace.journal), log, team, settings.events_session, count)
    signal.signal(signal.SIGTERM, lambda *_: intake.stop())
    try:
        intake.run(once)
    except KeyboardInterrupt:
        intake.leave()
    found = total[0]
    told = {
        "accepted": found.accepted,
        "duplicates": found.duplicates,
        "rejected": found.rejected,
        "lag": found.lag,
        "why": found.why,
    }
    typer.echo(json_module.dumps({**told, "seconds": round(time.monotonic() - began, 2)}) if json else _words(found))


def _places(words: list[str]) -> dict[int, str] | None:
    """What `--rewind` says; None: everything.

    Raises:
        InputError: it can't be read.
    """
    from tastemaker.schema.errors import InputError

    if words == ["all"]:
        return None
    found = {}
    for word in words:
        part, _, place = word.partition(":")
        if not part.isdigit() or not place:
            raise InputError(f"--rewind {word!r} can't be read. Expected `all`, or PARTITION:PLACE such as 0:1500.")
        found[int(part)] = place
    return found


def _words(taken: Taken) -> str:
    lines = [f"{taken.accepted:,} events stored, {taken.duplicates:,} were there, {taken.rejected:,} messages are no events"]
    if taken.lag is not None:
        lines.append(f"{taken.lag:,} to come")
    return ", ".join(lines) + "".join(f"\n  {why}" for why in taken.why)
