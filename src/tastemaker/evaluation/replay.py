"""People with known tastes who take what they are shown: the loop of a service, closed, with the truth in hand.

It asks and tells through two callables, so the same people stand before a server over HTTP or before its parts in one process; it knows no clock
but the one that it is given, so a day of traffic takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.schema.events import Event

Ask = Callable[[str, int], tuple[str, Sequence[str]]]
"""Called as ask(user_id, k); gives the request's id and item ids, the top first."""
Tell = Callable[[Sequence[Event]], object]
DAY = 86_400.0


@dataclass(frozen=True)
class Tastes:
    """Who likes what.

    Attributes:
        users: user id to row. items: item id to row.
        likes: how much each user likes each trait, float [U, T]. traits: of each item, float [N, T].
        base: chance that a looked-at item without anything liked is taken. most: chance of a perfect one.
    """

    users: Mapping[str, int]
    items: Mapping[str, int]
    likes: NDArray[np.floating]
    traits: NDArray[np.floating]
    base: float = 0.02
    most: float = 0.3

    def chance(self, user_id: str, item_id: str) -> float:
        """Chance that a user takes an item that was looked at; nobody knows what strangers like, nor what strange items are."""
        user, item = self.users.get(user_id), self.items.get(item_id)
        if user is None or item is None:
            return self.base
        liking = float(np.clip(self.likes[user] @ self.traits[item], 0.0, 1.0))
        return self.base + (self.most - self.base) * liking


@dataclass
class Tally:
    """What happened in a step."""

    lists: int = 0
    shown: int = 0
    taken: int = 0


class Crowd:
    """People who come by chance, more by day than by night, and look from the top.

    A place p is looked at with the chance p^-fade, and taken if it is liked: the position-based model (M. Richardson, E. Dominowska and R. Ragno, 2007;
    N. Craswell et al., 2008).

    Args:
        tastes: of everybody. ask: gives a list. tell: stores events.
        rate: lists per second over a day's mean. swing: how much more by day and less by night, in [0, 1]. k: length of the lists. fade: of looking.
        event_type, value: of what they do; value: a function of liking, or None.
        who: ids of those who come; None: everybody.
        seed: of all chance.
    """

    def __init__(
        self,
        tastes: Tastes,
        ask: Ask,
        tell: Tell,
        rate: float,
        swing: float = 0.6,
        k: int = 10,
        fade: float = 0.6,
        event_type: str = "click",
        value: Callable[[float], float] | None = None,
        who: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.tastes, self.ask, self.tell, self.rate, self.swing, self.k, self.fade = tastes, ask, tell, rate, swing, k, fade
        self.event_type, self.value, self.who = event_type, value, list(who or tastes.users)
        self._random = np.random.default_rng(seed)

    def expected(self, now: float, seconds: float) -> float:
        """Lists that are expected in some seconds from a moment on: fewest at midnight (UTC), most at noon."""
        return self.rate * seconds * (1 - self.swing * float(np.cos(2 * np.pi * (now % DAY) / DAY)))

    def step(self, now: float, seconds: float) -> Tally:
        """Everybody who comes in the seconds from a moment on."""
        tally = Tally()
        for _ in range(int(self._random.poisson(self.expected(now, seconds)))):
            user = self.who[int(self._random.integers(len(self.who)))]
            self._visit(user, now, tally)
        return tally

    def _visit(self, user: str, now: float, tally: Tally) -> None:
        request_id, items = self.ask(user, self.k)
        tally.lists += 1
        tally.shown += len(items)
        taken = []
        for place, item in enumerate(items, 1):
            liking = self.tastes.chance(user, item)
            if self._random.random() < place**-self.fade * liking:
                worth = None if self.value is None else self.value(liking)
                taken.append(
                    Event(
                        user_id=user, item_id=item, timestamp=now, event_type=self.event_type, value=worth, request_id=request_id,
                        position=place - 1,
                    )
                )  # fmt: skip
        if taken:
            self.tell(taken)
            tally.taken += len(taken)
