"""Why not item X: the stage of the road at which it stopped, and by which rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from tastemaker.pipeline.engine import Found
from tastemaker.pipeline.filters import compile_filter
from tastemaker.pipeline.rerank import order
from tastemaker.schema.protocols import IntArray, QueryState
from tastemaker.schema.queries import RecommendQuery
from tastemaker.serving.wire import Live


def stopped(
    live: Live, place: int, question: RecommendQuery, history: IntArray, state: QueryState, found: Found | None
) -> dict[str, Any] | None:
    """Where an item left the road of a question; None: it stands in the list.

    Args:
        place: its index. question: what was asked. history: item indices that the asker has met, the session's among them.
        found: the list; None: nothing was looked for.

    Returns:
        `stage` (filter, source, score, select), `rule`, and what else tells more: `channels` with the item's place in each and where they were cut,
        `rank` and `score` among all candidates with the `last` score of the list.
    """
    if found is not None and place in found.items:
        return None
    barred = _barred_by(live, place, question, history)
    if barred is not None:
        return {"stage": "filter", "rule": barred}
    if found is None or found.candidates is None:
        return {"stage": "select", "rule": f"the list has {question.k} places"}
    at = np.flatnonzero(found.candidates == place)
    if not len(at):
        return {"stage": "source", "rule": "no source found it among its best", "channels": _ranks(live, place, state, question.k)}
    scores = found.candidate_scores
    told: dict[str, Any] = {}
    if scores is not None:
        rank = int(np.flatnonzero(order(scores, len(scores)) == at[0])[0]) + 1
        told = {"rank": rank, "of": len(scores), "score": float(scores[at[0]])}
        told["last"] = float(found.scores[-1]) if len(found.scores) else None
    out = found.picked.left_out.get(int(at[0])) if found.picked is not None else None
    if out is not None:
        return {"stage": "select", "rule": out[0], **told}
    return {"stage": "score", "rule": f"{len(found.items)} places, and others scored higher", **told}


def _barred_by(live: Live, place: int, question: RecommendQuery, history: IntArray) -> str | None:
    row = live.state.rows[place]
    if row.get("deleted"):
        return "deleted"
    if row.get("hidden"):
        return "hidden"
    admitted = live.house.admitted
    if admitted is not None and not admitted(row):
        return "lists.filter of the service"
    if live.barred()[place]:
        return "not in the catalogue: only events name it"
    if row["item_id"] in question.exclude:
        return "exclude"
    if question.filter is not None and not compile_filter(question.filter)(row):
        return "filter" + _part(question.filter, row)
    return "seen" if place in history else None


def _part(spec: dict[str, Any], row: Any) -> str:
    """Which part of a filter that wants several things an item does not meet."""
    for number, one in enumerate(spec["all"] if isinstance(spec.get("all"), list) else []):
        if not compile_filter(one)(row):
            return f": all[{number}]"
    return ""


def _ranks(live: Live, place: int, state: QueryState, k: int) -> dict[str, dict[str, int]]:
    """The item's place in each channel's order of the whole catalogue, 1 is the top, and how many places were looked at."""
    n = live.channels.n_items
    told = live.channels.score_items(state, np.array([place], dtype=np.int32), n)
    cut = max(live.road.depth, k)
    return {name: {"rank": int(rank) + 1, "cut": cut} for name, rank in zip(told.channels, told.ranks[0].tolist(), strict=True)}
