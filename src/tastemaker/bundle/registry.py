"""Which bundle is what: candidate, shadow, canary, live, previous. One small file, replaced atomically."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tastemaker.bundle.rollout import SHADOW, Rollout
from tastemaker.bundle.verify import MANIFEST
from tastemaker.schema.errors import BundleError, InputError

STAGES = ("candidate", "shadow", "canary", "live", "previous")
REGISTRY = "registry.json"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


class Stages(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The version at each stage, if any; `rollout`: how a bundle in the shadow or the canary goes on."""

    candidate: str | None = None
    shadow: str | None = None
    canary: str | None = None
    live: str | None = None
    previous: str | None = None
    rollout: Rollout | None = None

    def put(self, rollout: Rollout | None) -> None:
        """Changes what is on trial; None: nothing is."""
        self.rollout = rollout
        self.shadow = rollout.version if rollout is not None and rollout.stage == SHADOW else None
        self.canary = rollout.version if rollout is not None and rollout.stage != SHADOW else None
        if rollout is not None and self.candidate == rollout.version:
            self.candidate = None


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
        """Makes a bundle live; the one that was live becomes the previous one. What was on trial is no more."""
        self.folder(version)
        with self._changing() as stages:
            stages.put(None)
            _live(stages, version)

    def begin(self, rollout: Rollout) -> None:
        """Puts a bundle on trial.

        Raises:
            InputError: another one is, or it is live already.
        """
        self.folder(rollout.version)
        with self._changing() as stages:
            if stages.rollout is not None:
                raise InputError(
                    f"Bundle {stages.rollout.version} is on trial ({stages.rollout.stage}), one at a time. "
                    "End it with `tastemaker rollback`, or wait until it is live."
                )
            if stages.live in (None, rollout.version):
                raise InputError(
                    f"Bundle {rollout.version} needs another live bundle to be tried against; the live one is {stages.live}."
                )
            stages.put(rollout)

    def change(self, seen: Rollout, to: Rollout | None, live: bool = False) -> bool:
        """Takes a release one stage further, live, or off; False if it is not as it was seen: somebody else was quicker.

        Args:
            seen: as it was when this was decided. to: as it is to be; None: its trial is over. live: it takes the place of the live one.
        """
        with self._changing() as stages:
            if stages.rollout != seen:
                return False
            stages.put(to)
            if live:
                _live(stages, seen.version)
            return True

    def rollback(self) -> str:
        """Ends a trial, if a bundle is on one; else makes the previous bundle live again. Gives the version that is live then.

        Raises:
            BundleError: nothing is on trial and there is no previous bundle.
        """
        with self._changing() as stages:
            if stages.rollout is not None and stages.live is not None:
                stages.put(None)
                return stages.live
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


def _live(stages: Stages, version: str) -> None:
    if stages.live == version:
        return
    stages.previous, stages.live = stages.live, version
    if stages.candidate == version:
        stages.candidate = None
