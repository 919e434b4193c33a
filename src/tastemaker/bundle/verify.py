"""Is a bundle whole? Every file against its size and checksum; weights formats have none of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import msgspec

from tastemaker.schema.errors import BundleError
from tastemaker.schema.manifest import SCHEMA_VERSION, FileEntry, Manifest

MANIFEST = "manifest.json"


def payload_files(folder: Path) -> list[str]:
    """Names of all files of a bundle but the manifest, relative to it."""
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path.relative_to(folder).as_posix() for path in found if path != folder / MANIFEST)


def file_entry(path: Path) -> FileEntry:
    """Checksum and size of a file."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest.

    Raises:
        BundleError: there is none, it is damaged, of another schema version, or names a file outside the bundle.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BundleError(
            f"{folder} is no bundle: {MANIFEST} is missing. Train one, or give the folder of a whole bundle."
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged ({error}). Use another bundle.") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder.name} has schema version {manifest.schema_version}, this program reads {SCHEMA_VERSION}. Train it again, or use the "
            "program that made it."
        )
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or not parts:
            raise BundleError(f"{folder.name} names a file outside itself: {name!r}. It was not loaded.")
    if manifest.sealed().seal != manifest.seal:
        raise BundleError(f"{path} has been altered: it does not fit its own seal. It was not loaded; use another bundle.")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Compares every file with the manifest.

    Raises:
        BundleError: a file is missing, too many, a link, cut short or altered; the message names it.
    """
    present = set(payload_files(folder))
    missing, unknown = sorted(set(manifest.files) - present), sorted(present - set(manifest.files))
    if missing:
        raise BundleError(f"{folder.name} is incomplete: {', '.join(missing)} missing. Use another bundle.")
    if unknown:
        raise BundleError(f"{folder.name} holds files that its manifest does not know: {', '.join(unknown)}. It was not loaded.")
    for name, entry in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder.name}: {name} is a link. A bundle holds plain files only; it was not loaded.")
        found = file_entry(path)
        if found != entry:
            what = f"has {found.bytes:,} bytes instead of {entry.bytes:,}" if found.bytes != entry.bytes else "has been altered"
            raise BundleError(f"{folder.name}: {name} {what}. It was not loaded; use another bundle.")
