"""`tastemaker release` and `rollback`: a gate, then live; and back."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError, TastemakerError


def release(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    version: Annotated[str | None, typer.Argument(help="The bundle; default: the candidate.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release although the gate says no (its files must be whole all the same).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Gate a bundle, then make it live."""
    from tastemaker.bundle.gate import weigh
    from tastemaker.bundle.registry import Registry

    registry = Registry(open_workspace(directory).bundles)
    version = version or registry.stages().candidate
    if version is None:
        raise InputError("There is no candidate to release. Make one with `tastemaker train`, or name a bundle.")
    against = weigh(registry, version)
    if against and not force:
        raise TastemakerError(f"Bundle {version} was not released: {'; '.join(against)}. --force releases it all the same.")
    registry.release(version)
    if json:
        typer.echo(json_module.dumps({"live": version, "previous": registry.stages().previous, "warnings": against}))
        return
    typer.echo(f"Live: {version}. Back with: tastemaker rollback {directory}")


def rollback(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Go back to the previous live bundle."""
    from tastemaker.bundle.registry import Registry

    version = Registry(open_workspace(directory).bundles).rollback()
    typer.echo(json_module.dumps({"live": version}) if json else f"Live again: {version}")
