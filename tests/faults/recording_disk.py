"""A disk that remembers what was written and what was synced, for SQLite of this very process: from its record every crash can be built anew.

A shim around SQLite's own VFS (sqlite3_vfs, registered through ctypes): it passes every call on and notes writes, truncations, syncs and deletions.
What a crash may leave of a file: everything up to the last sync, and of what was written since any part, in any order, sectors torn (Pillai et al.,
"All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NAME = b"recorder"
SECTOR = 512
OK, FULL, IOERR_FSYNC = 0, 13, 10 | (4 << 8)
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
OPEN, DELETE = ctypes.CFUNCTYPE(_I, _P, _P, _P, _I, _P), ctypes.CFUNCTYPE(_I, _P, ctypes.c_char_p, _I)
CLOSE, WRITE = ctypes.CFUNCTYPE(_I, _P), ctypes.CFUNCTYPE(_I, _P, _P, _I, _L)
TRUNCATE, SYNC = ctypes.CFUNCTYPE(_I, _P, _L), ctypes.CFUNCTYPE(_I, _P, _I)


_KEPT: list[RecordingDisk] = []
"""SQLite may call a database that a failed test left open, long after."""


class Vfs(ctypes.Structure):
    _fields_ = [
        ("version", _I), ("size", _I), ("longest", _I), ("next", _P), ("name", ctypes.c_char_p), ("own", _P),
        ("open", OPEN), ("delete", DELETE), *[(f"rest{number}", _P) for number in range(16)],
    ]  # fmt: skip


class Methods(ctypes.Structure):
    _fields_ = [
        ("version", _I), ("close", CLOSE), ("read", _P), ("write", WRITE), ("truncate", TRUNCATE), ("sync", SYNC),
        *[(f"rest{number}", _P) for number in range(14)],
    ]  # fmt: skip


class Done(NamedTuple):
    """One thing that happened: `write` (offset, bytes), `truncate` (size), `sync`, `delete`, or `told`: the writer said that so many events are safe."""

    what: str
    file: str
    at: int = 0
    data: bytes = b""


class RecordingDisk:
    """Registers itself; open databases with `uri=True` and `?vfs=recorder`.

    Attributes:
        record: what happened, in order. fault: called before a write or sync; an SQLite error code other than 0 is what the disk answers.
    """

    def __init__(self) -> None:
        self.record: list[Done] = []
        self.fault: Callable[[str, str], int] = lambda what, file: OK
        self._names: dict[int, str] = {}
        self._methods: dict[int, Methods] = {}
        library = ctypes.CDLL(_sqlite3.__file__)
        try:
            find, register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
        except AttributeError:
            pytest.skip("this Python hides its SQLite, whose disk can't be recorded then")
        find.restype, find.argtypes = ctypes.POINTER(Vfs), [ctypes.c_char_p]
        self._real: Vfs = find(None).contents
        self._vfs = Vfs.from_buffer_copy(self._real)
        self._vfs.name, self._vfs.open, self._vfs.delete = NAME, OPEN(self._open), DELETE(self._delete)
        register.argtypes = [_P, _I]
        _KEPT.append(self)
        self._unregister = lambda: library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
        assert register(ctypes.byref(self._vfs), 0) == OK

    def close(self) -> None:
        """Unregisters."""
        self._unregister()

    def told(self, number: int) -> None:
        """The writer was told that so many events are safe."""
        self.record.append(Done("told", "", number))

    def _open(self, vfs: Any, name: Any, file: Any, flags: int, out: Any) -> int:
        answer = self._real.open(vfs, name, file, flags, out)
        if answer != OK or not name:
            return int(answer)
        slot = ctypes.cast(file, ctypes.POINTER(_P))
        real = ctypes.cast(slot[0], ctypes.POINTER(Methods)).contents
        own = Methods.from_buffer_copy(real)
        own.write, own.truncate = WRITE(self._write(real)), TRUNCATE(self._truncate(real))
        own.sync, own.close = SYNC(self._sync(real)), CLOSE(real.close)
        self._methods[file], self._names[file] = own, Path(ctypes.string_at(name).decode()).name
        slot[0] = ctypes.addressof(own)
        return OK

    def _delete(self, vfs: Any, name: bytes, sync: int) -> int:
        self.record.append(Done("delete", Path(name.decode()).name))
        return int(self._real.delete(vfs, name, sync))

    def _write(self, real: Methods) -> Callable[..., int]:
        def write(file: Any, data: Any, size: int, at: int) -> int:
            if (code := self.fault("write", self._names[file])) != OK:
                return code
            self.record.append(Done("write", self._names[file], at, ctypes.string_at(data, size)))
            return int(real.write(file, data, size, at))

        return write

    def _truncate(self, real: Methods) -> Callable[..., int]:
        def truncate(file: Any, size: int) -> int:
            self.record.append(Done("truncate", self._names[file], size))
            return int(real.truncate(file, size))

        return truncate

    def _sync(self, real: Methods) -> Callable[..., int]:
        def sync(file: Any, flags: int) -> int:
            if (code := self.fault("sync", self._names[file])) != OK:
                return code
            self.record.append(Done("sync", self._names[file]))
            return int(real.sync(file, flags))

        return sync


def crash(record: list[Done], rng: random.Random, folder: Path) -> int:
    """Builds what a disk may hold after a power loss at the end of a record; gives how many events the writer had been told are safe."""
    last_sync = {done.file: place for place, done in enumerate(record) if done.what == "sync"}
    files: dict[str, bytearray] = {}
    loose: dict[str, list[Done]] = {}
    told = 0
    for place, done in enumerate(record):
        if done.what == "told":
            told = done.at
        elif done.what == "delete":
            files.pop(done.file, None)
            loose.pop(done.file, None)
        elif done.what != "sync" and place < last_sync.get(done.file, -1):
            _apply(files.setdefault(done.file, bytearray()), done)
        elif done.what != "sync":
            loose.setdefault(done.file, []).append(done)
    for file, writes in loose.items():
        kept = [part for done in writes for part in _torn(done, rng)]
        mode = rng.choice(["none", "some", "prefix", "all"])
        if mode == "some":
            rng.shuffle(kept)
        kept = kept[: {"none": 0, "all": len(kept)}.get(mode, rng.randint(0, len(kept)))]
        for done in kept:
            _apply(files.setdefault(file, bytearray()), done)
    for file, body in files.items():
        (folder / file).write_bytes(body)
    return told


def _torn(done: Done, rng: random.Random) -> list[Done]:
    """A write as its sectors, which may arrive alone."""
    if done.what != "write" or rng.random() < 0.3:
        return [done]
    return [
        Done("write", done.file, done.at + begin, done.data[begin : begin + SECTOR]) for begin in range(0, len(done.data), SECTOR)
    ]


def _apply(body: bytearray, done: Done) -> None:
    if done.what == "truncate":
        del body[done.at :]
        return
    body.extend(bytes(max(done.at + len(done.data) - len(body), 0)))
    body[done.at : done.at + len(done.data)] = done.data
