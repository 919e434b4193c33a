"""What a training leaves behind about its way: TensorBoard curves and the same numbers as JSON lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

_EVERY = 10  # steps between two lines


class Curves:
    """Writes `<what>.jsonl` and TensorBoard events into a run's folder; without a folder nothing."""

    def __init__(self, run_dir: Path | None, what: str) -> None:
        self._what = what
        self._board: Any = None
        self._lines: TextIO | None = None
        if run_dir is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # heavy, and only here

        run_dir.mkdir(parents=True, exist_ok=True)
        self._board = SummaryWriter(str(run_dir / what))
        self._lines = (run_dir / f"{what}.jsonl").open("a", encoding="utf-8")

    def step(self, number: int, **values: float) -> None:
        """Numbers of a step, counted from 0; every tenth is written."""
        if number % _EVERY == 0:
            self._write("step", number, values)

    def epoch(self, number: int, **values: float | None) -> None:
        """Numbers after an epoch, counted from 1; what is None is left out."""
        self._write("epoch", number, {name: value for name, value in values.items() if value is not None})

    def close(self) -> None:
        """Ends both files."""
        if self._board is not None:
            self._board.close()
        if self._lines is not None:
            self._lines.close()

    def _write(self, unit: str, number: int, values: dict[str, Any]) -> None:
        if self._board is None or self._lines is None:
            return
        place = self._what if unit == "epoch" else f"{self._what}-steps"
        for name, value in values.items():
            self._board.add_scalar(f"{place}/{name}", value, number)
        self._lines.write(json.dumps({unit: number, **values, "at": round(time.time(), 3)}) + "\n")
        self._lines.flush()
