"""`tastemaker release` and `rollback`: a gate, then live; and back."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError, TastemakerError

if TYPE_CHECKING:
    from tastemaker.schema.manifest import Manifest

METRIC = "validation_ndcg_fusion"
TOLERANCE = 0.05
"""A candidate whose validation NDCG@10 is lower than the live one's by more than this share is refused."""


def release(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    version: Annotated[str | None, typer.Argument(help="The bundle; default: the candidate.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release although the gate says no (its files must be whole all the same).")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Gate a bundle, then make it live."""
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.registry import Registry

    registry = Registry(open_workspace(directory).bundles)
    stages = registry.stages()
    version = version or stages.candidate
    if version is None:
        raise InputError("There is no candidate to release. Make one with `tastemaker train`, or name a bundle.")
    manifest = open_bundle(registry.folder(version)).manifest
    live = open_bundle(registry.folder(stages.live), check=False).manifest if stages.live and stages.live != version else None
    against = gate(manifest, live)
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


def gate(new: Manifest, live: Manifest | None) -> list[str]:
    """What speaks against a release, in plain words; nothing: it may go live."""
    # JSON has no NaN: a figure that was not finite comes back from the manifest as null
    against = [
        f"{name} is {value}, not a finite number"
        for name, value in new.metrics.items()
        if value is None or (isinstance(value, float) and not math.isfinite(value))
    ]
    if live is None:
        return against
    ours, theirs = new.metrics.get(METRIC), live.metrics.get(METRIC)
    if isinstance(ours, float) and isinstance(theirs, float) and ours < theirs * (1 - TOLERANCE):
        against.append(f"its validation NDCG@10 is {ours:.4f}, that of the live bundle {theirs:.4f}")
    if new.data.items < 0.5 * live.data.items:
        against.append(f"it knows {new.data.items:,} items, the live bundle {live.data.items:,}")
    return against
