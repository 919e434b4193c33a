"""Files of many kinds as one stream of tables of text, chunk by chunk, so that memory stays bounded whatever their size."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import polars as pl
import zstandard
from numpy.typing import NDArray

from tastemaker.data.delimited import Lines, Reject, read_lines
from tastemaker.schema.columns import alias_key
from tastemaker.schema.errors import InputError

CHUNK_ROWS = 500_000
MOST_COLUMNS = 2_000
"""A file with more is no table of events or items but its transpose, or damaged."""
RECBOLE = (".inter", ".item", ".user", ".kg", ".link")


@dataclass
class Chunk:
    """Some rows of a file.

    Attributes:
        table: columns under their canonical names, values as text; numbers and times of a typed file may keep their types.
        lines: 1-based line, or row, number of each row, int64.
        rejects: rows of this stretch of the file that have no place in the table.
        types: what each column of the file holds (`text`, `number`, `time`, `list`, `nothing`), where the file says so.
        whole_header: whether columns that are not in this chunk are not in the file.
    """

    table: pl.DataFrame
    lines: NDArray[np.int64]
    rejects: list[Reject] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    whole_header: bool = True


def expand(patterns: Iterable[str | Path]) -> list[Path]:
    """Paths and globs as a sorted list of files.

    Raises:
        InputError: a pattern matches no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.is_file() else sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))
        files = [match for match in matches if match.is_file()]
        if not files:
            raise InputError(f"{pattern}: no such file. Give the path of a file or a glob such as 'events-*.csv.gz'.")
        found += [file for file in files if file not in found]
    return found


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_chunks(
    path: Path, aliases: dict[str, str], needed: tuple[str, ...], keep_numbers: tuple[str, ...] = ()
) -> Iterator[Chunk]:
    """Reads CSV, TSV, JSON lines (plain, gzip, zstd), Parquet or a RecBole atomic file.

    Args:
        path: the file; its ending tells the format, with `.gz` or `.zst` behind it if compressed.
        aliases: `alias_key(name)` to canonical name.
        needed: canonical columns without which the file makes no sense.
        keep_numbers: canonical columns that stay numbers or times where the file has them so, or a block of it all numbers; all others become text.

    Raises:
        InputError: an unknown format, a missing column or a damaged file.
    """
    ending = _ending(path)
    try:
        if ending == ".parquet":
            yield from _parquet(path, aliases, needed, keep_numbers)
        elif ending in (".jsonl", ".json", ".ndjson"):
            yield from _json_lines(path, aliases, needed)
        elif ending in (".csv", ".tsv", ".txt", *RECBOLE):
            yield from _delimited(path, ending, aliases, needed, keep_numbers)
        else:
            raise InputError(
                f"{path}: the ending {ending or '(none)'} is unknown. Expected .csv, .tsv, .jsonl, .parquet or a RecBole "
                "file (.inter, .item, .user, .kg), with .gz or .zst behind it if compressed."
            )
    except (OSError, EOFError, zstandard.ZstdError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} can't be read to its end ({error}). Is it complete? Nothing of it was kept.") from None


def rename(names: Iterable[str], aliases: dict[str, str], path: Path, needed: tuple[str, ...]) -> dict[str, str]:
    """Which column of a file stands for which canonical name; other columns keep theirs.

    Raises:
        InputError: a needed column is missing; the message lists what was found and what would have been understood.
    """
    chosen: dict[str, str] = {}
    names = list(names)
    if len(names) > MOST_COLUMNS:
        raise InputError(
            f"{path} has {len(names):,} columns: expected at most {MOST_COLUMNS:,}, one row an event or item. Is it transposed, or are "
            "its rows written on one line? Write one row a line."
        )
    exact = [name for name in names if aliases.get(alias_key(name)) == name.split(":")[0]]
    for name in [*exact, *names]:
        canonical = aliases.get(alias_key(name))
        if name not in chosen and canonical and canonical not in chosen.values():
            chosen[name] = canonical
    missing = [name for name in needed if name not in chosen.values()]
    if missing:
        known = sorted(key for key, name in aliases.items() if name in missing)
        raise InputError(
            f"{path}: no column for {', '.join(missing)}. Found: {', '.join(names)}. "
            f"Rename one of them; understood are (whatever their case): {', '.join(known)}."
        )
    for name in names:
        plain = name.split(":")[0] if path.suffix in RECBOLE else name
        chosen.setdefault(name, plain if plain not in chosen.values() else f"{plain}_")
    return {name: chosen[name] for name in names}


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".zst", ".zstd")), "")


