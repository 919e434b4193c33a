"""Files in which other systems keep everything together, told apart and rewritten as files of items, users and events for the importer.

    gorse      the binary file of `GET /api/dump`: records of protocol buffers, each behind its length
    Metarank   JSON lines, whose `event` is `item`, `user`, `ranking` or `interaction`

What was shown in a ranking becomes events of the type `impression`, where the settings say which events are positive ones; else it would be taken
for such and is left out, which the report says.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tastemaker.data.sources import open_bytes
from tastemaker.schema.errors import InputError

KINDS = ("items", "users", "events")
IMPRESSION = "impression"
_STREAMS = {-1: "users", -2: "items", -3: "events"}
_LENGTH = struct.Struct("<q")
_LONGEST = 1 << 28
_encode = msgspec.json.Encoder().encode
Record = dict[str, Any]


@dataclass
class Split:
    """What a dump was rewritten to.

    Attributes:
        system: whose it is. files: a file of JSON lines for each kind that it has. told: sentences for the report.
    """

    system: str
    files: dict[str, Path] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def split_dump(path: Path, folder: Path, impressions: bool) -> Split:
    """Rewrites a dump.

    Args:
        path: the dump, plain or compressed. folder: where the new files go. impressions: keep what was shown.

    Raises:
        InputError: it is neither system's, or damaged; nothing of it is to be used.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give the path of a gorse dump or of Metarank's events.")
    try:
        with open_bytes(path) as raw:
            system = _system(raw.read(4_096).lstrip(), path)
        with open_bytes(path) as raw, _Files(path, folder) as files:
            split = Split(system)
            (_from_gorse if system == "gorse" else _from_metarank)(raw, path, files.write, impressions, split)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} can't be read to its end ({error}). Is it complete? Nothing of it was kept.") from None
    split.files = files.paths
    return split


