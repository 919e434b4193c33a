"""The folder of a search: one process at a time writes there, and Optuna's journal in it survives a crash."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend

from tastemaker.schema.errors import InputError


class _Held:
    """The folder's lock is held already; Optuna's own would stay behind where a search is killed, and make the next one wait."""

    def acquire(self) -> bool:
        """Always."""
        return True

    def release(self) -> None:
        """Nothing to do."""


def storage_of(path: Path) -> optuna.storages.BaseStorage:
    """The journal, without a last line that a crash cut in two."""
    whole = path.read_bytes() if path.is_file() else b""
    if whole and not whole.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)
    lock: Any = _Held()
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One search at a time in a folder; the lock goes with the process that holds it, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"Another search is at work in {folder}. Wait for it, or give another --name.") from None
        yield
