"""`tastemaker release` and `rollback`: gates, then live, at once or in stages; and back."""

from __future__ import annotations

import itertools
import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.errors import InputError, TastemakerError

if TYPE_CHECKING:
    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.rollout import Rollout
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
    shadow: Annotated[int | None, typer.Option(min=0, help="Lists that it makes beside the live one first; 0: none.")] = None,
    canary: Annotated[
        str | None, typer.Option(help="Shares of the users who get it first, as in 1%,5%,25%; none: no canary.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, as often as needed.")] = None,
    why: WHY = "",
    who: WHO = "",
    json: JSON = False,
) -> None:
    """Gate a bundle, then make it live: at once, or through a shadow and a canary while it is served."""
    from tastemaker.bundle.gate import weigh
    from tastemaker.bundle.record import Release, note
    from tastemaker.bundle.registry import Registry

    workspace = open_workspace(directory, overrides or ())
    registry = Registry(workspace.bundles)
    live = registry.stages().live
    version = version or registry.stages().candidate
    if version is None:
        raise InputError("There is no candidate to release. Make one with `tastemaker train`, or name a bundle.")
    stages = planned(workspace, version, shadow, canary, live)
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
    action = "refused" if refused else "release" if stages is None else stages.stage
    told = Release(action=action, version=version, before=live, who=who, why=why, against=against, findings=words)
    if refused:
        if not check:
            note(workspace.bundles, told)
        raise TastemakerError(f"Bundle {version} was not released: {'; '.join(against)}. --force releases it all the same.")
    if not check:
        if stages is None:
            registry.release(version)
        else:
            registry.begin(msgspec.structs.replace(stages, who=who, why=why))
        note(workspace.bundles, msgspec.structs.replace(told, share=0.0 if stages is None else stages.share))
    if json:
        typer.echo(json_module.dumps({**_standing(registry), "warnings": against, "findings": words}))
    elif not check:
        typer.echo(_sentence(directory, version, stages))


def _standing(registry: Registry) -> dict[str, object]:
    """What is live, what was before, and what is on trial."""
    now = registry.stages()
    one = now.rollout
    trial = None if one is None else {"version": one.version, "stage": one.stage, "share": one.share}
    return {"live": now.live, "previous": now.previous, "trial": trial}


def _sentence(directory: Path, version: str, stages: Rollout | None) -> str:
    """What has begun, and how it is ended."""
    if stages is None:
        return f"Live: {version}. Back with: tastemaker rollback {directory}"
    shadow = [f"a shadow of {stages.shadow:,} lists"] if stages.shadow else []
    steps = ", ".join([*shadow, *(f"{share:g} of the users" for share in stages.shares)])
    return f"On trial: {version}, while the workspace is served: {steps}, then live. End it with: tastemaker rollback {directory}"


def rollback(
    directory: Annotated[Path, typer.Argument(help="The workspace.")], why: WHY = "", who: WHO = "", json: JSON = False
) -> None:
    """End the trial of a bundle, if one is on trial; else go back to the previous live bundle."""
    from tastemaker.bundle.record import Release, note
    from tastemaker.bundle.registry import Registry

    bundles = open_workspace(directory).bundles
    stages = Registry(bundles).stages()
    before = stages.live if stages.rollout is None else stages.rollout.version
    version = Registry(bundles).rollback()
    note(bundles, Release(action="rollback", version=version, before=before, who=who, why=why))
    typer.echo(json_module.dumps({"live": version}) if json else f"Live again: {version}")


def planned(workspace: Workspace, version: str, shadow: int | None, canary: str | None, live: str | None) -> Rollout | None:
    """The stages of a release by the command line and the settings, at the first of them; None: live at once.

    Raises:
        InputError: shares that are none, or that do not grow; another bundle is on trial.
    """
    import secrets

    from tastemaker.bundle.registry import Registry
    from tastemaker.bundle.rollout import Rollout
    from tastemaker.journal.append import Journal

    limits = workspace.settings.release
    shares = limits.canary if canary is None else shares_of(canary)
    if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
        raise InputError(
            f"The shares of the canary are {', '.join(f'{share:g}' for share in shares)}; each is to be larger than the one before."
        )
    limits = msgspec.structs.replace(limits, shadow=limits.shadow if shadow is None else shadow, canary=shares)
    found = Rollout(version=version, experiment=f"{version}-{secrets.token_hex(4)}", limits=limits)
    if live in (None, version) or not (found.shadow or found.shares):
        return None
    under_way = Registry(workspace.bundles).stages().rollout
    if under_way is not None:
        raise InputError(f"Bundle {under_way.version} is on trial. End it with `tastemaker rollback`, or wait until it is live.")
    journal = Journal.open(workspace.journal)
    try:
        return found.started(time.time(), journal.position())
    finally:
        journal.close()


def shares_of(text: str) -> tuple[float, ...]:
    """Shares of the users by words such as `1%,5%,0.25`; `none`: no share.

    Raises:
        InputError: something else.
    """
    if text.strip().lower() in ("", "none"):
        return ()
    try:
        shares = tuple(
            float(part.strip().removesuffix("%")) / (100 if part.strip().endswith("%") else 1) for part in text.split(",")
        )
    except ValueError:
        shares = (0.0,)
    if not all(0 < share < 1 for share in shares):
        raise InputError(f"--canary is {text!r}; expected shares of the users above 0 and below 100 %, such as 1%,5%,25%.")
    return shares


def examined(workspace: Workspace, registry: Registry, version: str, live: str) -> tuple[list[Finding], bool]:
    """What the gates say of a bundle beside the live one, and whether by events that neither has learned from.

    A bundle that can't be opened or asked is told as a finding.
    """
    from tastemaker.bundle.read import open_bundle
    from tastemaker.journal.append import Journal
    from tastemaker.serving.exam import Finding, examine, later_questions, remembered_questions, sit, weighed
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
    found = examine(new, old, [question.user_id for question in asked], unseen, (sizes[0], sizes[1]), limits)
    if not any(finding.against for finding in found):  # the last gate, as it loads both once more
        found.append(weighed([registry.folder(version), registry.folder(live)], limits))
    return found, unseen
