"""Who might know whom: people found by common friends, by the circles they move in and by what they like.

Channels:
    mutual: common friends, the rarer a friend's friendships the more they say (L. Adamic and E. Adar, 2003).
    shared: common friends, each divided by the number of their friendships (resource allocation, T. Zhou et al., 2009).
    circle: closeness in the spectrum of the whole graph, beyond common friends.
    taste: likeness of what both have met.
    popular: logarithm of the number of friends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.exact import top
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import FloatArray, IntArray

CHANNELS = ("mutual", "shared", "circle", "taste", "popular")
LATEST = 500
"""Items of a history that tell its taste, the newest."""
_FLOORS = (0.0, 0.0, 0.0, 0.0, -np.inf)


@dataclass(frozen=True)
class Person:
    """Who asks.

    Attributes:
        row: number of the user; -1: none that the connections know.
        taste: unit vector, float32 [d], or zero.
        barred: users who can't be the answer besides the asker and existing friends.
    """

    row: int
    taste: FloatArray
    barred: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))


class Friends:
    """Finds people.

    Args:
        social: who is connected with whom.
        tastes: unit rows, float32 [n, d]; zero for users without events.
        item_tastes: what an item adds to a taste, float32 [N, d].
        circles: float32 [n, c]: closeness is the inner product.
    """

    def __init__(self, social: Social, tastes: FloatArray, item_tastes: FloatArray, circles: FloatArray) -> None:
        self.social, self.tastes, self.item_tastes, self.circles = social, tastes, item_tastes, circles
        self.degrees = np.diff(social.offsets).astype(np.float32)

    def friends(self, row: int) -> IntArray:
        """Friends of a user, int32 [f], growing; none for -1."""
        if row < 0:
            return np.zeros(0, dtype=np.int32)
        return np.asarray(self.social.friends[self.social.offsets[row] : self.social.offsets[row + 1]])

    def taste(self, history: IntArray) -> FloatArray:
        """The taste that a history tells, float32 [d]; zero for an empty one."""
        latest = np.unique(history[-LATEST:])
        total: FloatArray = self.item_tastes[latest[latest < len(self.item_tastes)]].sum(axis=0)
        length = float(np.linalg.norm(total))
        return total / length if length > 1e-9 else np.zeros(self.item_tastes.shape[1], dtype=np.float32)

    def scores(self, person: Person) -> list[FloatArray]:
        """What each channel thinks of every user, float32 [n] each."""
        n = self.social.n_users
        mutual, shared = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
        friends = self.friends(person.row)
        for friend in friends.tolist():
            theirs, degree = self.friends(friend), float(self.degrees[friend])
            mutual[theirs] += 1 / np.log(max(degree, 2.0))
            shared[theirs] += 1 / degree
        circle = np.zeros(n, dtype=np.float32)
        if len(friends):
            circle = np.asarray(self.circles @ self.circles[person.row]) * np.sqrt(self.degrees)
        taste = np.asarray(self.tastes @ person.taste) if person.taste.any() else np.zeros(n, dtype=np.float32)
        return [mutual, shared, circle, taste, np.log1p(self.degrees)]

    def candidates(self, person: Person, depth: int) -> ChannelScores:
        """The union of each channel's best `depth` users, without the asker, existing friends and those who are barred."""
        whole = self.scores(person)
        away = np.concatenate(
            [self.friends(person.row), person.barred, np.array([person.row] if person.row >= 0 else [], np.int32)]
        )
        places = np.full((self.social.n_users, len(CHANNELS)), depth, dtype=np.int32)
        found: list[NDArray[np.int64]] = []
        for column, (scores, floor) in enumerate(zip(whole, _FLOORS, strict=True)):
            masked = scores.copy()
            masked[away] = -np.inf
            best = top(masked[None], depth)[0]
            best = best[(masked[best] > floor) & np.isfinite(masked[best])]
            places[best, column] = np.arange(len(best), dtype=np.int32)
            found.append(best)
        users = np.unique(np.concatenate(found)).astype(np.int32)
        table = np.stack([scores[users] for scores in whole], axis=1).astype(np.float32)
        return ChannelScores(users, CHANNELS, table, places[users], self.degrees[users] + 1, depth)

    def common(self, row: int, other: int) -> int:
        """How many friends two users have in common."""
        return len(np.intersect1d(self.friends(row), self.friends(other), assume_unique=True))

    def save(self, folder: Path) -> None:
        """Writes the arrays as `.npy`, to be memory-mapped by `load`; not the connections, which `Companions` keeps."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tastes", "item_tastes", "circles"):
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, social: Social) -> Friends:
        """Reads what `save` wrote; arrays are memory-mapped and so shared between processes."""
        arrays = [
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("tastes", "item_tastes", "circles")
        ]
        return cls(social, *arrays)
