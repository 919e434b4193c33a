"""Rows that were refused: kept in a file of their own, each with its source, line and reason. Nothing is dropped in silence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
import polars as pl

from tastemaker.data.delimited import Reject
from tastemaker.schema.reports import ImportReport


class Quarantine:
    """JSON lines `{"file", "line", "reason", "row"}` under `reports/quarantine/`; the file is made with its first row."""

    def __init__(self, reports: Path) -> None:
        self._folder = reports / "quarantine"
        self._file: IO[bytes] | None = None
        self.path: Path | None = None

    def add(self, kind: str, source: Path, rejects: Sequence[Reject], report: ImportReport) -> None:
        """Keeps refused rows and counts them in the report."""
        for reject in rejects:
            self._write(kind, source, reject.line, reject.reason, reject.row, report)

    def add_table(self, kind: str, source: Path, table: pl.DataFrame, reason: str, report: ImportReport) -> None:
        """Keeps rows that were found out only when all of them were known."""
        for row in table.iter_rows(named=True):
            said = {name: value for name, value in row.items() if value is not None}
            self._write(kind, source, 0, reason, msgspec.json.encode(said).decode(), report)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, source: Path, line: int, reason: str, row: str, report: ImportReport) -> None:
        short = reason.split(":")[0]
        report.quarantined[short] = report.quarantined.get(short, 0) + 1
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.path = self._folder / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}.jsonl"
            self._file = self.path.open("wb")
        entry = {"file": source.name, "line": line, "reason": reason, "row": row}
        self._file.write(msgspec.json.encode(entry) + b"\n")
