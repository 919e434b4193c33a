"""Two rankers in one list: a click says which of them its reader prefers, with a hundredth of the traffic of an A/B experiment."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Interleaved:
    """A list and whose each place is: 0 the first ranker's, 1 the second's."""

    items: list[object]
    teams: list[int]

    def credit(self, clicked: Collection[object]) -> int:
        """1 where the second ranker got more of the clicks, -1 where the first did, 0 where neither."""
        gains = [0, 0]
        for item, team in zip(self.items, self.teams, strict=True):
            gains[team] += item in clicked
        return int(np.sign(gains[1] - gains[0]))


def team_draft(first: Sequence[Item], second: Sequence[Item], k: int, random: np.random.Generator) -> Interleaved:
    """Team-draft interleaving (F. Radlinski, M. Kurup and T. Joachims, 2008): rankers take turns in rounds of two, chance says who begins each round.

    Args:
        first, second: lists of the two rankers, best first. k: length of the list. random: decides who begins; of the request, so that it can be told again.

    Returns:
        At most k items, none twice; fewer only where both lists together hold fewer.
    """
    items: list[object] = []
    teams: list[int] = []
    seen: set[Hashable] = set()
    lists, at = (first, second), [0, 0]
    while len(items) < k:
        begin, before = int(random.integers(2)), len(items)
        for team in (begin, 1 - begin):
            while at[team] < len(lists[team]) and lists[team][at[team]] in seen:
                at[team] += 1
            if at[team] < len(lists[team]) and len(items) < k:
                item = lists[team][at[team]]
                seen.add(item)
                items.append(item)
                teams.append(team)
        if len(items) == before:
            break
    return Interleaved(items, teams)
