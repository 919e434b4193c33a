"""Why an item stands where it does in somebody's list, or why it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tastemaker.schema.protocols import Asker, FloatArray, QueryState
from tastemaker.schema.queries import ExplainQuery, RecommendQuery
from tastemaker.serving.why import stopped
from tastemaker.serving.wire import Live

if TYPE_CHECKING:
    from tastemaker.serving.answers import Answers


def explained(answers: Answers, live: Live, query: ExplainQuery, place: int) -> dict[str, Any]:
    """Why the item at a place of the catalogue stands where it does in a user's list: what channels, ranker, rules and features say of it."""
    history = live.state.history(query.user_id)
    state = live.query(history, Asker(query.user_id, answers.clock()))
    found = live.channels.score_items(state, np.array([place], dtype=np.int32), live.settings.fusion.depth)
    parts = live.road.fusion.parts(found, len(history))[0]
    ranker = live.ranker
    dropped = [
        name
        for name, holds in (
            ("hidden, deleted or against the service's filter", live.barred()[place]),
            ("seen", place in set(history.tolist())),
        )
        if holds
    ]
    listed, why_not = _in_list(answers, live, query, place, state)
    channels = {
        name: {"score": float(found.scores[0, at]), "rank": int(found.ranks[0, at]), "share": float(parts[at])}
        for at, name in enumerate(found.channels)
    }
    return {
        "item_id": query.item_id,
        "user_id": query.user_id,
        "score": float(live.road.fusion.score(found, len(history))[0]),
        "channels": channels,
        "in_candidates": bool((found.ranks < found.depth).any()) and not dropped,
        "dropped_by": dropped,
        "list": listed,
        "why_not": why_not,
        "effects": _effects(live, state, place),
        "fresh": live.state.fresh.why_not(place, answers.clock()) or "fresh",
        "ranker": None if ranker is None else {"orders": ranker.list.decides, "chances": _chances(live, state, place)},
        "connection": live.connections.to(history)(place) if live.connections is not None else None,
        "features": _told(live, query.user_id, query.item_id, answers.clock()),
        "model_version": live.version,
    }


def _in_list(
    answers: Answers, live: Live, query: ExplainQuery, place: int, state: QueryState
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Where the item stands in the user's list, what moved it, or what left it out; and the stage at which it stopped."""
    asked = msgspec.structs.replace(
        query.question or RecommendQuery(), user_id=query.user_id, target="items", explain=True,
        request_id=query.request_id or f"explain:{query.user_id}",
    )  # fmt: skip
    answer, found = answers.list_of(live, asked)
    history = answers.history_of(live, asked)
    told, k = stopped(live, place, asked, history, state, found), asked.k
    for at, item in enumerate(answer.items, 1):
        if item.item_id == query.item_id:
            return {"k": k, "place": at, "source": item.source, "propensity": item.propensity, "moves": item.moves or []}, told
    out = next((one for one in answer.left_out or [] if one.item_id == query.item_id), None)
    return {"k": k, "place": None, "left_out": None if out is None else {"rule": out.rule, "before": out.before}}, told


def _told(live: Live, user_id: str, item_id: str, now: float) -> dict[str, float]:
    """The features of a user and an item at this moment, by name; none where the bundle has none."""
    features = live.state.features
    if features is None:
        return {}
    numbers = features.told(user_id, [item_id], now)[0]
    return dict(zip(features.features.names, numbers.tolist(), strict=True))


def _chances(live: Live, state: QueryState, place: int) -> dict[str, float]:
    """Chances of each head for an item among the candidates of now, by name; none where it stands too low to be looked at."""
    found = live.channels.candidates([state], live.settings.fusion.depth, ~live.barred())[0]
    ranked, at = live.road.scored(found, state, tell=True), np.flatnonzero(found.items == place)
    if ranked.chances is None or not len(at):
        return {}
    return named(ranked.heads, ranked.chances[at[0]])


def _effects(live: Live, state: QueryState, place: int) -> list[dict[str, Any]]:
    """The features that move the ranker most for an item among the candidates of now; none where there is no ranker or it does not look at it."""
    if live.ranker is None:
        return []
    found = live.channels.candidates([state], live.settings.fusion.depth, ~live.barred())[0]
    effects = live.ranker.effects(found, live.road.fusion.score(found, len(state.history)), state, place)
    return [{"feature": name, "value": value, "effect": effect} for name, value, effect in effects]


def named(heads: Sequence[str], chances: FloatArray) -> dict[str, float]:
    """Chances by the names of their heads; none where they were not computed."""
    return {} if np.isnan(chances).any() else dict(zip(heads, chances.tolist(), strict=True))
