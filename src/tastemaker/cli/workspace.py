"""A workspace: the folder that the verbs share."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tastemaker.schema.errors import InputError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings

SETTINGS_FILE = "tastemaker.toml"


@dataclass(frozen=True)
class Workspace:
    """A folder with `tastemaker.toml`, `journal/`, `bundles/`, `reports/` and `runs/`."""

    path: Path
    settings: Settings

    @property
    def journal(self) -> Path:
        """What happened."""
        return self.path / "journal"

    @property
    def bundles(self) -> Path:
        """What was learned."""
        return self.path / "bundles"

    @property
    def reports(self) -> Path:
        """What people read."""
        return self.path / "reports"

    @property
    def runs(self) -> Path:
        """Training logs, caches and half-done work."""
        return self.path / "runs"


def open_workspace(directory: Path, overrides: Iterable[str] = ()) -> Workspace:
    """Opens a workspace with its settings; `overrides` are `section.key=value` texts.

    Raises:
        InputError: the folder is no workspace.
        SettingsError: a key is unknown or has a wrong value.
    """
    path = directory / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{directory} is no workspace: {path} is missing. Make one with: tastemaker init {directory}")
    return Workspace(directory, load_settings(path, overrides))


def serving_environment() -> dict[str, str]:
    """Variables of the processes that answer, where they are not set: one thread for each product, and the allocator of polars gives back at once what reading a bundle
    took (12 of 19 MB of the demo's features)."""
    wanted = {"OMP_NUM_THREADS": "1", "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
