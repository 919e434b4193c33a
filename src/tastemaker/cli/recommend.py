"""`tastemaker recommend`: lists for many users, to a Parquet file."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.cluster import prepare
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import Progress

if TYPE_CHECKING:
    from polars import DataFrame

    from tastemaker.recommender import Recommender

SLICE = 2_048


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    users: Annotated[Path | None, typer.Option(help="A file of user ids: text lines, CSV or Parquet with user_id.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users of the bundle and of the journal since.")] = False,
    k: Annotated[int, typer.Option(min=1, max=10_000, help="Items a user.")] = 20,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("recs.parquet"),
    bundle: Annotated[str | None, typer.Option(help="A bundle other than the live one.")] = None,
    target: Annotated[str, typer.Option(help="What is recommended: items or users (whom a user might know).")] = "items",
    ray: Annotated[str | None, typer.Option("--ray", help="Work on a Ray cluster: its address, or `local`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Lists for many users: user_id, item_id, score, rank; or of people: user_id, friend_id, score, rank."""
    from tastemaker.bundle.registry import Registry

    if target not in ("items", "users"):
        raise InputError(f"--target is {target!r}; expected items or users.")
    if everybody == (users is not None):
        raise InputError("Say for whom: either --users FILE or --all.")
    began = time.perf_counter()
    workspace = open_workspace(directory)
    registry = Registry(workspace.bundles)
    folder = registry.folder(bundle) if bundle else registry.live()
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars(not json) as progress:
        if ray is None:
            wanted, rows = _here(workspace, folder, users, k, target, out, progress)
        else:
            prepare(ray)
            from tastemaker.cli._ray import recommend_on

            wanted, rows = recommend_on(ray, workspace, folder, lambda made: _names(made, users), k, target, out, progress)
    seconds = time.perf_counter() - began
    if json:
        typer.echo(json_module.dumps({"users": wanted, "rows": rows, "out": str(out), "seconds": seconds}))
        return
    typer.echo(f"{rows:,} rows for {wanted:,} users in {seconds:.1f} s: {out}")


def _here(
    workspace: Workspace, folder: Path, users: Path | None, k: int, target: str, out: Path, progress: Progress
) -> tuple[int, int]:
    """Lists made by this process; gives the number of users and of rows."""
    import polars as pl

    from tastemaker.journal.append import Journal
    from tastemaker.recommender import Recommender

    journal = Journal.open(workspace.journal)
    try:
        recommender = Recommender.load(folder, journal, workspace.settings)
        names = _names(recommender, users)
        parts = []
        for begin in range(0, len(names), SLICE):
            parts.append(lists_of(recommender, names[begin : begin + SLICE], k, target))
            progress("recommend", min(begin + SLICE, len(names)), len(names))
    finally:
        journal.close()
    table = pl.concat(parts)
    table.write_parquet(out, compression="zstd")
    return len(names), table.height


def lists_of(recommender: Recommender, names: Sequence[str], k: int, target: str, now: float | None = None) -> DataFrame:
    """The lists of some users: user_id, item_id or friend_id, score, rank; `now` as of `Recommender.recommend`."""
    return recommender.recommend(names, k, now=now) if target == "items" else recommender.friends(names, k)


def _names(recommender: Recommender, users: Path | None) -> list[str]:
    """Whom lists are for.

    Raises:
        InputError: nobody.
    """
    names = recommender.users() if users is None else read_users(users)
    if not names:
        raise InputError("There is no user to recommend to.")
    return names


def read_users(path: Path) -> list[str]:
    """User ids of a file, each once.

    Raises:
        InputError: the file is missing, empty or has no user_id column.
    """
    import polars as pl

    if not path.is_file():
        raise InputError(f"{path}: no such file. Give text lines of user ids, or CSV or Parquet with a column user_id.")
    if path.suffix == ".parquet" or path.suffix == ".csv":
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
        if "user_id" not in table.columns:
            raise InputError(f"{path}: no column user_id; found {', '.join(table.columns)}.")
        names = table["user_id"].cast(pl.String).drop_nulls().to_list()
    else:
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not UTF-8 text ({error}). Save it as UTF-8, or give Parquet with a column user_id."
            ) from None
    if not names:
        raise InputError(f"{path} names no user.")
    return list(dict.fromkeys(names))
