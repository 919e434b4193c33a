"""`tastemaker keys`: who may ask a service."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tastemaker.cli.workspace import open_workspace
from tastemaker.serving.auth import KEYS_FILE, SCOPES, Key, KeyFile

verbs = typer.Typer(help="API keys: add, list, revoke. Each prints JSON with --json.", no_args_is_help=True)
Workspace = Annotated[Path, typer.Argument(help="The workspace.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@verbs.command()
def add(
    directory: Workspace,
    scopes: Annotated[list[str] | None, typer.Option("--scope", help=f"{', '.join(SCOPES)}; as often as needed.")] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    rate: Annotated[float | None, typer.Option(help="Requests per second that it may make; default from the settings.")] = None,
    json: AsJson = False,
) -> None:
    """Make a key and show it, once. A running service takes it within a second."""
    key, text = _file(directory).add(name, scopes or ["read"], rate)  # type: ignore[arg-type]  # checked by add
    if json:
        typer.echo(json_module.dumps({**_shown(key), "key": text}))
        return
    typer.echo(text)
    typer.echo(f"It may: {', '.join(key.scopes)}. It is shown this once: only its hash is kept. Send it as X-API-Key.", err=True)


@verbs.command("list")
def list_(directory: Workspace, json: AsJson = False) -> None:
    """Show the keys' ids, names and scopes."""
    keys = _file(directory).read()
    if json:
        typer.echo(json_module.dumps([_shown(key) for key in keys]))
        return
    if not keys:
        typer.echo(f"No key yet. Make one: tastemaker keys add {directory} --scope read")
        return
    table = Table("id", "name", "scopes", "made", "requests/s", box=None)
    for key in keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created))
        table.add_row(key.key_id, key.name, ", ".join(key.scopes), made, "" if key.rate is None else f"{key.rate:g}")
    Console(highlight=False).print(table)


@verbs.command()
def revoke(
    directory: Workspace,
    key_id: Annotated[str, typer.Argument(help="The id, as `tastemaker keys list` shows it.")],
    json: AsJson = False,
) -> None:
    """Take a key out. A running service refuses it within a second."""
    key = _file(directory).revoke(key_id)
    typer.echo(json_module.dumps(_shown(key)) if json else f"Revoked: {key.key_id} {key.name}".rstrip())


def _file(directory: Path) -> KeyFile:
    return KeyFile(open_workspace(directory).path / KEYS_FILE)


def _shown(key: Key) -> dict[str, Any]:
    return {"id": key.key_id, "name": key.name, "scopes": list(key.scopes), "created": key.created, "rate": key.rate}
