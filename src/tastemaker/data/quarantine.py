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

encode = msgspec.json.Encoder().encode


class Quarantine:
    """JSON lines `{"file", "line", "reason", "row"}` under `reports/quarantine/`; the file is made with its first row."""

    def __init__(self, reports: Path) -> None:
        self._folder = reports / "quarantine"
        self._file: IO[bytes] | None = None
        self.path: Path | None = None

    def add(self, kind: str, source: Path, rejects: Sequence[Reject], report: ImportReport) -> None:
        """Keeps refused rows and counts them in the report."""
        if not rejects:
            return
        lines = []
        for line, reason, row in rejects:
            self._count(reason, report)
            lines.append(encode({"file": source.name, "line": line, "reason": reason, "row": row}))
        self._open(kind).write(b"\n".join(lines) + b"\n")

    def add_table(self, kind: str, source: Path, table: pl.DataFrame, reason: str, report: ImportReport) -> None:
        """Keeps rows that were found out only when all of them were known."""
        rows = [{name: value for name, value in row.items() if value is not None} for row in table.iter_rows(named=True)]
        self.add(kind, source, [Reject(0, reason, encode(row).decode()) for row in rows], report)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _count(self, reason: str, report: ImportReport) -> None:
        short = reason.split(":")[0]
        report.quarantined[short] = report.quarantined.get(short, 0) + 1

    def _open(self, kind: str) -> IO[bytes]:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self.path = self._folder / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}.jsonl"
            self._file = self.path.open("wb")
        return self._file
