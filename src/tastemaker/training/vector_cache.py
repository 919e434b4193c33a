"""Vectors that a model gave before, by the hash of what it read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from tastemaker.schema.protocols import FloatArray

KEY_BYTES = 16


def content_key(content: bytes) -> bytes:
    """The name under which what a model made of some bytes is remembered."""
    return xxhash.xxh3_128_digest(content)


class VectorCache:
    """Vectors by key, in a file of a folder.

    Args:
        folder: None remembers nothing beyond this process.
        name: of the file; it must change with the model.
        width: length of a vector.
    """

    def __init__(self, folder: Path | None, name: str, width: int) -> None:
        self._path = folder / f"{name}.npz" if folder is not None else None
        self._keys: list[bytes] = []
        self._vectors = np.zeros((0, width), dtype=np.float32)
        if self._path is not None and self._path.is_file():
            with np.load(self._path, allow_pickle=False) as table:
                self._keys, self._vectors = [bytes(row) for row in table["keys"]], table["vectors"]
        self._place = {key: number for number, key in enumerate(self._keys)}

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def add(self, keys: Sequence[bytes], vectors: FloatArray) -> None:
        """Remembers vectors, float32 [n, W], under new keys, also on disk."""
        self._place |= {key: len(self._keys) + number for number, key in enumerate(keys)}
        self._keys, self._vectors = [*self._keys, *keys], np.concatenate([self._vectors, vectors])
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{self._path.stem}.{os.getpid()}.npz")
        np.savez(partial, keys=np.frombuffer(b"".join(self._keys), dtype=np.uint8).reshape(-1, KEY_BYTES), vectors=self._vectors)
        partial.replace(self._path)

    def read(self, keys: Sequence[bytes]) -> FloatArray:
        """Vectors of known keys, float32 [n, W]."""
        found: FloatArray = self._vectors[[self._place[key] for key in keys]]
        return found
