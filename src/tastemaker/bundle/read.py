"""Reading a bundle: whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.bundle.verify import read_manifest, verify
from tastemaker.schema.errors import BundleError
from tastemaker.schema.manifest import Manifest


@dataclass(frozen=True)
class Bundle:
    """An immutable folder with everything that answers need."""

    path: Path
    manifest: Manifest

    @property
    def version(self) -> str:
        """The bundle's name."""
        return self.manifest.version

    def file(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            BundleError: the manifest does not know it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"Bundle {self.version} has no file {name!r}.")
        return self.path / name

    def has(self, name: str) -> bool:
        """True if the manifest knows the file."""
        return name in self.manifest.files

    def array(self, name: str) -> NDArray[Any]:
        """A `.npy` array, memory-mapped and so shared between processes."""
        loaded: NDArray[Any] = np.load(self.file(name), mmap_mode="r", allow_pickle=False)
        return loaded


def open_bundle(path: Path, check: bool = True) -> Bundle:
    """Opens a bundle; with `check` every file is compared with its checksum first.

    Raises:
        BundleError: it is missing, incomplete, altered or of another schema version.
    """
    manifest = read_manifest(path)
    if check:
        verify(path, manifest)
    return Bundle(path, manifest)
