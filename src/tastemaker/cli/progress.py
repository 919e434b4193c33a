"""Progress bars on the terminal for everything that takes longer than a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tastemaker.schema.protocols import Progress as Report


@contextmanager
def progress_bars(show: bool = True) -> Iterator[Report]:
    """Gives `report(what, done, total)`, which draws one bar for each `what` on the error stream."""
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description:<28}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as screen:

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = screen.add_task(what, total=total or None)
            screen.update(bars[what], completed=done, total=total or None)

        yield report
