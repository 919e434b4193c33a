"""Follows the JSON lines that all processes of a service keep in one folder, one file a day and process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec


class Timed(Protocol):
    """What a line says has a time."""

    @property
    def time(self) -> float:
        """Epoch seconds."""


Line = TypeVar("Line", bound=Timed)


class LineReader(Generic[Line]):
    """Reads each line once.

    Args:
        folder: of the files; it may come to be later. kind: what a line is.
    """

    def __init__(self, folder: Path, kind: type[Line]) -> None:
        self._folder, self._read = folder, dict[Path, int]()
        self._decode = msgspec.json.Decoder(kind).decode

    def skip(self) -> None:
        """Leaves out what was kept before now."""
        self._read = {path: path.stat().st_size for path in self._folder.glob("*.jsonl")}

    def new(self) -> list[Line]:
        """What was kept since the last call, oldest first; a line that is not whole is read when it is, one that was erased is left out."""
        found = [one for path in sorted(self._folder.glob("*.jsonl")) for one in self._of(path)]
        return sorted(found, key=lambda one: one.time)

    def _of(self, path: Path) -> Iterator[Line]:
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
        except OSError:
            return
        whole = text.rfind(b"\n") + 1
        self._read[path] = self._read.get(path, 0) + whole
        for line in text[:whole].splitlines():
            try:
                yield self._decode(line)
            except msgspec.DecodeError:
                continue
