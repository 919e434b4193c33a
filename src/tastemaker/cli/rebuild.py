"""`tastemaker rebuild`: what answers know, made anew from the journal alone."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.workspace import open_workspace

if TYPE_CHECKING:
    from tastemaker.journal.append import Journal
    from tastemaker.serving.wire import Live

ASKED_USERS, ASKED_ITEMS = 200, 200


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    bundle: Annotated[str | None, typer.Option(help="A bundle other than the live one.")] = None,
    state: Annotated[
        str | None, typer.Option(help="redis://HOST:PORT/0 or kafka://HOST:PORT/TOPIC to fill from this journal.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check the journal, rebuild the state from it, and compare: exit code 1 where they differ.

    What a running service knows is its bundle with every later event folded in. The same is made twice here: by folding events one by one, as the
    service does, and by counting the whole journal at once, as training does.
    """
    from tastemaker.journal.append import Journal
    from tastemaker.journal.health import faults
    from tastemaker.serving.wire import open_live

    workspace = open_workspace(directory)
    journal = Journal.open(workspace.journal)
    try:
        found: dict[str, Any] = {"events": journal.position(), "faults": faults(journal)}
        if not found["faults"]:
            began = time.perf_counter()
            live = open_live(workspace.bundles, journal, bundle, service=workspace.settings)
            found |= {"bundle": live.version, "folded_seconds": round(time.perf_counter() - began, 3)}
            found |= compared(live, journal)
        address = workspace.settings.serving.state if state is None else state
        if address and not found["faults"]:
            found["sent"] = filled(address, workspace.journal)
    finally:
        journal.close()
    typer.echo(json_module.dumps(found) if json else _words(found))
    if found["faults"] or found.get("differing"):
        raise typer.Exit(1)


def compared(live: Live, journal: Journal) -> dict[str, Any]:
    """Which features differ between the folded state and one that is counted anew from the whole journal.

    Columns by category and brand are left out where items have changed since the bundle: an event stays filed where it was when it came.
    """
    features = live.state.features
    if features is None:
        return {"features": 0, "differing": []}
    began = time.perf_counter()
    again = features.rebuilt(journal.read())
    seconds = time.perf_counter() - began
    users = [*live.state.latest_users(ASKED_USERS), *list(live.brain.users)[:ASKED_USERS]]
    step = max(len(live.state.rows) // ASKED_ITEMS, 1)
    asked = [str(row["item_id"]) for row in live.state.rows[::step]]
    moment = live.state.features.moment(time.time()) if live.state.features else time.time()
    differing = features.differing(again, users, asked, moment)
    names, left_out = features.features.names, list[str]()
    if journal.change() > live.bundle.manifest.data.change:
        left_out = [name for name, of_group in zip(names, features.features.grouped, strict=True) if of_group]
    return {
        "features": len(names),
        "counted_seconds": round(seconds, 3),
        "differing": [name for name in differing if name not in left_out],
        "not_compared": left_out,
    }


def filled(address: str, folder: Path) -> int:
    """Sends what other machines may lack; gives the number of events and items that were sent.

    Raises:
        JournalError: the link does not work.
    """
    from tastemaker.schema.errors import JournalError
    from tastemaker.streaming.link import Pulse, Unreachable
    from tastemaker.streaming.relay import relay_of

    sent: list[int] = []
    relay = relay_of(address, folder, Pulse(folder / "relay.pulse"), lambda out, back: sent.append(out))
    try:
        relay.turn()
    except Unreachable as error:
        raise JournalError(f"The journal is whole, but nothing could be sent to {address.rpartition('@')[2]} ({error}).") from None
    finally:
        relay.close()
    return sum(sent)


def _words(found: dict[str, Any]) -> str:
    if found["faults"]:
        return "\n".join(["The journal is not whole:", *found["faults"]])
    lines = [f"{found['events']:,} events in a whole journal; state of {found['bundle']} rebuilt in {found['folded_seconds']} s"]
    if found["differing"]:
        lines.append(
            f"The folded state tells other numbers than the journal: {', '.join(found['differing'])}. Train again, and report this."
        )
    else:
        lines.append(
            f"{found['features'] - len(found.get('not_compared', []))} columns of features are the same, folded and counted anew"
        )
    if found.get("not_compared"):
        lines.append(f"not compared, as items have changed since the bundle: {', '.join(found['not_compared'])}")
    if "sent" in found:
        lines.append(f"{found['sent']:,} events, items, users and edges sent to other machines")
    return "\n".join(lines)
