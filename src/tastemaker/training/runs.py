"""What each training leaves behind in `runs/<id>/run.json`: what went in, what came out, on which machine, in which time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tastemaker.schema.errors import InputError
from tastemaker.schema.manifest import DataFingerprint

FILE = "run.json"
_PACKAGES = ("tastemaker", "torch", "numpy", "polars", "transformers", "onnxruntime")


class RunRecord(msgspec.Struct, kw_only=True):
    """One training.

    Attributes:
        id: name of the folder; it sorts by time.
        status: `running`, `done`, `stopped` (by a key) or `failed`. A run that says `running` and has no process was killed.
        began, ended: epoch seconds; the last time it was begun, after a resume.
        process, started: number of the process and when it was started, as the system tells: numbers are used again, in containers at once.
        settings: all, as a table.
        data: which events it learned from. seed: of everything random.
        environment: packages, processor, cores.
        metrics: figures of the validation and seconds of each part.
        seconds: of all attempts together. peak_gib: memory at most.
        bundle: version written. content: hash over the bundle's payload; equal for equal trainings.
        error: why it failed.
    """

    id: str
    status: str = "running"
    began: float = 0.0
    ended: float = 0.0
    process: int = 0
    started: str = ""
    settings: dict[str, Any] = {}
    data: DataFingerprint = DataFingerprint()
    seed: int = 0
    environment: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    seconds: float = 0.0
    peak_gib: float = 0.0
    bundle: str = ""
    content: str = ""
    error: str = ""

    @property
    def state(self) -> str:
        """The status, `killed` where the process of a running one is gone."""
        return "killed" if self.status == "running" and not _is_there(self.process, self.started) else self.status


def begin_run(runs: Path, settings: dict[str, Any], data: DataFingerprint, seed: int) -> tuple[Path, RunRecord]:
    """Makes the folder of a new run and says that it is running."""
    name = time.strftime("%Y%m%d-%H%M%S")
    folder = runs / name
    number = 1
    while folder.exists():
        number += 1
        folder = runs / f"{name}-{number}"
    folder.mkdir(parents=True)
    record = RunRecord(id=folder.name, settings=settings, data=data, seed=seed)
    go_on(folder, record)
    return folder, record


def go_on(folder: Path, record: RunRecord) -> None:
    """Says that a run is running, in this process."""
    record.status, record.began, record.environment, record.error = "running", time.time(), here(), ""
    record.process, record.started = os.getpid(), _started(os.getpid())
    save_run(folder, record)


def end_run(folder: Path, record: RunRecord, status: str, error: str = "") -> None:
    """Says how a run ended."""
    record.status, record.error, record.ended = status, error, time.time()
    record.seconds += record.ended - record.began
    unit = 2**30 if sys.platform == "darwin" else 2**20
    record.peak_gib = max(record.peak_gib, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
    save_run(folder, record)


def save_run(folder: Path, record: RunRecord) -> None:
    """Writes a record; a reader sees the old one or the whole new one."""
    partial = folder / f"{FILE}.partial"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
    partial.replace(folder / FILE)


def list_runs(runs: Path) -> list[RunRecord]:
    """All runs of a workspace, the oldest first; folders without a record are left out."""
    return [read_run(path.parent) for path in sorted(runs.glob(f"*/{FILE}"))]


def read_run(folder: Path) -> RunRecord:
    """One run.

    Raises:
        InputError: there is no such run, or its record can't be read.
    """
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError) as error:
        known = ", ".join(found.parent.name for found in sorted(folder.parent.glob(f"*/{FILE}"))) or "none"
        raise InputError(f"{path} is no record of a run ({error}). Runs here: {known}.") from None


def unfinished(runs: Path) -> RunRecord:
    """The latest run that was cut short.

    Raises:
        InputError: there is none.
    """
    left = [record for record in list_runs(runs) if record.state in ("killed", "stopped", "failed")]
    if not left:
        raise InputError(f"No run in {runs} was cut short, so there is nothing to go on with. Begin one: tastemaker train")
    return left[-1]


def differences(one: RunRecord, other: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Settings in which two runs differ, by `section.key`; with `data` where they learned from other events."""
    first, second = _flat(one.settings), _flat(other.settings)
    names = sorted(first.keys() | second.keys())
    found = {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
    if one.data.sha256 != other.data.sha256:
        found["data"] = (one.data.sha256[:12], other.data.sha256[:12])
    return found


def here() -> dict[str, Any]:
    """This machine and its packages."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES if _installed(name)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": cores,
        "system": platform.platform(),
        **packages,
    }


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    plain = msgspec.json.decode(msgspec.json.encode(table))  # a record that was read has lists where settings have tuples
    return {f"{section}.{key}": value for section, keys in plain.items() for key, value in keys.items()}


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _is_there(process: int, started: str) -> bool:
    """Whether a process runs, and is the one that was started then."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return process > 0 and _started(process) == started


def _started(process: int) -> str:
    """Boot and tick at which a process was started, where Linux tells; else empty."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{boot} {fields[19]}"
