"""What a bundle says about itself."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

SCHEMA_VERSION = 2


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a bundle."""

    sha256: str
    bytes: int


class DataFingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Which data a bundle learned from.

    Attributes:
        events, users, items: counts.
        position: the journal's sequence number up to which events were read; later ones are folded at serving.
        change: the catalogue's change number up to which items were read.
        sha256: hash over the ids and times of the events.
        clock: where machines share a state: how far each one's events were read; `position` is the maker's alone.
    """

    events: int = 0
    users: int = 0
    items: int = 0
    position: int = 0
    change: int = 0
    sha256: str = ""
    clock: dict[str, int] | msgspec.UnsetType = msgspec.UNSET  # not written where there is none, as older seals know nothing of it


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of `manifest.json`.

    Attributes:
        seal: SHA-256 of all the rest, so that an altered manifest is noticed as an altered file is.
    """

    version: str
    created: str
    schema_version: int = SCHEMA_VERSION
    parents: list[str] = []
    settings: dict[str, Any] = {}
    data: DataFingerprint = DataFingerprint()
    metrics: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}
    seal: str = ""

    def content(self) -> str:
        """SHA-256 over the names and hashes of all files: equal for bundles that hold the same, whenever they were made."""
        lines = (f"{name} {entry.sha256}\n" for name, entry in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def sealed(self) -> Manifest:
        """The same manifest with the seal that fits it."""
        bare = msgspec.structs.replace(self, seal="")
        return msgspec.structs.replace(bare, seal=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())