class _Files:
    """The new files, opened when a kind first comes."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.paths: dict[str, Path] = {}
        self._stem, self._folder = path.name, folder
        self._open: dict[str, BinaryIO] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def write(self, kind: str, row: Record) -> None:
        if kind not in self._open:
            self.paths[kind] = self._folder / f"{self._stem}.{kind}.jsonl"
            self._open[kind] = self.paths[kind].open("wb")
        self._open[kind].write(_encode(row) + b"\n")


Write = Callable[[str, Record], None]


def _system(head: bytes, path: Path) -> str:
    if len(head) >= _LENGTH.size and _LENGTH.unpack_from(head)[0] in _STREAMS:
        return "gorse"
    if head.startswith(b"{") and b'"event"' in head:
        return "metarank"
    raise InputError(
        f"{path} is neither a gorse dump (GET /api/dump) nor a file of Metarank events (JSON lines with `event`). Import other files with "
        "--events, --items and --users."
    )


def _from_gorse(raw: BinaryIO, path: Path, write: Write, impressions: bool, split: Split) -> None:
    kind = ""
    while True:
        head = raw.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise EOFError("its end mark is missing")
        size = _LENGTH.unpack(head)[0]
        if size == 0:
            return
        if size < 0:
            if size not in _STREAMS:
                raise InputError(f"{path} holds the unknown mark {size}. Is it a dump of another version? Nothing of it was kept.")
            kind = _STREAMS[size]
            continue
        body = raw.read(size) if size <= _LONGEST else b""
        if len(body) < size:
            raise EOFError("a record is cut off")
        try:
            write(kind, _GORSE[kind](_message(body)))
        except (struct.error, IndexError, KeyError, ValueError, msgspec.MsgspecError) as error:
            raise InputError(f"{path} holds a record of {kind} that can't be read ({error}). Nothing of it was kept.") from None


def _message(body: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by number: integers, floats (of 8 bytes) and bytes."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(body, at)
        elif wire == 1:
            value, at = struct.unpack_from("<d", body, at)[0], at + 8
        elif wire == 2:
            size, at = _varint(body, at)
            value, at = body[at : at + size], at + size
            if len(value) < size:
                raise ValueError("a field is cut off")
        elif wire == 5:
            value, at = struct.unpack_from("<f", body, at)[0], at + 4
        else:
            raise ValueError(f"wire type {wire}")
        found.setdefault(number, []).append(value)
    return found


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _text(message: dict[int, list[Any]], number: int) -> str:
    return str(message[number][-1].decode("utf-8", "replace")) if number in message else ""


def _seconds(message: dict[int, list[Any]], number: int) -> float | None:
    if number not in message:
        return None
    inner = _message(message[number][-1])
    seconds = inner.get(1, [0])[-1]
    seconds -= (1 << 64) if seconds >= 1 << 63 else 0
    return float(seconds) + inner.get(2, [0])[-1] / 1e9 if seconds > 0 else None  # year 1: not known


def _labels(message: dict[int, list[Any]], number: int) -> Any:
    text = message.get(number, [b""])[-1]
    return msgspec.json.decode(text) if text and text != b"null" else None


def _gorse_user(message: dict[int, list[Any]]) -> Record:
    labels, comment = _labels(message, 2), _text(message, 3)
    row: Record = {"user_id": _text(message, 1)}
    row |= labels if isinstance(labels, dict) and "user_id" not in labels else {} if labels is None else {"labels": labels}
    return row | ({"comment": comment} if comment else {})


def _gorse_item(message: dict[int, list[Any]]) -> Record:
    labels = _labels(message, 6)
    own = [name.decode("utf-8", "replace") for name in message.get(4, [])]
    row: Record = {
        "item_id": _text(message, 2),
        "text": _text(message, 7),
        "categories": list(dict.fromkeys([*own, *_words(labels)])),
    }
    row |= {"hidden": bool(message.get(3, [0])[-1]), "created_at": _seconds(message, 5)}
    return row | ({"Labels": labels} if labels is not None else {})


def _gorse_feedback(message: dict[int, list[Any]]) -> Record:
    row: Record = {"user_id": _text(message, 3), "item_id": _text(message, 4), "event_type": _text(message, 2)}
    row["timestamp"] = _seconds(message, 5)
    number = next((values[-1] for values in message.values() if isinstance(values[-1], float)), None)  # later versions have a value
    row["value"] = number or None
    comment = _text(message, 6)
    return row | ({"context": {"comment": comment}} if comment else {})


_GORSE: dict[str, Callable[[dict[int, list[Any]]], Record]] = {
    "users": _gorse_user,
    "items": _gorse_item,
    "events": _gorse_feedback,
}


def _words(labels: Any) -> list[str]:
    """All texts in nested labels."""
    if isinstance(labels, str):
        return [labels]
    parts = labels.values() if isinstance(labels, dict) else labels if isinstance(labels, list) else ()
    return [word for part in parts for word in _words(part)]


def _from_metarank(raw: BinaryIO, path: Path, write: Write, impressions: bool, split: Split) -> None:
    """Events in their order; items and users at the end, each with the last value of every field."""
    items: dict[str, Record] = {}
    users: dict[str, Record] = {}
    shown = 0
    for number, row in _lines(raw, path):
        kind = row.get("event")
        try:
            if kind in ("item", "metadata"):
                items.setdefault(row["item"], {"item_id": row["item"]}).update(_fields(row))
            elif kind == "user":
                users.setdefault(row["user"], {"user_id": row["user"]}).update(_fields(row))
            elif kind == "interaction":
                write("events", _interaction(row))
            elif kind == "ranking":
                places = row.get("items") or []
                shown += len(places)
                for place, one in enumerate(places if impressions else ()):
                    write("events", _shown(row, place, one))
            else:
                raise InputError(f"event is {kind!r}")
        except (KeyError, TypeError, InputError) as error:
            raise InputError(
                f"{path}, line {number}: no event of Metarank's ({error}). Expected item, user, ranking or interaction with their fields. "
                "Nothing of the file was kept."
            ) from None
    for row in items.values():
        write("items", row)
    for row in users.values():
        write("users", row)
    if shown and not impressions:
        split.told.append(
            f"{path.name}: {shown:,} shown items were left out, because without data.positive every event counts as a positive one. Set it, "
            "and import again to have them"
        )


def _lines(raw: BinaryIO, path: Path) -> Iterator[tuple[int, Record]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(raw, 1):
        if line.strip():
            try:
                yield number, decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: no JSON object ({error}). Nothing of the file was kept.") from None


def _fields(row: Record) -> Record:
    return {one["name"]: one["value"] for one in row.get("fields") or [] if one["name"] not in ("item_id", "user_id")}


def _who(row: Record) -> Record:
    user = row.get("user") or row.get("session")
    if not user:
        raise InputError("neither user nor session")
    return {"user_id": user, "timestamp": row["timestamp"], "session_id": row.get("session")}


def _interaction(row: Record) -> Record:
    fields = _fields(row)
    event: Record = {**_who(row), "item_id": row["item"], "event_type": row["type"], "request_id": row.get("ranking")}
    event |= {"event_id": row.get("id"), "value": None, "position": None}
    return event | ({"context": fields} if fields else {})


def _shown(row: Record, place: int, one: Record) -> Record:
    event: Record = {**_who(row), "item_id": one["id"], "event_type": IMPRESSION, "request_id": row.get("id")}
    return event | {"event_id": f"{row['id']}-{place}" if row.get("id") else None, "value": one.get("relevancy"), "position": place}
