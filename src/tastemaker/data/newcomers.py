"""What is asked for people of whom little is known: what comes next after no, one, two, … events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import Sequences, build
from tastemaker.data.split import Split
from tastemaker.schema.columns import Columns

NUMBERS = (0, 1, 2, 3, 5, 10)
FEWEST = 50
"""People who came after the cut; fewer, and people of before are asked as if only their latest events were known."""


@dataclass(frozen=True)
class FirstEvents:
    """Questions by how many events are known.

    Attributes:
        rows: names of the questions. numbers: events known, int64 [R]. users: who asks.
        histories: item indices, oldest first.
        targets: user_id (the question's name), item_id.
        words: who was asked, in plain words.
    """

    rows: list[str]
    numbers: NDArray[np.int64]
    users: list[str]
    histories: list[NDArray[np.int32]]
    targets: pl.DataFrame
    words: str


def first_events(part: Split, whole: Dataset, item_ids: list[str], most: int, seed: int) -> FirstEvents:
    """The first events of people who came after the cut, at most `most` people chosen by the seed.

    Where too few came, people of before are asked for their first held-back item as if only their latest events were known; their other events have
    been learned from, so that this is a kinder question.
    """
    early = set(part.train.events[Columns.USER_ID].unique().to_list())
    sequences = build(whole, item_ids)
    fresh = [row for row, user in enumerate(sequences.user_ids) if user not in early and len(sequences.history(row)) > 1]
    if len(fresh) >= FEWEST:
        return _newcomers(sequences, _some(fresh, most, seed))
    return _pretended(part, item_ids, most, seed)


def _newcomers(sequences: Sequences, people: list[int]) -> FirstEvents:
    asked = [
        (number, sequences.user_ids[row], history[:number], int(history[number]))
        for number in NUMBERS
        for row in people
        if len(history := sequences.history(row)) > number and history[number] not in history[:number]
    ]
    words = (
        f"{len(people):,} people who came after the model was frozen, each asked for the next event after so many of the first ones"
    )
    return _made(asked, sequences.item_ids, words)


def _pretended(part: Split, item_ids: list[str], most: int, seed: int) -> FirstEvents:
    sequences = build(part.train, item_ids)
    row_of = {user: row for row, user in enumerate(sequences.user_ids)}
    number_of = {item: number for number, item in enumerate(item_ids)}
    first = part.test.unique(Columns.USER_ID, keep="first", maintain_order=True)
    wanted = dict(first.select(Columns.USER_ID, Columns.ITEM_ID).iter_rows())
    known = [row_of[user] for user in wanted if user in row_of]
    people = _some(known, most, seed)
    asked = [
        (number, user, history[len(history) - number :], number_of[wanted[user]])
        for number in NUMBERS
        for row in people
        if len(history := sequences.history(row)) >= number and (user := sequences.user_ids[row])
    ]
    words = f"{len(people):,} people asked for their first held-back item as if only so many of their latest events were known"
    return _made(asked, item_ids, words)


def _some(rows: list[int], most: int, seed: int) -> list[int]:
    if len(rows) <= most:
        return rows
    return sorted(int(row) for row in np.random.default_rng(seed).permutation(rows)[:most])


def _made(asked: list[tuple[int, str, NDArray[np.int32], int]], item_ids: list[str], words: str) -> FirstEvents:
    rows = [f"{user}\x1f{number}" for number, user, _, _ in asked]
    items = [item_ids[target] for _, _, _, target in asked]
    targets = pl.DataFrame(
        {Columns.USER_ID: rows, Columns.ITEM_ID: items}, schema={Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String}
    )
    numbers = np.array([number for number, _, _, _ in asked], dtype=np.int64)
    return FirstEvents(rows, numbers, [user for _, user, _, _ in asked], [history for _, _, history, _ in asked], targets, words)
