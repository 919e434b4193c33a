"""What people searched for, and what they took of the answer: events whose context names the words of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError

MOST_LETTERS = 1_000
"""Of a search; what is pasted into a search box by mistake may be a book."""
_WORDS, _ITEM, _USER, _TEXT = "_words", "_item", "_user", "_text"


@dataclass(frozen=True)
class Searches:
    """Searches of a log, each with one item that was taken; in the order of the log.

    Attributes:
        texts: the different searches, blanks closed, in order of first appearance.
        numbers: which of them, int64 [S].
        items: what was taken, an index into the items asked for, int64 [S].
        users: who searched, an index into the users asked for, -1 for others, int64 [S].
        times: when it was taken, NaN where that is unknown, float64 [S].
    """

    texts: list[str]
    numbers: NDArray[np.int64]
    items: NDArray[np.int64]
    users: NDArray[np.int64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.numbers)


def searches(
    dataset: Dataset, user_ids: Sequence[str], item_ids: Sequence[str], field: str = "query", clicked: Sequence[str] = ("click",)
) -> Searches:
    """The searches of a log: positive events and clicks whose `context` has the words.

    A file's column of that name is part of the context after import. An event that only shows an item is none, whatever its context says.

    Args:
        dataset: its `events` are the positive ones; clicks are looked for in its whole `log`.
        user_ids, item_ids: what an index stands for; other items are left out.
        field: of the context. clicked: event types that say that an item was taken.

    Raises:
        SettingsError: a field that can't be the name of one.
    """
    if not field or "'" in field or "\\" in field:
        raise SettingsError(
            f"finetune.query_field is {field!r}; expected the name of a field of the events' context, such as query."
        )
    tables = [dataset.events]
    if dataset.log is not None:
        tables.append(dataset.log.filter(pl.col(Columns.EVENT_TYPE).is_in(list(clicked))))
    rows = pl.concat([_taken(table, field) for table in tables]).unique(maintain_order=True)
    rows = rows.join(_places(item_ids, Columns.ITEM_ID, _ITEM), on=Columns.ITEM_ID, maintain_order="left")
    rows = rows.join(_places(user_ids, Columns.USER_ID, _USER), on=Columns.USER_ID, how="left", maintain_order="left")
    texts = rows[_WORDS].unique(maintain_order=True)
    rows = rows.join(_places(texts, _WORDS, _TEXT), on=_WORDS, maintain_order="left")
    return Searches(
        texts.to_list(),
        rows[_TEXT].to_numpy(),
        rows[_ITEM].to_numpy(),
        rows[_USER].fill_null(-1).to_numpy(),
        rows[Columns.TIMESTAMP].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
    )


def _taken(table: pl.DataFrame, field: str) -> pl.DataFrame:
    """user_id, item_id, timestamp and the words, of the events that have some."""
    context = pl.col(Columns.CONTEXT) if Columns.CONTEXT in table.columns else pl.lit(None, dtype=pl.String)
    words = context.str.json_path_match(f"$['{field}']").str.slice(0, MOST_LETTERS).str.replace_all(r"\s+", " ").str.strip_chars()
    names = (Columns.USER_ID, Columns.ITEM_ID, pl.col(Columns.TIMESTAMP).cast(pl.Float64))
    return table.filter(context.is_not_null()).select(*names, words.alias(_WORDS)).filter(pl.col(_WORDS) != "")


def _places(names: Sequence[str] | pl.Series, name: str, place: str) -> pl.DataFrame:
    return pl.DataFrame({name: names, place: np.arange(len(names), dtype=np.int64)}, schema_overrides={name: pl.String})
