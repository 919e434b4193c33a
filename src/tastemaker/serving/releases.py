"""What an operator sees and does of bundles and reports, without a word of HTTP."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tastemaker.bundle.record import read_record
from tastemaker.bundle.registry import STAGES, Registry, Stages
from tastemaker.bundle.verify import read_manifest
from tastemaker.schema.errors import BundleError, InputError
from tastemaker.schema.free_json import check_text
from tastemaker.serving.answers import NotFound
from tastemaker.serving.judge import FIGURES, Standing

SHOWN = 50
"""At most so many bundles are told of, the newest first."""
_REPORT = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Refused(InputError):
    """What was asked for makes sense, but something speaks against it."""


class ReleaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which bundle is to go live; `force` although a gate speaks against it; `why` for the record.

    `shadow`: lists that it makes beside the live one first. `canary`: shares of the users who get it first, each larger than the one before. Without
    them as the settings have it; 0 and an empty list: none.
    """

    version: Annotated[str, Meta(max_length=128)]
    force: bool = False
    shadow: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None
    canary: Annotated[list[Annotated[float, Meta(gt=0.0, lt=1.0)]], Meta(max_length=20)] | None = None
    why: Annotated[str, Meta(max_length=1_000, pattern=r"^[^\x00]*$")] = ""


class Releases:
    """The bundles and reports of a workspace.

    Args:
        bundles: folder of bundles. reports: folder of HTML pages and JSON tables.
    """

    def __init__(self, bundles: Path, reports: Path) -> None:
        self.registry, self.folder = Registry(bundles), reports

    def bundles(self) -> dict[str, Any]:
        """Bundles, newest first: stage, parents, data, metrics, bytes; and the tables of the last compression and evaluation."""
        stages = self.registry.stages()
        stage_of = {getattr(stages, name): name for name in STAGES if getattr(stages, name)}
        return {
            "stages": {name: getattr(stages, name) for name in STAGES},
            "bundles": [self._told(version, stage_of) for version in self.registry.versions()[::-1][:SHOWN]],
            "trial": self._trial(stages),
            "record": msgspec.to_builtins(read_record(self.registry.bundles)[:-SHOWN:-1]),
            "compression": self._table("compression"),
            "evaluation": self._table("report"),
        }

    async def release(self, body: ReleaseBody, who: str) -> dict[str, Any]:
        """Makes a bundle live or puts it on trial, if the gates let it: in a process of its own, so that answers don't wait for the examination.

        Args:
            who: whose name stands in the record.

        Raises:
            NotFound: no such bundle. Refused: it is not whole, or a gate speaks against it and `force` was not said.
        """
        if body.version not in self.registry.versions():
            raise NotFound(f"There is no bundle {body.version!r}.")
        check_text(body.why)
        words = [body.version, f"--why={body.why}", f"--who={who}", *(["--force"] if body.force else [])]
        words += [] if body.shadow is None else [f"--shadow={body.shadow}"]
        words += [] if body.canary is None else [f"--canary={','.join(map(str, body.canary)) or 'none'}"]
        return dict(msgspec.json.decode(await self._verb("release", *words)))

    async def rollback(self, who: str) -> dict[str, Any]:
        """Ends the trial of a bundle, if one is on trial; else makes the previous bundle live again.

        Raises:
            Refused: there is none, or it is gone.
        """
        return dict(msgspec.json.decode(await self._verb("rollback", f"--who={who}")))

    async def _verb(self, verb: str, *words: str) -> bytes:
        command = [sys.executable, "-m", "tastemaker", verb, str(self.registry.bundles.parent), *words, "--json"]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        try:
            said, trouble = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
        if child.returncode:
            raise Refused(trouble.decode(errors="replace").strip().removeprefix("Error: ")[-2_000:])
        return said

    def reports(self) -> dict[str, Any]:
        """Names of the pages that the verbs have written, with their times (seconds since 1970)."""
        pages = sorted(self.folder.glob("*.html")) if self.folder.is_dir() else []
        return {"reports": [{"name": page.stem, "made": page.stat().st_mtime} for page in pages if _REPORT.fullmatch(page.stem)]}

    def report(self, name: str) -> dict[str, Any]:
        """A page as text.

        Raises:
            NotFound: no such page, or the text is a path and no name.
        """
        page = self.folder / f"{name}.html"
        if not _REPORT.fullmatch(name) or not page.is_file():
            raise NotFound(f"There is no report {name!r}.")
        return {"name": name, "html": page.read_text("utf-8", "replace")}

    def _told(self, version: str, stage_of: Mapping[str, str]) -> dict[str, Any]:
        try:
            manifest = read_manifest(self.registry.folder(version))
        except BundleError as error:
            return {"version": version, "stage": stage_of.get(version), "damaged": str(error)}
        return {
            "version": version,
            "stage": stage_of.get(version),
            "created": manifest.created,
            "parents": manifest.parents,
            "events": manifest.data.events,
            "users": manifest.data.users,
            "items": manifest.data.items,
            "metrics": manifest.metrics,
            "bytes": sum(entry.bytes for entry in manifest.files.values()),
        }

    def _trial(self, stages: Stages) -> dict[str, Any] | None:
        """The bundle on trial: its stage, and what is known of it by now; None where none is."""
        if stages.rollout is None:
            return None
        told = {**msgspec.to_builtins(stages.rollout), "stage": stages.rollout.stage, "share": stages.rollout.share}
        try:
            found = msgspec.json.decode((self.registry.bundles / FIGURES).read_bytes(), type=Standing)
        except (OSError, msgspec.MsgspecError):
            return told
        same = (found.version, found.began) == (stages.rollout.version, stages.rollout.began)
        return told | ({"standing": msgspec.to_builtins(found)} if same else {})

    def _table(self, name: str) -> Any:
        try:
            return msgspec.json.decode((self.folder / f"{name}.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return None
