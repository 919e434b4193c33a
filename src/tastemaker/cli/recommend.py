"""`tastemaker recommend`: lists for many users, to a Parquet file."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated

import typer

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.workspace import open_workspace
from tastemaker.schema.errors import InputError

SLICE = 2_048


def run(
    directory: Annotated[Path, typer.Argument(help="The workspace.")],
    users: Annotated[Path | None, typer.Option(help="A file of user ids: text lines, CSV or Parquet with user_id.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users of the bundle and of the journal since.")] = False,
    k: Annotated[int, typer.Option(min=1, max=10_000, help="Items a user.")] = 20,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("recs.parquet"),
    bundle: Annotated[str | None, typer.Option(help="A bundle other than the live one.")] = None,
    target: Annotated[str, typer.Option(help="What is recommended: items or users (whom a user might know).")] = "items",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Lists for many users: user_id, item_id, score, rank; or of people: user_id, friend_id, score, rank."""
    import polars as pl

    from tastemaker.bundle.registry import Registry
    from tastemaker.journal.append import Journal
    from tastemaker.recommender import Recommender

    if target not in ("items", "users"):
        raise InputError(f"--target is {target!r}; expected items or users.")
    if everybody == (users is not None):
        raise InputError("Say for whom: either --users FILE or --all.")
    began = time.perf_counter()
    workspace = open_workspace(directory)
    registry = Registry(workspace.bundles)
    journal = Journal.open(workspace.journal)
    try:
        recommender = Recommender.load(registry.folder(bundle) if bundle else registry.live(), journal, workspace.settings)
        ask = recommender.recommend if target == "items" else recommender.friends
        names = recommender.users() if users is None else read_users(users)
        parts = []
        with progress_bars(not json) as progress:
            for begin in range(0, len(names), SLICE):
                parts.append(ask(names[begin : begin + SLICE], k))
                progress("recommend", min(begin + SLICE, len(names)), len(names))
    finally:
        journal.close()
    if not parts:
        raise InputError("There is no user to recommend to.")
    table = pl.concat(parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(out, compression="zstd")
    seconds = time.perf_counter() - began
    if json:
        typer.echo(json_module.dumps({"users": len(names), "rows": table.height, "out": str(out), "seconds": seconds}))
        return
    typer.echo(f"{table.height:,} rows for {len(names):,} users in {seconds:.1f} s: {out}")


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
