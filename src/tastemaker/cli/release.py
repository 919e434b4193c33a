"""`tastemaker release` and `rollback`: gates, then live; and back."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.errors import InputError, TastemakerError

if TYPE_CHECKING:
    from tastemaker.bundle.registry import Registry
    from tastemaker.serving.exam import Finding

WHY = Annotated[str, typer.Option("--why", help="A reason, for the record of releases.")]
WHO = Annotated[str, typer.Option("--who", help="Whose name stands in the record; default: yours.")]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def release(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    version: Annotated[str | None, typer.Argument(help="The bundle; default: the candidate.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release although a gate says no (its files must be whole all the same).")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only tell what the gates say.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    why: WHY = "",
    who: WHO = "",
    json: JSON = False,
) -> None:
    """Gate a bundle, then make it live."""
    from tastemaker.bundle.gate import weigh
    from tastemaker.bundle.record import Release, note
    from tastemaker.bundle.registry import Registry

    workspace = open_workspace(directory, overrides or ())
    registry = Registry(workspace.bundles)
    live = registry.stages().live
    version = version or registry.stages().candidate
    if version is None:
        raise InputError("There is no candidate to release. Make one with `tastemaker train`, or name a bundle.")
    against = weigh(registry, version, figures=False)
    findings, unseen = examined(workspace, registry, version, live) if live and live != version else ([], False)
    if not unseen:
        against = weigh(registry, version)
    against += [finding.words for finding in findings if finding.against]
    words = [f"{finding.gate}: {finding.words}" for finding in findings]
    if not json:
        for finding in findings:
            typer.echo(f"{'NO' if finding.against else 'ok':>4}  {finding.gate:<16}{finding.words}")
    refused = bool(against) and not force
    action = "refused" if refused else "release"
    told = Release(action=action, version=version, before=live, who=who, why=why, against=against, findings=words)
    if refused:
        if not check:
            note(workspace.bundles, told)
        raise TastemakerError(f"Bundle {version} was not released: {'; '.join(against)}. --force releases it all the same.")
    if not check:
        registry.release(version)
        note(workspace.bundles, told)
    if json:
        typer.echo(
            json_module.dumps(
                {"live": registry.stages().live, "previous": registry.stages().previous, "warnings": against, "findings": words}
            )
        )
    elif not check:
        typer.echo(f"Live: {version}. Back with: tastemaker rollback {directory}")


def rollback(
    directory: Annotated[Path, typer.Argument(help="The workspace.")], why: WHY = "", who: WHO = "", json: JSON = False
) -> None:
    """Go back to the previous live bundle."""
    from tastemaker.bundle.record import Release, note
    from tastemaker.bundle.registry import Registry

    bundles = open_workspace(directory).bundles
    before = Registry(bundles).stages().live
    version = Registry(bundles).rollback()
    note(bundles, Release(action="rollback", version=version, before=before, who=who, why=why))
    typer.echo(json_module.dumps({"live": version}) if json else f"Live again: {version}")


def examined(workspace: Workspace, registry: Registry, version: str, live: str) -> tuple[list[Finding], bool]:
    """What the gates say of a bundle beside the live one, and whether by events that neither has learned from.

    A bundle that can't be opened or asked is told as a finding.
    """
    from tastemaker.bundle.read import open_bundle
    from tastemaker.journal.append import Journal
    from tastemaker.serving.exam import Finding, examine, later_questions, remembered_questions, sit
    from tastemaker.serving.wire import Live

    limits = workspace.settings.release
    manifests = [open_bundle(registry.folder(name), check=False).manifest for name in (version, live)]
    journal = Journal.open(workspace.journal)
    try:
        asked = later_questions(journal, max(one.data.position for one in manifests), workspace.settings, limits.questions)
    finally:
        journal.close()
    unseen = len(asked) >= limits.least
    if not unseen:
        asked = remembered_questions(Live(registry.folder(live), service=workspace.settings), limits.questions)
    if not asked:
        return [], False
    try:
        new, old = sit([registry.folder(version), registry.folder(live)], asked, workspace.settings)
    except Exception as error:
        return [Finding("answers", f"it can't be asked: {type(error).__name__}: {error}", True)], unseen
    sizes = [sum(entry.bytes for entry in one.files.values()) for one in manifests]
    return examine(new, old, [question.user_id for question in asked], unseen, (sizes[0], sizes[1]), limits), unseen
