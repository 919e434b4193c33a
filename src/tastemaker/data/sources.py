"""Files of many kinds as one stream of tables of text, chunk by chunk, so that memory stays bounded whatever their size."""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import polars as pl
import zstandard

from tastemaker.schema.columns import alias_key
from tastemaker.schema.errors import InputError

CHUNK_ROWS = 200_000
RECBOLE = (".inter", ".item", ".user", ".kg", ".link")
_csv_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True)
class Reject:
    """One row that could not be read or was refused: where it stood, why, and what it said."""

    line: int
    reason: str
    row: str


@dataclass
class Chunk:
    """Some rows of a file.

    Attributes:
        table: columns under their canonical names, values as text (nested ones as they came).
        lines: 1-based line, or row, number of each row.
        rejects: rows of this stretch of the file that have no place in the table.
    """

    table: pl.DataFrame
    lines: list[int]
    rejects: list[Reject] = field(default_factory=list)


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


def read_chunks(path: Path, aliases: dict[str, str], needed: tuple[str, ...]) -> Iterator[Chunk]:
    """Reads CSV, TSV, JSON lines (plain, gzip, zstd), Parquet or a RecBole atomic file.

    Args:
        path: the file; its ending tells the format, with `.gz` or `.zst` behind it if compressed.
        aliases: `alias_key(name)` to canonical name.
        needed: canonical columns without which the file makes no sense.

    Raises:
        InputError: an unknown format, a missing column or a damaged file.
    """
    ending = _ending(path)
    try:
        if ending == ".parquet":
            yield from _parquet(path, aliases, needed)
        elif ending in (".jsonl", ".json", ".ndjson"):
            yield from _json_lines(path, aliases, needed)
        elif ending in (".csv", ".tsv", ".txt", *RECBOLE):
            yield from _delimited(path, ending, aliases, needed)
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


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix.lower() in (".zst", ".zstd"):
        return cast(BinaryIO, zstandard.open(path, "rb"))
    return path.open("rb")


def _delimited(path: Path, ending: str, aliases: dict[str, str], needed: tuple[str, ...]) -> Iterator[Chunk]:
    with closing(_open(path)) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        head = text.readline()
        separator = "\t" if ending in (".tsv", *RECBOLE) else _separator(head)
        options: dict[str, Any] = {"delimiter": separator}
        if ending in RECBOLE:
            options["quoting"] = csv.QUOTE_NONE
        names = next(csv.reader([head], **options), [])
        if not names:
            raise InputError(f"{path} is empty: expected a first line with column names.")
        columns = list(rename(names, aliases, path, needed).values())
        reader = csv.reader(text, **options)
        rows: list[list[str]] = []
        lines: list[int] = []
        rejects: list[Reject] = []
        while True:
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                rejects.append(Reject(reader.line_num + 1, f"unreadable row: {error}", ""))
                continue
            if len(row) == len(columns):
                rows.append(row)
                lines.append(reader.line_num + 1)
            elif row:
                reason = f"{'too many' if len(row) > len(columns) else 'too few'} fields"
                rejects.append(Reject(reader.line_num + 1, reason, separator.join(row)))
            if len(rows) >= CHUNK_ROWS:
                yield Chunk(_from_rows(rows, columns), lines, rejects)
                rows, lines, rejects = [], [], []
        if rows or rejects:
            yield Chunk(_from_rows(rows, columns), lines, rejects)


def _separator(head: str) -> str:
    counts = {mark: head.count(mark) for mark in (",", "\t", ";", "|")}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _from_rows(rows: list[list[str]], columns: list[str]) -> pl.DataFrame:
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pl.DataFrame({name: _column(values) for name, values in zip(columns, cells, strict=True)})


def _column(values: tuple[str, ...]) -> pl.Series:
    try:
        return pl.Series(values=values, dtype=pl.String)
    except UnicodeEncodeError:
        return pl.Series(values=[readable(value) for value in values], dtype=pl.String)


WRONG_ENCODING = "\ufffd\ufffd"
"""Put before a text whose bytes were no UTF-8; `clean` takes it away and counts the row."""


def readable(text: str) -> str:
    """A text whose bytes were no valid UTF-8, read as Windows-1252 and marked."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return WRONG_ENCODING + text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _json_lines(path: Path, aliases: dict[str, str], needed: tuple[str, ...]) -> Iterator[Chunk]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    names: dict[str, str] = {}
    with closing(_open(path)) as raw:
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
            if not names or any(key not in names for key in row):
                names = rename([*names, *(key for key in row if key not in names)], aliases, path, needed)
            rows.append({names[key]: value for key, value in row.items()})
            lines.append(number)
            if len(rows) >= CHUNK_ROWS // 4:
                yield Chunk(_from_objects(rows, names), lines, rejects)
                rows, lines, rejects = [], [], []
        if rows or rejects:
            yield Chunk(_from_objects(rows, names), lines, rejects)


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


def _parquet(path: Path, aliases: dict[str, str], needed: tuple[str, ...]) -> Iterator[Chunk]:
    scan = pl.scan_parquet(path)
    names = rename(scan.collect_schema().names(), aliases, path, needed)
    begun = 1
    for batch in scan.rename({old: new for old, new in names.items() if old != new}).collect_batches(chunk_size=CHUNK_ROWS):
        table = batch.with_columns(_parquet_text(batch[name]) for name in batch.columns)
        yield Chunk(table, list(range(begun, begun + table.height)))
        begun += table.height


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
