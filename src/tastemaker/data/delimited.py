"""Delimited text, in blocks: a column reader where every line says one row plainly, Python's own reader line by line where it does not.

A block is plain where it holds no quotation mark (or quoting is off) and ends its lines alike; then a line is a row, the separators of every
line are counted, and only lines with the wrong number of fields, or with bytes that are no UTF-8, go the slow way. Line numbers and counts
are the same on both roads. It must never know what a column means.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.errors import InputError

BLOCK_BYTES = 1 << 24
LONGEST_LINE = 1 << 26
WRONG_ENCODING = "\ufffd\ufffd"
"""Put before a text whose bytes were no UTF-8; `clean` takes it away and counts the row."""
csv.field_size_limit(min(sys.maxsize, LONGEST_LINE))


class Reject(NamedTuple):
    """One row that could not be read or was refused: where it stood, why, and what it said."""

    line: int
    reason: str
    row: str


Rows = tuple[pl.DataFrame, NDArray[np.int64], list[Reject]]


class Lines:
    """The header of a delimited file, then its whole lines in blocks.

    Attributes:
        names: column names of the first line.
        separator: the mark between fields.
        quotes: whether quotation marks are more than letters.
        line: number of lines given so far.
    """

    def __init__(self, raw: BinaryIO, path: Path, tabs: bool, quotes: bool) -> None:
        """Reads the first line.

        Raises:
            InputError: the file is empty or its first line has no end in sight.
        """
        self._raw, self._path, self._rest = raw, path, b""
        self.quotes = quotes
        head = raw.readline(LONGEST_LINE)
        if len(head) == LONGEST_LINE:
            raise InputError(
                f"{path}: the first line has more than {LONGEST_LINE >> 20} MiB. Expected column names, then one row a line."
            )
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
            raise InputError(
                f"{path}: the first line is UTF-16 or no text at all. Expected UTF-8; save or convert the file as UTF-8."
            )
        text, _, rest = head.decode("utf-8-sig", "surrogateescape").partition("\r")
        if rest.strip("\n"):  # lines end with \r alone
            self._rest = rest.encode("utf-8", "surrogateescape")
        self.separator = "\t" if tabs else _separator(text)
        self.names: list[str] = next(csv.reader([text], **self.options), [])
        if not self.names:
            raise InputError(f"{path} is empty: expected a first line with column names.")
        self.line = 1

    @property
    def options(self) -> dict[str, Any]:
        """How Python's reader splits a line."""
        return {"delimiter": self.separator, "quoting": csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE}

    def block(self) -> bytes:
        """The next whole lines, about `BLOCK_BYTES` of them; empty at the end of the file.

        Raises:
            InputError: a line has no end in sight.
        """
        pieces = [self._rest]
        while piece := self._raw.read(BLOCK_BYTES):
            cut = piece.rfind(b"\n") + 1
            if cut:
                self._rest = piece[cut:]
                return b"".join([*pieces, piece[:cut]])
            pieces.append(piece)
            if sum(map(len, pieces)) > LONGEST_LINE and b"\r" not in piece:
                raise InputError(
                    f"{self._path}: a line after line {self.line:,} has more than {LONGEST_LINE >> 20} MiB. Is it a table?"
                )
        self._rest = b""
        return b"".join(pieces)


def read_lines(lines: Lines, columns: list[str], numbers: Sequence[str] = ()) -> Iterator[Rows]:
    """Rows as columns of text, the line where each ended, and the lines that are no rows.

    Args:
        lines: a file whose header was read. columns: names of the columns.
        numbers: columns that become float64 in blocks where all their cells are numbers or empty, which is read much faster than text.
    """
    typed = {name: pl.Float64() for name in columns if name in numbers}
    while block := lines.block():
        quoted = lines.quotes and b'"' in block
        if len(columns) > 1 and not quoted and b"\0" not in block and block.count(b"\r") == block.count(b"\r\n"):
            rows = _plain(lines, block.replace(b"\r\n", b"\n"), columns, typed)
            typed = {name: kind for name, kind in typed.items() if rows[0].schema[name] == kind}
            yield rows
        else:
            yield _read_rows(lines, block, columns)


