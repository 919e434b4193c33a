"""Schemas of Amazon Personalize (Avro, as JSON), and CSV files that follow them.

A schema says more than a header: which column is text, which holds categories, which may be empty. A file with its schema is rewritten with our
column names: the first `textual` column becomes the text, all `categorical` ones besides become categories, and `IMPRESSION` becomes events of
the type `impression`, where the settings say which events are positive ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec import Meta

from tastemaker.schema.columns import EVENT_ALIASES, ITEM_ALIASES, USER_ALIASES, Columns, alias_key
from tastemaker.schema.errors import InputError

KINDS = {"interactions": "events", "items": "items", "users": "users"}
IMPRESSION = "IMPRESSION"
_TYPES = ("null", "string", "float", "double", "int", "long", "boolean")
_ALIASES = {"events": EVENT_ALIASES, "items": ITEM_ALIASES, "users": USER_ALIASES}


class Field(msgspec.Struct, frozen=True):
    """A column of a schema: its types (one, or several with `null`), and what it is for."""

    name: str
    type: str | list[str]
    categorical: bool = False
    textual: bool = False

    @property
    def types(self) -> list[str]:
        """The types that its values may have."""
        return [self.type] if isinstance(self.type, str) else self.type


class AvroSchema(msgspec.Struct, frozen=True):
    """A schema of one kind of file."""

    name: str
    fields: Annotated[list[Field], Meta(min_length=1)]

    @property
    def kind(self) -> str:
        """`events`, `items` or `users`."""
        return KINDS[self.name.lower()]


def read_schema(path: Path) -> AvroSchema:
    """Reads a schema.

    Raises:
        InputError: it is none of Personalize's.
    """
    try:
        table: Any = msgspec.json.decode(path.read_bytes())
        inner = table.get("schema", table) if isinstance(table, dict) else table
        schema = msgspec.convert(msgspec.json.decode(inner) if isinstance(inner, str) else inner, AvroSchema)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give the path of a schema as JSON.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no Avro schema as JSON ({error}).") from None
    if schema.name.lower() not in KINDS:
        raise InputError(f"{path} is a schema of {schema.name!r}; expected Interactions, Items or Users.")
    for one in schema.fields:
        odd = [name for name in one.types if name not in _TYPES]
        if odd:
            raise InputError(f"{path}: {one.name} has the type {odd[0]!r}; expected one of {', '.join(_TYPES)}.")
    return schema


def rewrite(path: Path, schema: AvroSchema, folder: Path, impressions: bool) -> tuple[Path, list[str]]:
    """A CSV file under our column names, as Parquet, with its rows in order; and sentences for the report.

    Raises:
        InputError: a column of the schema is missing, or one that may not be empty is.
    """
    try:
        scan = pl.scan_csv(path, infer_schema=False)
        there = scan.collect_schema().names()
        missing = [one.name for one in schema.fields if one.name not in there]
        if missing:
            raise InputError(f"{path} has no column {', '.join(missing)}, which its schema names. Found: {', '.join(there)}.")
        _check_filled(path, schema, scan)
        table, told = _renamed(path, schema, scan, impressions)
        made = folder / f"{path.name}.parquet"
        table.sink_parquet(made)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} can't be read to its end ({error}). Is it complete? Nothing of it was kept.") from None
    return made, told


def _check_filled(path: Path, schema: AvroSchema, scan: pl.LazyFrame) -> None:
    needed = [one.name for one in schema.fields if "null" not in one.types]
    empty = scan.select(pl.col(needed).is_null().sum()).collect(engine="streaming").row(0, named=True)
    for name, count in empty.items():
        if count:
            raise InputError(
                f"{path}: {name} is empty in {count:,} rows, and its schema says that it never is. Nothing of it was kept."
            )


def _renamed(path: Path, schema: AvroSchema, scan: pl.LazyFrame, impressions: bool) -> tuple[pl.LazyFrame, list[str]]:
    kind, aliases = schema.kind, _ALIASES[schema.kind]
    names = {one.name: aliases[alias_key(one.name)] for one in schema.fields if alias_key(one.name) in aliases}
    names = {name: column for name, column in names.items() if list(names.values()).index(column) == list(names).index(name)}
    told = []
    if kind == "items":
        free = [one for one in schema.fields if one.name not in names or names[one.name] in (Columns.TEXT, Columns.CATEGORIES)]
        textual = [one.name for one in free if one.textual]
        if textual and Columns.TEXT not in names.values():
            names[textual[0]] = Columns.TEXT
        sorts = [one.name for one in free if one.categorical and names.get(one.name) != Columns.TEXT]
        if sorts:
            names = {name: column for name, column in names.items() if column != Columns.CATEGORIES}
            joined = pl.concat_str([pl.col(name) for name in sorts], separator="|", ignore_nulls=True).alias(Columns.CATEGORIES)
            scan = scan.with_columns(joined)
            told.append(f"{path.name}: categories are {', '.join(sorts)}, by the schema")
        told += [f"{path.name}: the text is {name}, by the schema" for name, column in names.items() if column == Columns.TEXT]
    table = scan.rename(names)
    shown = [one.name for one in schema.fields if alias_key(one.name) == alias_key(IMPRESSION)]
    if kind == "events" and shown:
        table = table.drop(shown)
        if impressions:
            table = pl.concat([table, _shown(scan, shown[0], names)], how="diagonal")
            told.append(f"{path.name}: what {shown[0]} lists are events of the type {IMPRESSION.lower()}")
        else:
            told.append(f"{path.name}: {shown[0]} was left out, because without data.positive every event counts as a positive one")
    return table, told


def _shown(scan: pl.LazyFrame, column: str, names: dict[str, str]) -> pl.LazyFrame:
    """A row for each item that a row's impression lists."""
    lists = (
        scan.rename(names).filter(pl.col(column).is_not_null()).with_columns(pl.col(column).str.split("|").alias(Columns.ITEM_ID))
    )
    kept = [name for name in (Columns.USER_ID, Columns.TIMESTAMP, Columns.REQUEST_ID, Columns.SESSION_ID) if name in names.values()]
    rows = lists.select(*kept, Columns.ITEM_ID).explode(Columns.ITEM_ID).filter(pl.col(Columns.ITEM_ID).str.len_chars() > 0)
    return rows.with_columns(pl.lit(IMPRESSION.lower()).alias(Columns.EVENT_TYPE))
