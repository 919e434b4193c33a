"""Whom an item would be shown to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tastemaker.models.segments import newcomer_scores
from tastemaker.schema.protocols import Asker
from tastemaker.serving.wire import Live

AT_ONCE = 4
"""So many lists are made before others get a turn."""


async def audience(live: Live, place: int, users: Sequence[str], k: int, within: int = 100) -> list[dict[str, Any]]:
    """The users in whose lists an item stands highest.

    Args:
        live: the bundle that answers. place: of the item in its catalogue. users: whose lists are looked at. k: at most so many are told.
        within: a place beyond this one is not told.

    Returns:
        `user_id` and `rank` (from 1, before the rules of the house), best first; without those who met the item.
    """
    if live.barred()[place] or not users:
        return []
    now, ranks = time.time(), []
    for begin in range(0, len(users), AT_ONCE):
        some = users[begin : begin + AT_ONCE]
        states = live.queries([live.state.history(user) for user in some], [Asker(user, now) for user in some])
        found = live.channels.candidates(states, live.settings.fusion.depth, ~live.barred())
        for user, state, one in zip(some, states, found, strict=True):
            at = np.flatnonzero(one.items == place)
            if len(at):
                scores = newcomer_scores(live.road.scored(one, state).scores, one, state)
                ranks.append((int((scores > scores[at[0]]).sum()) + 1, user))
        await asyncio.sleep(0)
    return [{"user_id": user, "rank": rank} for rank, user in sorted(ranks)[:k] if rank <= within]
