"""The catalogue: items, users and edges as they are now, and the order in which items changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from tastemaker.journal.stores import advance, transaction
from tastemaker.schema.columns import Columns
from tastemaker.schema.items import Item, ItemChange, User

_encode = msgspec.msgpack.Encoder().encode
_item = msgspec.msgpack.Decoder(Item).decode
_user = msgspec.msgpack.Decoder(User).decode

ITEM_SCHEMA: dict[str, Any] = {
    Columns.ITEM_ID: pl.String,
    Columns.TITLE: pl.String,
    Columns.TEXT: pl.String,
    Columns.CATEGORIES: pl.List(pl.String),
    Columns.IMAGE: pl.String,
    Columns.AUDIO: pl.String,
    Columns.PRICE: pl.Float64,
    Columns.CREATED_AT: pl.Float64,
    Columns.HIDDEN: pl.Boolean,
    "extra": pl.String,
}
"""Columns of the catalogue; `extra` is JSON text with the columns that the project does not know."""
EDGE_SCHEMA = {Columns.HEAD: pl.String, Columns.RELATION: pl.String, Columns.TAIL: pl.String, Columns.WEIGHT: pl.Float64}
_EDGE = list(EDGE_SCHEMA)
_PIECE = 200_000


class Catalogue:
    """Items, users and edges in the journal's database. Every change of an item has a number, growing by one."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def change(self) -> int:
        """The number of the last change."""
        return int(self._database.execute("SELECT value FROM counter WHERE name='change'").fetchone()[0])

    def put_items(
        self, items: Sequence[Item], vectors: Sequence[bytes | None] | None = None, vector_version: str | None = None
    ) -> tuple[int, int]:
        """Adds or replaces items durably; an item that is stored already exactly so is left alone.

        Args:
            items: the new state of each item.
            vectors: contents (float32 bytes): text vector and other signals, where the caller has computed them.
            vector_version: the encoders that computed them.

        Returns:
            How many were written and how many were the same as before.
        """
        written = 0
        with transaction(self._database) as database:
            change = advance(database, "change", 0)
            for place, item in enumerate(items):
                body = _encode(item)
                old = database.execute("SELECT body FROM item WHERE item_id=?", (item.item_id,)).fetchone()
                if vectors is None and old is not None and old[0] == body:
                    continue
                written += 1
                vector = vectors[place] if vectors is not None else None
                row = (item.item_id, body, change + written, vector, vector_version if vector else None)
                database.execute("INSERT OR REPLACE INTO item VALUES (?,?,?,?,?)", row)
            advance(database, "change", written)
        return written, len(items) - written

    def delete_items(self, item_ids: Sequence[str]) -> int:
        """Deletes items durably, leaving a mark for other processes; gives how many were there."""
        deleted = 0
        with transaction(self._database) as database:
            for item_id in item_ids:
                change = advance(database, "change", 1) + 1
                done = database.execute(
                    "UPDATE item SET body=NULL, vector=NULL, vector_version=NULL, change=? WHERE item_id=? AND body NOT NULL",
                    (change, item_id),
                )
                deleted += done.rowcount
        return deleted

    def item(self, item_id: str) -> Item | None:
        """One item, or None where it is unknown or deleted."""
        row = self._database.execute("SELECT body FROM item WHERE item_id=?", (item_id,)).fetchone()
        return _item(row[0]) if row and row[0] is not None else None

    def item_page(self, after: str, limit: int) -> list[Item]:
        """Items whose ids come after one, in the order of their ids."""
        sought = "SELECT body FROM item WHERE body NOT NULL AND item_id>? ORDER BY item_id LIMIT ?"
        return [_item(body) for (body,) in self._database.execute(sought, (after, limit))]

    def items(self, upto: int | None = None) -> pl.DataFrame:
        """All items as columns, in the order in which they were last written.

        Args:
            upto: a `change()` of before; items that were written or deleted since are left out, as what they were is gone. None: all.
        """
        rows, last = [], self.change() if upto is None else upto
        for (body,) in self._database.execute("SELECT body FROM item WHERE body NOT NULL AND change<=? ORDER BY change", (last,)):
            item = _item(body)
            row = msgspec.structs.asdict(item)
            row["extra"] = msgspec.json.encode(item.extra).decode() if item.extra else None
            rows.append(row)
        return pl.DataFrame(rows, schema=ITEM_SCHEMA)

    def item_changes(self, after: int, limit: int = 10_000) -> list[ItemChange]:
        """Changes after a number, oldest first; of several changes of one item only the last is told."""
        rows = self._database.execute(
            "SELECT change, item_id, body, vector, vector_version FROM item WHERE change>? ORDER BY change LIMIT ?",
            (after, limit),
        ).fetchall()
        return [
            ItemChange(change, item_id, None if body is None else _item(body), vector, version)
            for change, item_id, body, vector, version in rows
        ]

    def put_users(self, users: Sequence[User]) -> tuple[int, int]:
        """Adds or replaces users; gives how many were written and how many were the same as before."""
        written = 0
        with transaction(self._database) as database:
            for user in users:
                body = _encode(user)
                old = database.execute("SELECT body FROM user WHERE user_id=?", (user.user_id,)).fetchone()
                if old is None or old[0] != body:
                    database.execute("INSERT OR REPLACE INTO user VALUES (?,?)", (user.user_id, body))
                    written += 1
        return written, len(users) - written

    def delete_user(self, user_id: str) -> bool:
        """Deletes a user's attributes; True if there were any."""
        with transaction(self._database) as database:
            return database.execute("DELETE FROM user WHERE user_id=?", (user_id,)).rowcount > 0

    def user(self, user_id: str) -> User | None:
        """One user's attributes, or None."""
        row = self._database.execute("SELECT body FROM user WHERE user_id=?", (user_id,)).fetchone()
        return _user(row[0]) if row else None

    def user_page(self, after: str, limit: int) -> list[User]:
        """Users with attributes whose ids come after one, in the order of their ids."""
        sought = "SELECT body FROM user WHERE user_id>? ORDER BY user_id LIMIT ?"
        return [_user(body) for (body,) in self._database.execute(sought, (after, limit))]

    def users(self, limit: int | None = None) -> pl.DataFrame:
        """Users with attributes, as `user_id` and `extra` (JSON text)."""
        rows = self._database.execute("SELECT body FROM user ORDER BY user_id LIMIT ?", (-1 if limit is None else limit,))
        found = [_user(body) for (body,) in rows]
        return pl.DataFrame(
            {
                Columns.USER_ID: [user.user_id for user in found],
                "extra": [msgspec.json.encode(user.extra).decode() for user in found],
            },
            schema={Columns.USER_ID: pl.String, "extra": pl.String},
        )

    def put_edges(self, edges: pl.DataFrame) -> tuple[int, int]:
        """Adds edges (head, relation, tail, weight), or gives known ones another weight; a weight of 0 takes an edge away. The last of like rows counts.

        Returns:
            How many rows changed something, and how many changed nothing.
        """
        last = edges.select(_EDGE).unique(_EDGE[:3], keep="last", maintain_order=True)
        gone = last.filter(pl.col(Columns.WEIGHT) == 0)
        with transaction(self._database) as database:
            before = database.total_changes
            database.executemany("DELETE FROM edge WHERE head=? AND relation=? AND tail=?", gone.select(_EDGE[:3]).iter_rows())
            database.executemany(
                "INSERT INTO edge VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET weight=excluded.weight WHERE weight<>excluded.weight",
                last.filter(pl.col(Columns.WEIGHT) != 0).iter_rows(),
            )
            new = database.total_changes - before
        return new, edges.height - new

    def edges(self) -> pl.DataFrame:
        """All edges: head, relation, tail, weight."""
        rows = self._database.execute("SELECT head, relation, tail, weight FROM edge")
        parts = [pl.DataFrame(schema=EDGE_SCHEMA)]
        while found := rows.fetchmany(_PIECE):
            parts.append(pl.DataFrame(found, schema=EDGE_SCHEMA, orient="row"))
        return pl.concat(parts, rechunk=True)
