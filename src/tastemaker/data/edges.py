"""What a good row of an edge file is, and whose ids it names. A refused row keeps its place and its reason."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tastemaker.data.delimited import WRONG_ENCODING, Reject
from tastemaker.data.sources import Chunk, read_chunks
from tastemaker.schema.columns import Columns
from tastemaker.schema.graph import ENTITY, ITEM, NAME_RELATION, SELF_LOOP, USER

MISSING = "missing head, relation or tail"
BAD_WEIGHT = "weight is no finite number of at least 0"
BAD_TEXT = "id is no valid UTF-8"
_ENDS = (Columns.HEAD, Columns.RELATION, Columns.TAIL)
_NAMES = ((Columns.HEAD, "head_name"), (Columns.TAIL, "tail_name"))


def links_of(path: Path) -> dict[str, str] | None:
    """For a RecBole `.kg` file which of its ids are items, as its `.link` file beside it says; None for other files.

    Raises:
        InputError: the `.link` file is damaged or lacks a column.
    """
    if path.suffix != ".kg":
        return None
    beside = path.with_suffix(".link")
    if not beside.is_file():
        return {}
    found: dict[str, str] = {}
    aliases = {"itemid": Columns.ITEM_ID, "entityid": "entity_id"}
    for chunk in read_chunks(beside, aliases, (Columns.ITEM_ID, "entity_id")):
        pairs = chunk.table.select("entity_id", Columns.ITEM_ID).drop_nulls()
        found |= {entity: ITEM + item for entity, item in pairs.iter_rows()}
    return found


def judge_edges(chunk: Chunk, links: dict[str, str] | None = None) -> tuple[pl.DataFrame, pl.DataFrame, list[Reject]]:
    """The good edges of a chunk as head, relation, tail, weight; edges that say what nodes are called; and the rows that are none.

    A weight that is missing is 1; a weight of 0 takes the edge away. Names come from columns `head_name` and `tail_name`.

    Args:
        chunk: rows of a file.
        links: ids that stand for items; the others of this file are entities. None: ids say themselves what they are.
    """
    table = chunk.table.with_columns(pl.col(name).str.strip_chars() for name in _ENDS)
    said = pl.col(Columns.WEIGHT).str.strip_chars() if Columns.WEIGHT in table.columns else pl.lit(None, dtype=pl.String)
    weight = pl.when(said.is_null() | (said == "")).then(1.0).otherwise(said.cast(pl.Float64, strict=False))
    table = table.with_columns(weight.alias("_weight"))
    missing = pl.any_horizontal(pl.col(name).is_null() | (pl.col(name) == "") for name in _ENDS)
    broken = pl.any_horizontal(pl.col(name).str.starts_with(WRONG_ENCODING) for name in _ENDS)
    number = pl.col("_weight")
    reason = (
        pl.when(missing).then(pl.lit(MISSING))
        .when(broken).then(pl.lit(BAD_TEXT))
        .when(pl.col(Columns.HEAD) == pl.col(Columns.TAIL)).then(pl.lit(SELF_LOOP))
        .when(number.is_null() | number.is_nan() | number.is_infinite() | (number < 0)).then(pl.lit(BAD_WEIGHT))
    )  # fmt: skip
    reasons = table.select(reason.alias("reason"))["reason"]
    rejects = [
        Reject(int(chunk.lines[place]), reasons[place], str({name: table[name][place] for name in chunk.table.columns})[:2_000])
        for place in reasons.is_not_null().arg_true().to_list()
    ]
    good = table.filter(reasons.is_null())
    if links is not None:
        good = good.with_columns(_linked(name, links) for name in (Columns.HEAD, Columns.TAIL))
    edges = good.select(*_ENDS, pl.col("_weight").alias(Columns.WEIGHT))
    called = [_called(good, end, name) for end, name in _NAMES if name in good.columns]
    return edges, pl.concat([edges.clear(), *called]), rejects


def _linked(name: str, links: dict[str, str]) -> pl.Expr:
    own = pl.col(name)
    known = pl.any_horizontal(own.str.starts_with(prefix) for prefix in (ITEM, USER, ENTITY))
    plain = pl.when(known).then(own).otherwise(pl.lit(ENTITY) + own)
    return (
        pl.coalesce(own.replace_strict(links, default=None, return_dtype=pl.String), plain).alias(name)
        if links
        else plain.alias(name)
    )


def _called(good: pl.DataFrame, end: str, name: str) -> pl.DataFrame:
    """Names of nodes, as edges."""
    text = pl.col(name).str.strip_chars()
    named = good.filter(text.is_not_null() & (text != "") & ~text.str.starts_with(WRONG_ENCODING))
    return named.select(
        pl.col(end).alias(Columns.HEAD),
        pl.lit(NAME_RELATION).alias(Columns.RELATION),
        text.alias(Columns.TAIL),
        pl.lit(1.0).alias(Columns.WEIGHT),
    ).unique(maintain_order=True)
