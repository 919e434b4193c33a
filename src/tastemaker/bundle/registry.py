"""Which bundle is what: candidate, shadow, canary, live, previous. One small file, replaced atomically."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tastemaker.bundle.verify import MANIFEST
from tastemaker.schema.errors import BundleError

STAGES = ("candidate", "shadow", "canary", "live", "previous")
REGISTRY = "registry.json"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class Stages(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The version at each stage, if any."""

    candidate: str | None = None
    shadow: str | None = None
    canary: str | None = None
    live: str | None = None
    previous: str | None = None


class Registry:
    """The stages of a folder of bundles."""

    def __init__(self, bundles: Path) -> None:
        self.bundles = bundles
        self.path = bundles / REGISTRY

    def stages(self) -> Stages:
        """The version at each stage.

        Raises:
            BundleError: the file is damaged.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Stages)
        except FileNotFoundError:
            return Stages()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BundleError(f"{self.path} is damaged ({error}). Delete it and release a bundle again.") from None

    def versions(self) -> list[str]:
        """All bundles, oldest first."""
        if not self.bundles.is_dir():
            return []
        return sorted(path.name for path in self.bundles.iterdir() if (path / MANIFEST).is_file() and not path.name.startswith("."))

    def folder(self, version: str) -> Path:
        """The folder of a version.

        Raises:
            BundleError: no such bundle, or the text is a path and no name.
        """
        if not _NAME.match(version) or version not in self.versions():
            known = ", ".join(self.versions()[-5:]) or "none; make one with `tastemaker train`"
            raise BundleError(f"There is no bundle {version!r}. There are: {known}.")
        return self.bundles / version

    def live(self) -> Path:
        """The folder of the live bundle.

        Raises:
            BundleError: nothing is live.
        """
        version = self.stages().live
        if version is None:
            raise BundleError(f"{self.bundles} has no live bundle. Make one with `tastemaker train`, then `tastemaker release`.")
        return self.folder(version)

    def add(self, version: str) -> str:
        """Registers a new bundle: the first one of a workspace becomes live at once, later ones candidate. Gives the stage."""
        self.folder(version)
        with self._changing() as stages:
            if stages.live is None:
                stages.live = version
                return "live"
            stages.candidate = version
            return "candidate"

    def release(self, version: str) -> None:
        """Makes a bundle live; the one that was live becomes the previous one."""
        self.folder(version)
        with self._changing() as stages:
            if stages.live == version:
                return
            stages.previous, stages.live = stages.live, version
            if stages.candidate == version:
                stages.candidate = None

    def rollback(self) -> str:
        """Makes the previous bundle live again and gives its version.

        Raises:
            BundleError: there is no previous bundle.
        """
        with self._changing() as stages:
            if stages.previous is None:
                raise BundleError("There is no previous bundle to go back to: nothing was released after the first one.")
            self.folder(stages.previous)
            stages.live, stages.previous = stages.previous, stages.live
            return stages.live

    @contextmanager
    def _changing(self) -> Iterator[Stages]:
        self.bundles.mkdir(parents=True, exist_ok=True)
        with (self.bundles / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stages = self.stages()
            yield stages
            temporary = self.path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(stages)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
