"""Who might know whom, as a bundle with connections between users answers it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tastemaker.index.companions import Companions
from tastemaker.index.friends import Friends, Person
from tastemaker.models.fusion import Fusion
from tastemaker.pipeline.explain import sources
from tastemaker.pipeline.rerank import order
from tastemaker.schema.protocols import IntArray
from tastemaker.schema.queries import RecommendedUser

_NAMES = {
    "mutual": "friends of friends",
    "shared": "friends of friends",
    "circle": "circle",
    "taste": "taste",
    "popular": "popular",
}
_WORDS = {
    "circle": "moves in the same circles",
    "taste": "likes what you like",
    "popular": "has many friends",
}


class People:
    """Finds people for people.

    Args:
        friends: what finds them. fusion: what weighs the ways of finding. companions: who is called what.
        depth: candidates of each way.
    """

    def __init__(self, friends: Friends, fusion: Fusion, companions: Companions, depth: int) -> None:
        self.friends, self.fusion, self.companions, self.depth = friends, fusion, companions, depth

    @classmethod
    def open(cls, folder: Path, companions: Companions | None, depth: int) -> People | None:
        """Reads the folder `friends/` of a bundle; None where the bundle knows no connections between users."""
        if companions is None or not folder.is_dir():
            return None
        fusion = Fusion.from_dict(msgspec.json.decode((folder / "fusion.json").read_bytes()))
        return cls(Friends.load(folder, companions.social), fusion, companions, depth)

    def recommend(
        self, user_id: str | None, history: IntArray, k: int, exclude: Sequence[str] = (), explain: bool = False
    ) -> list[RecommendedUser]:
        """The k people whom somebody is likeliest to know, best first, without the asker and the asker's friends.

        Args:
            user_id: who asks; None or an unknown one is known by the history alone, and without one gets people with many friends.
            history: what the asker met, item indices. k: length of the list. exclude: users who may not be in it. explain: with reasons.
        """
        row = -1 if user_id is None else self.companions.row(user_id)
        barred = [place for place in (self.companions.row(name) for name in exclude) if place >= 0]
        person = Person(row, self.friends.taste(history), np.array(barred, dtype=np.int32))
        found = self.friends.candidates(person, max(self.depth, k))
        known = len(self.friends.friends(row))
        scores, names = self.fusion.score(found, known), sources(self.fusion.parts(found, known), found.channels)
        return [
            RecommendedUser(
                self.friends.social.names[int(found.items[place])],
                float(scores[place]),
                _NAMES[names[place]],
                self._reason(row, int(found.items[place]), names[place]) if explain else None,
            )
            for place in order(scores, k).tolist()
        ]

    def _reason(self, row: int, other: int, channel: str) -> str:
        common = self.friends.common(row, other)
        if common:
            return f"{common} friend{'s' if common > 1 else ''} in common" + (f", {_WORDS[channel]}" if channel in _WORDS else "")
        return _WORDS.get(channel, _WORDS["circle"])
