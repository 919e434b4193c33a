"""The record of releases: who put which bundle in the place of which, when, why, and what the gates said. Lines are only added."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path

import msgspec

RECORD = "releases.jsonl"


class Release(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line.

    Attributes:
        action: `release`, `rollback`, `refused`; of a release in stages `shadow`, `canary` (a step of it) and `aborted`. version: which bundle.
        before: the one that was live. time: seconds since 1970. share: of the users, in a canary.
        who: as the system or the API key calls them. why: their words. against, findings: what the gates said.
    """

    action: str
    version: str
    before: str | None = None
    time: float = 0.0
    who: str = ""
    why: str = ""
    against: list[str] = []
    findings: list[str] = []
    share: float = 0.0


def note(bundles: Path, release: Release) -> None:
    """Adds a line, on disk when this returns. Time and name are those of now where they are not given."""
    told = msgspec.structs.replace(release, time=release.time or time.time(), who=release.who or _name())
    handle = os.open(bundles / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, msgspec.json.encode(told) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def read_record(bundles: Path) -> list[Release]:
    """All lines, oldest first; one that was cut off is left out."""
    try:
        lines = (bundles / RECORD).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(msgspec.json.decode(line, type=Release))
        except msgspec.MsgspecError:
            continue
    return found


def _name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in the password file, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""
