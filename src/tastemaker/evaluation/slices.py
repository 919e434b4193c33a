"""Parts of the test set that a mean hides: new items, rare items, users of whom little is known."""

from __future__ import annotations

import polars as pl

from tastemaker.schema.columns import Columns


def slices(targets: pl.DataFrame, popularity: pl.DataFrame, history: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Targets by name of the slice; a slice without targets is left out.

    Args:
        targets: user_id, item_id.
        popularity: item_id, count (training events).
        history: user_id, count (training events).

    Returns:
        `cold items` (never seen in training), `head items` (the most popular, together half of the events), `tail items` (the rest),
        `short histories` (at most 5 events), `long histories`.
    """
    ranked = popularity.sort("count", descending=True, maintain_order=True)
    half = float(ranked["count"].sum()) / 2
    head = ranked.filter(pl.col("count").cum_sum() - pl.col("count") < half)[Columns.ITEM_ID]
    known = targets.join(popularity, on=Columns.ITEM_ID, how="left", maintain_order="left").with_columns(
        pl.col("count").fill_null(0)
    )
    users = targets.join(history, on=Columns.USER_ID, how="left", maintain_order="left")
    found = {
        "cold items": targets.filter(known["count"] == 0),
        "head items": targets.filter((known["count"] > 0) & known[Columns.ITEM_ID].is_in(head.implode())),
        "tail items": targets.filter((known["count"] > 0) & ~known[Columns.ITEM_ID].is_in(head.implode())),
        "short histories (≤ 5 events)": targets.filter(users["count"].fill_null(0) <= 5),
        "long histories": targets.filter(users["count"].fill_null(0) > 5),
    }
    return {name: table for name, table in found.items() if table.height}