def _plain(lines: Lines, block: bytes, columns: list[str], typed: dict[str, pl.Float64]) -> Rows:
    """A block in which a line is a row: the good lines at once, the odd ones one by one."""
    if not block.endswith(b"\n"):
        block += b"\n"
    letters = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    odd = _odd(ends, np.flatnonzero(letters == ord(lines.separator)), len(columns) - 1)
    if not _is_utf8(block):
        odd[np.searchsorted(ends, np.flatnonzero(letters >= 0x80))] = True
    numbers = lines.line + 1 + np.arange(len(ends), dtype=np.int64)
    lines.line += len(ends)
    if not odd.any():
        return _typed(block, lines.separator, columns, typed), numbers, []
    begins = np.concatenate([[0], ends[:-1] + 1])
    places = np.flatnonzero(odd)
    cut = [0, *ends[places] + 1]
    good = b"".join(block[a:b] for a, b in zip(cut, [*begins[places], len(block)], strict=True))
    said = [(int(numbers[place]), block[begins[place] : ends[place]]) for place in places.tolist()]
    table, odd_numbers, rejects = _one_by_one(said, lines, columns)
    numbers = np.concatenate([numbers[~odd], odd_numbers])
    if not len(odd_numbers):
        table = _typed(good, lines.separator, columns, typed)
    else:
        table = pl.concat([_parsed(good, lines.separator, columns), table])
        order = np.argsort(numbers)
        table, numbers = table[order], numbers[order]
    return table, numbers, rejects


def _odd(ends: NDArray[np.int64], marks: NDArray[np.int64], expected: int) -> NDArray[np.bool_]:
    """Lines with another number of separators than expected."""
    if len(marks) == expected * len(ends):
        table = marks.reshape(-1, expected)
        if (table[:, -1] < ends).all() and (table[1:, 0] > ends[:-1]).all():
            return np.zeros(len(ends), dtype=bool)
    fields: NDArray[np.int64] = np.diff(np.searchsorted(marks, ends), prepend=0)
    odd: NDArray[np.bool_] = fields != expected
    return odd


def _is_utf8(block: bytes) -> bool:
    try:
        return block.isascii() or bool(block.decode())
    except UnicodeDecodeError:
        return False


def _typed(block: bytes, separator: str, columns: list[str], typed: dict[str, pl.Float64]) -> pl.DataFrame:
    """Columns of text, and numbers where every cell is one."""
    if typed:
        try:
            return _parsed(block, separator, columns, typed)
        except pl.exceptions.ComputeError:
            pass
    return _parsed(block, separator, columns)


def _parsed(block: bytes, separator: str, columns: list[str], typed: dict[str, pl.Float64] | None = None) -> pl.DataFrame:
    if not block:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    schema = {name: (typed or {}).get(name, pl.String()) for name in columns}
    return pl.read_csv(block, has_header=False, schema=schema, separator=separator, quote_char=None, empty_string_is_null=False)


def _one_by_one(said: list[tuple[int, bytes]], lines: Lines, columns: list[str]) -> Rows:
    rows: list[list[str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for number, text in said:
        row = text.decode("utf-8", "surrogateescape").split(lines.separator) if text else []
        _sort(row, number, rows, numbers, rejects, lines.separator, len(columns))
    return _from_rows(rows, columns), np.array(numbers, dtype=np.int64), rejects


def _read_rows(lines: Lines, block: bytes, columns: list[str]) -> Rows:
    """A block by Python's reader; a quoted field that goes on in the next block is read to its end."""
    waiting: list[str] = []

    def more() -> Iterator[str]:
        text = block
        while text:
            waiting.extend(reversed(list(io.StringIO(text.decode("utf-8", "surrogateescape"), newline=""))))
            while waiting:
                lines.line += 1
                yield waiting.pop()
            text = lines.block()

    rows: list[list[str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    reader = csv.reader(more(), **lines.options)
    begun = False
    while waiting or not begun:
        begun = True
        try:
            row = next(reader, None)
        except csv.Error as error:
            rejects.append(Reject(lines.line, f"unreadable row: {error}", ""))
            continue
        if row is not None:
            _sort(row, lines.line, rows, numbers, rejects, lines.separator, len(columns))
    return _from_rows(rows, columns), np.array(numbers, dtype=np.int64), rejects


def _sort(
    row: list[str], line: int, rows: list[list[str]], numbers: list[int], rejects: list[Reject], separator: str, expected: int
) -> None:
    if len(row) == expected:
        rows.append(row)
        numbers.append(line)
    elif row:
        reason = f"{'too many' if len(row) > expected else 'too few'} fields"
        rejects.append(Reject(line, reason, separator.join(row)))


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


def readable(text: str) -> str:
    """A text whose bytes were no valid UTF-8, read as Windows-1252 and marked."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return WRONG_ENCODING + text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
