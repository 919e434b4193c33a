"""What every replica on a cluster is told."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import msgspec

from tastemaker.schema.cluster import package
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import to_table


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every replica is told, as JSON, so that it can refuse before it understands.

    Attributes:
        package: of the process that asked for it. workspace: its folder. settings: as a table. version: a bundle to stay with.
        run: names the command that asked.
        counters: the file in which replicas of a machine count requests, `slots` rows. closed: nobody may enter without a key.
    """

    package: str
    run: str
    workspace: str
    settings: dict[str, Any]
    version: str | None
    counters: str
    slots: int
    closed: bool


def plan_of(workspace: Path, settings: Settings, version: str | None, counters: Path, slots: int, closed: bool) -> Plan:
    """The plan of a workspace."""
    return Plan(
        package=package(), run=secrets.token_hex(8), workspace=str(workspace.resolve()), settings=to_table(settings), version=version,
        counters=str(counters.resolve()), slots=slots, closed=closed,
    )  # fmt: skip
