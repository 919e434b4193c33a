"""Versions of the source, each in a process of its own, that measure what they are told to: so they can be asked in turns, as only ratios hold on cores that are shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

OWN = Path(__file__).resolve().parents[1] / "src"


class Version:
    """A script that was started with `WORKSPACE --work` by a version of the source, has said `ready`, and answers each line that it is told with a number.

    Args:
        script: its file. source: a folder `src`. workspace: its first argument.
    """

    def __init__(self, script: str, source: Path, workspace: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, script, str(workspace), "--work"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready", f"{source} does not answer"

    def asked(self, line: str) -> float:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Version:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
