"""Rows of text as items and users."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from tastemaker.data.delimited import WRONG_ENCODING, Reject
from tastemaker.data.sources import Chunk
from tastemaker.data.times import TimeFormat, guess, parse
from tastemaker.schema.columns import ITEM_COLUMNS, Columns
from tastemaker.schema.items import Item, User
from tastemaker.schema.reports import ImportReport

ODD_TEXT = "text was no valid UTF-8 and was read as Windows-1252"
_NOTHING = ("", "nan", "none", "null", "(no genres listed)")


def items_from(chunk: Chunk, report: ImportReport) -> tuple[list[Item], list[Reject]]:
    """Items of a chunk, and the rows that can be none."""
    table = chunk.table
    created = _times(table, Columns.CREATED_AT)
    good, rejects = [], []
    for place, row in enumerate(table.iter_rows(named=True)):
        item_id = (row[Columns.ITEM_ID] or "").strip()
        line = int(chunk.lines[place])
        if not item_id:
            rejects.append(Reject(line, "missing item_id", _said(row)))
            continue
        if item_id.startswith(WRONG_ENCODING):
            rejects.append(Reject(line, "id is no valid UTF-8", _said(row)))
            continue
        row = {name: _decoded(value, report) for name, value in row.items()}
        good.append(
            Item(
                item_id=item_id,
                title=_full(row.get(Columns.TITLE)),
                text=_full(_joined(row.get(Columns.TEXT))),
                categories=categories(row.get(Columns.CATEGORIES)),
                image=_full(_first(row.get(Columns.IMAGE))),
                audio=_full(_first(row.get(Columns.AUDIO))),
                price=_number(row.get(Columns.PRICE)),
                created_at=created[place] if created is not None else None,
                hidden=(row.get(Columns.HIDDEN) or "").strip().lower() in ("1", "true", "yes"),
                extra={name: value for name, value in row.items() if name not in ITEM_COLUMNS and value not in (None, "")},
            )
        )
    return good, rejects


def users_from(chunk: Chunk, report: ImportReport) -> tuple[list[User], list[Reject]]:
    """Users of a chunk, and the rows that can be none."""
    good, rejects = [], []
    for line, row in zip(chunk.lines.tolist(), chunk.table.iter_rows(named=True), strict=True):
        user_id = (row[Columns.USER_ID] or "").strip()
        if not user_id or user_id.startswith(WRONG_ENCODING):
            rejects.append(Reject(line, "missing user_id" if not user_id else "id is no valid UTF-8", _said(row)))
            continue
        extra = {
            name: _decoded(value, report) for name, value in row.items() if name != Columns.USER_ID and value not in (None, "")
        }
        good.append(User(user_id=user_id, extra=extra))
    return good, rejects


def categories(text: str | None) -> list[str]:
    """Categories from a JSON list, or from text with `|`, `;`, `,` or, where there is none of these, blanks."""
    if text is None or text.strip().lower() in _NOTHING:
        return []
    if text.startswith("["):
        try:
            return _flat(msgspec.json.decode(text))
        except msgspec.DecodeError:
            text = text.strip("[]").replace("'", "")
    for mark in ("|", ";", ","):
        if mark in text:
            return [part.strip() for part in text.split(mark) if part.strip()]
    return text.split()


def _flat(value: Any) -> list[str]:
    if isinstance(value, list):
        return list(dict.fromkeys(word for part in value for word in _flat(part)))
    return [str(value)] if value not in (None, "") else []


def _times(table: pl.DataFrame, name: str) -> list[float | None] | None:
    if name not in table.columns:
        return None
    form: TimeFormat = guess(table[name])
    return parse(table[name], form).to_list()


def _decoded(text: str | None, report: ImportReport) -> str | None:
    if text is not None and text.startswith(WRONG_ENCODING):
        report.warnings[ODD_TEXT] = report.warnings.get(ODD_TEXT, 0) + 1
        return text.removeprefix(WRONG_ENCODING)
    return text


def _full(text: str | None) -> str | None:
    return text.strip() if text is not None and text.strip().lower() not in _NOTHING[:4] else None


def _joined(text: str | None) -> str | None:
    """A JSON list of paragraphs as one text."""
    if text is not None and text.startswith("["):
        try:
            return " ".join(_flat(msgspec.json.decode(text)))
        except msgspec.DecodeError:
            return text
    return text


def _first(text: str | None) -> str | None:
    if text is not None and text.startswith("["):
        try:
            found = _flat(msgspec.json.decode(text))
            return found[0] if found else None
        except msgspec.DecodeError:
            return text
    return text


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").strip().lstrip("$€£¥").replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None


def _said(row: dict[str, Any]) -> str:
    return msgspec.json.encode({name: value for name, value in row.items() if value is not None}).decode()