def open_bytes(path: Path) -> BinaryIO:
    """A file's bytes, unpacked where its ending says that it is compressed."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix.lower() in (".zst", ".zstd"):
        return cast(BinaryIO, io.BufferedReader(zstandard.open(path, "rb")))
    return path.open("rb")


def _delimited(
    path: Path, ending: str, aliases: dict[str, str], needed: tuple[str, ...], keep_numbers: tuple[str, ...]
) -> Iterator[Chunk]:
    with closing(open_bytes(path)) as raw:
        lines = Lines(raw, path, tabs=ending in (".tsv", *RECBOLE), quotes=ending not in RECBOLE)
        columns = list(rename(lines.names, aliases, path, needed).values())
        for table, numbers, rejects in read_lines(lines, columns, keep_numbers):
            yield Chunk(table, numbers, rejects, {name: "number" for name in keep_numbers if table.schema.get(name) == pl.Float64})


def _json_lines(path: Path, aliases: dict[str, str], needed: tuple[str, ...]) -> Iterator[Chunk]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    names: dict[str, str] = {}
    with closing(open_bytes(path)) as raw:
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        rejects: list[Reject] = []
        for number, line in enumerate(raw, 1):
            if not line.strip():
                continue
            try:
                row = decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                rejects.append(Reject(number, f"no JSON object: {error}", line[:2_000].decode("utf-8", "replace")))
                continue
            if not names or len(row) > MOST_COLUMNS or any(key not in names for key in row):
                names = rename([*names, *(key for key in row if key not in names)], aliases, path, needed)
            rows.append({names[key]: value for key, value in row.items()})
            lines.append(number)
            if len(rows) >= CHUNK_ROWS // 20:
                yield Chunk(_from_objects(rows, names), np.array(lines, dtype=np.int64), rejects, whole_header=False)
                rows, lines, rejects = [], [], []
        if rows or rejects:
            yield Chunk(_from_objects(rows, names), np.array(lines, dtype=np.int64), rejects, whole_header=False)


def _from_objects(rows: list[dict[str, Any]], names: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {name: pl.Series(values=[_text(row.get(name)) for row in rows], dtype=pl.String) for name in names.values()}
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return msgspec.json.encode(value).decode()


def _parquet(path: Path, aliases: dict[str, str], needed: tuple[str, ...], keep_numbers: tuple[str, ...]) -> Iterator[Chunk]:
    scan = pl.scan_parquet(path)
    schema = scan.collect_schema()
    names = rename(schema.names(), aliases, path, needed)
    types = {names[name]: _kind(dtype) for name, dtype in schema.items()}
    begun = 1
    for batch in scan.rename({old: new for old, new in names.items() if old != new}).collect_batches(chunk_size=CHUNK_ROWS):
        whole = {name for name in keep_numbers if name in types and types[name] in ("number", "time")}
        table = batch.with_columns(_parquet_text(batch[name]) for name in batch.columns if name not in whole)
        table = table.with_columns(_seconds(batch[name]) for name in whole)
        yield Chunk(table, np.arange(begun, begun + table.height), [], types)
        begun += table.height
    if begun == 1:
        yield Chunk(pl.DataFrame(schema=dict.fromkeys(names.values(), pl.String)), np.zeros(0, dtype=np.int64), [], types)


def _kind(dtype: pl.DataType) -> str:
    """What a column holds, coarse enough that a file written by another program is of the same kind."""
    if dtype.is_nested():
        return "list"
    if dtype.is_temporal():
        return "time"
    return "number" if dtype.is_numeric() else "nothing" if dtype == pl.Null else "text"


def _seconds(column: pl.Series) -> pl.Series:
    """A column of numbers or times as numbers; a float32 as the number that it is written as."""
    if isinstance(column.dtype, pl.Datetime | pl.Date):
        return (column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6).alias(column.name)
    if column.dtype == pl.Float32 or column.dtype.is_decimal() or column.dtype.is_temporal():
        return _parquet_text(column)
    return column.cast(pl.Float64)


def _parquet_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime | pl.Date):
        return (column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6).cast(pl.String).alias(column.name)
    if column.dtype.is_nested():
        values = [None if cell is None else _text(cell) for cell in column.to_list()]
        return pl.Series(column.name, values, dtype=pl.String)
    if column.dtype.is_float() and bool((column.is_null() | (column == column.round())).all()):
        integers = column.cast(pl.Int64, strict=False)
        return (
            pl.select(pl.coalesce(pl.lit(integers).cast(pl.String), pl.lit(column).cast(pl.String))).to_series().alias(column.name)
        )
    return column.cast(pl.String)
