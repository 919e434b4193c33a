"""Writing a bundle: into a folder beside, hashed, flushed to disk, renamed. A half-written bundle can't exist."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tastemaker.bundle.verify import MANIFEST, file_entry, payload_files
from tastemaker.schema.errors import BundleError
from tastemaker.schema.manifest import DataFingerprint, Manifest

ABANDONED = 86_400.0
"""Seconds after which a folder that is still being written has lost its writer."""


def write_bundle(
    bundles: Path,
    fill: Callable[[Path], None],
    *,
    settings: dict[str, Any] | None = None,
    data: DataFingerprint | None = None,
    metrics: dict[str, Any] | None = None,
    parents: Sequence[str] = (),
) -> str:
    """Makes a bundle and gives its version, a name that sorts by time.

    Args:
        bundles: the folder of all bundles.
        fill: writes the files into the folder that it is given.
        settings, data, metrics, parents: what the manifest says.

    Raises:
        BundleError: `fill` wrote nothing, or the disk refused; nothing is left behind.
    """
    bundles.mkdir(parents=True, exist_ok=True)
    _sweep(bundles)
    version = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
    folder = bundles / f".writing-{version}"
    folder.mkdir()
    try:
        fill(folder)
        files = {name: file_entry(folder / name) for name in payload_files(folder)}
        if not files:
            raise BundleError("The bundle would be empty: nothing was written into it.")
        manifest = Manifest(
            version=version,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            parents=list(parents),
            settings=settings or {},
            data=data or DataFingerprint(),
            metrics=metrics or {},
            files=files,
        ).sealed()
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        _sync(folder)
        folder.rename(bundles / version)
        _sync_one(bundles)
    except OSError as error:
        raise BundleError(f"The bundle could not be written ({error}). Is the disk full? Nothing was released.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return version


def _sweep(bundles: Path) -> None:
    """Removes what writers left behind that were killed long ago."""
    for left in bundles.glob(".writing-*"):
        try:
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:  # its writer finished just now
            continue


def _sync(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            _sync_one(Path(root) / name)
        _sync_one(Path(root))


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
