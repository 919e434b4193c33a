"""How much of what a user does goes to the item's category or brand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.base import DAY, Look, Numbers, smoothed
from tastemaker.features.groups import READS
from tastemaker.features.key import EVERYTHING, USER, Key
from tastemaker.features.memories.faded import Faded
from tastemaker.features.memories.memory import Memory
from tastemaker.features.parameters import Groups, Seconds
from tastemaker.features.which import ALL, Which
from tastemaker.schema.columns import Columns


@dataclass(frozen=True)
class Affinity:
    """`events`: log(1 + faded events) of the user with the item's category or brand. `share`: of the user's faded events, smoothed towards the
    group's share of everybody's as if the user had `smoothing` events already, [0, 1]. `lift`: log of that share by everybody's, 0 where the user
    is as everybody. Means over several categories; three zeros for an item without a group; 0, everybody's share and 0 for an unknown user.
    """

    by: Groups = "category"
    of: Which = ALL
    half_life: Seconds = 30 * DAY
    smoothing: float = 5.0

    columns = ("events", "share", "lift")
    reads = (Columns.USER_ID, *READS)

    @property
    def remembers(self) -> tuple[Memory[Any], ...]:
        """Faded sums: user and group, user, group, everything."""
        keys = (Key(("user", self.by)), USER, Key((self.by,)), EVERYTHING)
        return tuple(Faded(key, self.of, self.half_life) for key in keys)

    def gives(self, look: Look) -> tuple[Numbers, ...]:
        """The three numbers."""
        both, user, group, everything = self.remembers
        key, own = group.key, look(both)
        usual = smoothed(look(group), look.spread(key, look(everything)), 0.0, 1.0)
        share = smoothed(own, look.spread(key, look(user)), usual, self.smoothing)
        lift = np.log((share + 1e-3) / (usual + 1e-3))
        return look.mean(key, np.log1p(own)), look.mean(key, share), look.mean(key, lift)
