"""Two looks at a recommender for its report: how soon it serves a stranger, and what variety costs. Used by `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from tastemaker.data.dataset import Dataset
    from tastemaker.data.sequences import Sequences
    from tastemaker.data.split import Split
    from tastemaker.index.channels import Channels
    from tastemaker.schema.protocols import FusionModel, IntArray, QueryState
    from tastemaker.schema.settings import Settings

MOST_PEOPLE = 200
MOST_LISTS = 200
"""Questions of which the cost of variety is a mean."""
STRENGTHS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)

Profiles = Sequence[Mapping[str, Any] | None]
Answering = Callable[[Sequence["IntArray"], Profiles, int], Sequence["IntArray"]]
"""Histories, attributes of the askers, length of a list: to the items of each list."""


def profiles_of(users: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Attributes by user id."""
    import msgspec

    if not users.height:
        return {}
    return {user: msgspec.json.decode(extra) for user, extra in users.select("user_id", "extra").iter_rows() if extra}


def strangers(part: Split, whole: Dataset, train: Sequences, answering: Answering, settings: Settings) -> dict[str, Any] | None:
    """The curve of NDCG@10 after no, one, two, … events, beside popularity; None where nobody could be asked.

    Args:
        part, whole: the split and all of the data. train: the histories learned from, whose numbers `answering` speaks.
    """
    from tastemaker.data.newcomers import first_events
    from tastemaker.evaluation.curve import first_events_curve
    from tastemaker.training.baselines import popularity_floors, recommend

    ids = whole.item_ids()
    asked = first_events(part, whole, ids, MOST_PEOPLE, settings.train.seed)
    if len(asked.rows) < 2:
        return None
    histories = known(asked.histories, ids, train.item_ids)
    told = profiles_of(whole.users)
    ours = lists_of(asked.rows, answering(histories, [told.get(user) for user in asked.users], 10), train.item_ids)
    floors = {
        name: lists_of(asked.rows, recommend(scorer, histories, 10), train.item_ids)
        for name, scorer in popularity_floors(train, part.train.time_is_order)
    }
    return first_events_curve(ours, floors, asked.targets, asked.numbers, asked.words, settings.evaluation.bootstrap)


def variety(
    channels: Channels,
    fusion: FusionModel,
    states: Sequence[QueryState],
    wanted: Sequence[set[int]],
    categories: Sequence[Sequence[str]],
    depth: int,
) -> dict[str, Any]:
    """NDCG@10 and how unlike the items of a list are, for both ways and several strengths of diversity.

    Args:
        channels, fusion: what finds and scores candidates. states: who asks.
        wanted: item indices that came next, a set for each. categories: of each item index. depth: candidates of each channel.
    """
    import numpy as np

    from tastemaker.evaluation.frontier import WAYS, unlikeness
    from tastemaker.pipeline.rerank import diversify

    k, gains = 10, 1 / np.log2(np.arange(10) + 2.0)
    dials = [("none", 0.0), *((way, strength) for way in WAYS for strength in STRENGTHS)]
    sums = np.zeros((len(dials), 3))
    for state, right, found in zip(states, wanted, channels.candidates(states, depth), strict=True):
        scores, vectors = fusion.score(found, len(state.history)), channels.items.rows(found.items)
        ideal = float(gains[: len(right)].sum()) or 1.0
        for row, (way, strength) in enumerate(dials):
            places = diversify(scores, vectors, k, strength, "mmr" if way == "none" else way)
            items = found.items[places].tolist()
            hits = float(sum(gains[at] for at, item in enumerate(items) if item in right))
            met = {word for item in items for word in categories[item]}
            sums[row] += hits / ideal, unlikeness(vectors[places]), len(met)
    means = sums / max(len(states), 1)
    points = [
        {"by": way, "strength": strength, "NDCG@10": float(ndcg), "unlikeness": float(unlike), "categories": float(kinds)}
        for (way, strength), (ndcg, unlike, kinds) in zip(dials, means, strict=True)
    ]
    return {"k": k, "questions": len(states), "points": points}


def known(histories: Sequence[IntArray], whole: Sequence[str], train: Sequence[str]) -> list[IntArray]:
    """Histories in the numbers of those who learned from the earlier events; items that nothing named by then are left out."""
    import numpy as np

    number = {item: place for place, item in enumerate(train)}
    places = np.array([number.get(item, -1) for item in whole], dtype=np.int32)
    return [met[met >= 0] for met in (places[history] for history in histories)]


def lists_of(rows: Sequence[str], found: Sequence[IntArray], item_ids: Sequence[str]) -> pl.DataFrame:
    """Lists as a table: user_id (the question's name), item_id, rank."""
    import polars as pl

    flat = [(row, item_ids[item], place) for row, items in zip(rows, found, strict=True) for place, item in enumerate(items, 1)]
    return pl.DataFrame(flat, schema={"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64}, orient="row")
