"""Ranking metrics over the whole catalogue, one number a user, so that they can be compared user by user.

Every user of the test set counts: one without a list scores 0. A repeated item counts once; an item outside the catalogue keeps its place.
    HitRate@k   1 if a target is among the first k
    NDCG@k      sum of 1/log2(place + 1) over the targets among the first k, over the best possible sum (K. Järvelin and J. Kekäläinen, 2002)
    Recall@k    targets among the first k / targets
    MRR@k       1 / place of the first target among the first k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.schema.columns import Columns

_PLACE, _TARGETS = "_place", "_targets"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class PerUser:
    """Metrics of one recommender.

    Attributes:
        users: user ids in a fixed order.
        values: metric name to one number a user, float64 [U].
    """

    users: list[str]
    values: dict[str, Values]

    def means(self) -> dict[str, float]:
        """The mean of each metric; 0 where there is no user."""
        return {name: float(value.mean()) if len(value) else 0.0 for name, value in self.values.items()}


def per_user(lists: pl.DataFrame, targets: pl.DataFrame, ks: Sequence[int] = (10, 20)) -> PerUser:
    """HitRate, NDCG, Recall and MRR at each k for every user of `targets`.

    Args:
        lists: user_id, item_id, rank (1 is best), or score where there is no rank.
        targets: user_id, item_id, one row a target.
        ks: cut-offs.
    """
    placed = _placed(lists)
    wanted = targets.select(Columns.USER_ID, Columns.ITEM_ID).unique(maintain_order=True)
    users = wanted.group_by(Columns.USER_ID, maintain_order=True).len(_TARGETS)
    found = placed.join(wanted, on=[Columns.USER_ID, Columns.ITEM_ID], how="semi")
    count = users[_TARGETS].to_numpy()
    values: dict[str, Values] = {}
    for k in ks:
        place = pl.col(_PLACE)
        hit = (
            found.filter(place <= k)
            .group_by(Columns.USER_ID)
            .agg(dcg=(1 / (place + 1).log(2)).sum(), hits=pl.len(), first=place.min())
        )
        row = users.join(hit, on=Columns.USER_ID, how="left", maintain_order="left")
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        hits = row["hits"].fill_null(0).to_numpy()
        values[f"NDCG@{k}"] = row["dcg"].fill_null(0.0).to_numpy() / ideal[np.minimum(count, k)]
        values[f"HitRate@{k}"] = (hits > 0).astype(np.float64)
        values[f"Recall@{k}"] = hits / count
        values[f"MRR@{k}"] = (1 / row["first"]).fill_null(0.0).to_numpy()
    return PerUser(users[Columns.USER_ID].to_list(), values)


def beyond_accuracy(lists: pl.DataFrame, popularity: pl.DataFrame, n_items: int, k: int = 10) -> dict[str, float]:
    """Coverage, novelty and Gini of the first k places.

    Args:
        lists: user_id, item_id, rank.
        popularity: item_id, count: training events of each item.
        n_items: size of the catalogue.

    Returns:
        Coverage@k: share of the catalogue in some list. Novelty@k: mean self-information of a place, in bits, -log2 of the item's share of the
        training events (T. Zhou et al., 2010). Gini@k: 0 if every item of the catalogue is shown equally often, 1 if one item takes all places.
    """
    top = _placed(lists).filter(pl.col(_PLACE) <= k)
    shown = top.group_by(Columns.ITEM_ID).len("shown")
    counts = np.zeros(max(n_items, shown.height))
    counts[: shown.height] = shown["shown"].to_numpy()
    events = max(float(popularity["count"].sum()), 1.0)
    share = top.join(popularity, on=Columns.ITEM_ID, how="left")["count"].fill_null(0).to_numpy()
    novelty = float(np.mean(-np.log2((share + 1) / (events + n_items)))) if len(share) else 0.0
    return {f"Coverage@{k}": shown.height / n_items if n_items else 0.0, f"Novelty@{k}": novelty, f"Gini@{k}": gini(counts)}


def gini(counts: Values) -> float:
    """0 if all counts [n] are equal, towards 1 if one holds everything (C. Gini, 1912); 0 where there is nothing."""
    total, n = float(counts.sum()), len(counts)
    order = np.arange(1, n + 1)
    return float((2 * order - n - 1) @ np.sort(counts) / (n * total)) if total else 0.0


def _placed(lists: pl.DataFrame) -> pl.DataFrame:
    by, down = (Columns.RANK, False) if Columns.RANK in lists.columns else (Columns.SCORE, True)
    ordered = lists.sort(Columns.USER_ID, by, descending=[False, down], nulls_last=True, maintain_order=True)
    once = ordered.select(Columns.USER_ID, Columns.ITEM_ID).unique(
        [Columns.USER_ID, Columns.ITEM_ID], keep="first", maintain_order=True
    )
    return once.with_columns(pl.int_range(1, pl.len() + 1).over(Columns.USER_ID).alias(_PLACE))
