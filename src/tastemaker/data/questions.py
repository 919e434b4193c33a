"""What a recommender is asked in an evaluation: a history, and the item or items that came next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.dataset import Dataset
from tastemaker.data.sequences import build
from tastemaker.data.split import ROLLING, Split
from tastemaker.schema.columns import Columns

ROW = "row"


@dataclass(frozen=True)
class Questions:
    """Questions of one evaluation.

    Attributes:
        rows: names of the questions.
        users: who asks; several questions may be one user's.
        histories: item indices, oldest first, one array a question.
        targets: user_id (the question's name), item_id, cold.
        words: the protocol in plain words.
        times: when each is asked, float64 [Q]: the moment of the first target.
    """

    rows: list[str]
    users: list[str]
    histories: list[NDArray[np.int32]]
    targets: pl.DataFrame
    words: str
    times: NDArray[np.float64]


def questions(part: Split, whole: Dataset, item_ids: list[str], most: int, seed: int) -> Questions:
    """The questions of a split, at most `most` of them, chosen by the seed.

    A split in time is asked as a service would be: at every later event, with all that the user did before it, by a model that was frozen at the
    cut. Other splits are asked once a user.
    """
    if part.name in ROLLING:
        return _rolling(part, whole, item_ids, most, seed)
    users = part.test[Columns.USER_ID].unique(maintain_order=True)
    if users.len() > most:
        users = users.sample(most, seed=seed)
    sequences = build(part.train, item_ids)
    row_of = {user: row for row, user in enumerate(sequences.user_ids)}
    names = [user for user in users.to_list() if user in row_of]
    targets = part.test.filter(part.test[Columns.USER_ID].is_in(pl.Series(names, dtype=pl.String).implode()))
    histories = [sequences.history(row_of[user]) for user in names]
    return Questions(names, names, histories, targets, part.words, _moments(names, targets, whole))


def _moments(users: list[str], targets: pl.DataFrame, whole: Dataset) -> NDArray[np.float64]:
    """When each user first met one of his targets, float64 [Q]; NaN where the log has no times."""
    met = targets.join(whole.events, on=[Columns.USER_ID, Columns.ITEM_ID]).group_by(Columns.USER_ID)
    first = met.agg(pl.col(Columns.TIMESTAMP).cast(pl.Float64).min())
    asked = pl.DataFrame({Columns.USER_ID: users}, schema={Columns.USER_ID: pl.String})
    joined = asked.join(first, on=Columns.USER_ID, how="left", maintain_order="left")
    return joined[Columns.TIMESTAMP].fill_null(float("nan")).to_numpy()


def _rolling(part: Split, whole: Dataset, item_ids: list[str], most: int, seed: int) -> Questions:
    sequences = build(whole, item_ids)
    place = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths())
    learned = dict(part.train.events[Columns.USER_ID].value_counts().iter_rows())
    first = np.array([max(learned.get(user, 0), 1) for user in sequences.user_ids], dtype=np.int64)
    later = np.flatnonzero(place >= np.repeat(first, sequences.lengths()))
    total = len(later)
    if total > most:
        later = np.sort(np.random.default_rng(seed).permutation(later)[:most])
    warm = set(part.train.events[Columns.ITEM_ID].unique().to_list())
    owner = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    rows, users, histories, items, times = [], [], [], [], []
    for event in later.tolist():
        begin = int(sequences.offsets[owner[event]])
        history = sequences.items[begin:event]
        if sequences.items[event] in history:
            continue
        user = sequences.user_ids[owner[event]]
        rows.append(f"{user}\x1f{event - begin}")
        users.append(user)
        histories.append(history)
        items.append(item_ids[sequences.items[event]])
        times.append(sequences.times[event])
    cold = [item not in warm for item in items]
    schema = {Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String, Columns.COLD: pl.Boolean}
    targets = pl.DataFrame({Columns.USER_ID: rows, Columns.ITEM_ID: items, Columns.COLD: cold}, schema=schema)
    words = (
        f"{part.words}; the model is frozen there, and at {len(rows):,} of the {total:,} later events it is asked for what comes next, knowing "
        "what the user did until then"
    )
    return Questions(rows, users, histories, targets, words, np.array(times, dtype=np.float64))
