"""Lists for many users by the workers of a Ray cluster: the rows that one process makes, in its order, written as they come."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tastemaker.cli.recommend import SLICE, lists_of
from tastemaker.cli.workspace import Workspace
from tastemaker.data._ray import connect, stream
from tastemaker.journal.append import Journal
from tastemaker.recommender import Recommender
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import Progress
from tastemaker.schema.settings_file import from_table, to_table


def recommend_on(
    address: str,
    workspace: Workspace,
    folder: Path,
    names_of: Callable[[Recommender], list[str]],
    k: int,
    target: str,
    out: Path,
    progress: Progress,
) -> tuple[int, int]:
    """Makes the lists and writes the table; gives the number of users and of rows. Half a table is never left behind.

    Args:
        address: of the cluster. workspace: its journal and settings, under this path on every machine. folder: of the bundle.
        names_of: whom lists are for. k: items a user. target: items or users. out: the Parquet file.

    Raises:
        InputError: nobody to recommend to, or no cluster there. Unfit: a machine runs another version. Stuck: the cluster does not get on.
    """
    connect(address)
    journal = Journal.open(workspace.journal)
    try:
        names = names_of(Recommender.load(folder, journal, workspace.settings))
    finally:
        journal.close()
    slices = -(-len(names) // SLICE)
    with tempfile.TemporaryDirectory(dir=workspace.path, prefix="lists-") as room:
        told = Path(room) / "names.parquet"
        pl.DataFrame({Columns.USER_ID: names}, schema={Columns.USER_ID: pl.String}).write_parquet(told, row_group_size=SLICE)
        given = (str(folder), str(workspace.journal), to_table(workspace.settings), str(told), SLICE, k, target, time.time())
        partial = out.with_name(f".{out.name}.partial")
        try:
            for number, part in enumerate(stream(lists, given, slices, lambda done: progress("recommend", done, slices))):
                (Path(room) / f"{number:08d}.arrow").write_bytes(part)
            pl.scan_ipc(sorted(Path(room).glob("*.arrow"))).sink_parquet(partial, compression="zstd", maintain_order=True)
            rows = int(pl.scan_parquet(partial).select(pl.len()).collect().item())
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    return len(names), rows


def lists(
    folder: str, journal: str, settings: dict[str, Any], names: str, size: int, k: int, target: str, now: float
) -> Callable[[int], bytes]:
    """What a worker does: loads the bundle, then makes the lists of one slice of `size` names after the other, as Arrow."""
    recommender = Recommender.load(folder, Journal.open(Path(journal)), from_table(settings), threads=1)

    def one(number: int) -> bytes:
        some = pl.scan_parquet(names).slice(number * size, size).collect()[Columns.USER_ID].to_list()
        found = io.BytesIO()
        lists_of(recommender, some, k, target, now).write_ipc(found, compression="zstd")
        return found.getvalue()

    return one
