"""The Python door: fit, recommend, similar, search, save, load."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import Asker, Progress
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import from_table

if TYPE_CHECKING:
    from tastemaker.data.dataset import Dataset
    from tastemaker.journal.append import Journal
    from tastemaker.serving.wire import Live

_SCHEMA = {Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int64}
_BATCH = 512


class Recommender:
    """Learns from a dataset and answers; what it answers is what the service would answer from the same bundle.

    Args:
        settings: all settings; default: the defaults.
        **sections: sections as keyword arguments, as in `Recommender(sequence={"dim": 64}, train={"seed": 1})`.

    Raises:
        SettingsError: an unknown section or key.
    """

    def __init__(self, settings: Settings | None = None, **sections: Mapping[str, Any]) -> None:
        if settings is not None and sections:
            raise InputError("Give either a Settings object or sections as keyword arguments, not both.")
        self.settings = settings or from_table(sections)
        self._live: Live | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def fit(self, data: Dataset, progress: Progress | None = None) -> Recommender:
        """Learns from a dataset; needs the extra `train`.

        Args:
            data: events and items; positives only where `data.positive` names labels.
            progress: called as progress(what, done, total).
        """
        from tastemaker.bundle.write import write_bundle
        from tastemaker.data.select import positives
        from tastemaker.schema.settings_file import to_table
        from tastemaker.serving.house import House
        from tastemaker.serving.wire import Live
        from tastemaker.training.fit import fit

        House(self.settings.lists)  # a rule that makes no sense is told before anything is learned
        chosen = data.with_events(positives(data.events, self.settings.data.positive))
        brain = fit(chosen, self.settings, progress)
        self._temporary = tempfile.TemporaryDirectory(prefix="tastemaker-")
        folder = Path(self._temporary.name)
        version = write_bundle(
            folder, brain.export, settings=to_table(self.settings), data=brain.fingerprint(), metrics=dict(brain.metrics)
        )
        people = {user: msgspec.json.decode(extra) for user, extra in _profiles(data.users) if extra}
        self._live = Live(folder / version, check=False, service=self.settings, profile_of=people.get)
        return self

    @classmethod
    def load(
        cls, path: str | Path, journal: Journal | None = None, service: Settings | None = None, threads: int | None = None
    ) -> Recommender:
        """Opens a bundle; needs no torch.

        Args:
            path: the bundle's folder.
            journal: what happened since is folded in from it; None: the bundle alone.
            service: the settings of now, of which `lists` and `ranker` are read; None: no rules, and the ranker's settings of the bundle.
            threads: of the models; None: the machine's cores.

        Raises:
            BundleError: it is not whole. SettingsError: a weight names a head that the ranker has not.
        """
        from tastemaker.inference.cpu import cores
        from tastemaker.serving.wire import Live

        found = cls()
        found._live = Live(Path(path), journal, threads=threads or cores(), service=service)
        found.settings = found._live.settings
        return found

    def save(self, path: str | Path) -> Path:
        """Copies the bundle to a folder that does not exist yet; gives its path.

        Raises:
            InputError: the folder is there already.
        """
        target = Path(path)
        if target.exists():
            raise InputError(f"{target} is there already and was left as it is. Choose another path.")
        shutil.copytree(self._ready().bundle.path, target)
        return target

    def recommend(self, users: Iterable[str], k: int = 10, filter_seen: bool = True, now: float | None = None) -> pl.DataFrame:
        """The k best items for each user; an unknown user is given popular ones.

        Args:
            users: user ids.
            k: items a user.
            filter_seen: leave out what the user has met.
            now: the moment of the question, epoch seconds; None: now.

        Returns:
            user_id, item_id, score, rank (1 is best), users in the order given.
        """
        live = self._ready()
        names = [str(user) for user in dict.fromkeys(users)]
        with threadpool_limits(1, "blas"):  # small products: a second thread waits longer than it works
            parts = [
                self._batch(live, names[begin : begin + _BATCH], k, filter_seen, now) for begin in range(0, len(names), _BATCH)
            ]
        return pl.concat(parts) if parts else pl.DataFrame(schema=_SCHEMA)

    def friends(self, users: Iterable[str], k: int = 10) -> pl.DataFrame:
        """The k people whom each user is likeliest to know, without existing friends; an unknown user is given people with many friends.

        Returns:
            user_id, friend_id, score, rank (1 is best), users in the order given.

        Raises:
            InputError: the bundle knows no connections between users.
        """
        live = self._ready()
        if live.people is None:
            raise InputError("No connections between users are known. Give edges such as user:1, friend, user:2, and learn again.")
        rows = [
            (str(user), one.user_id, one.score, rank)
            for user in dict.fromkeys(users)
            for rank, one in enumerate(live.people.recommend(str(user), live.state.history(str(user)), k), 1)
        ]
        schema = {Columns.USER_ID: pl.String, "friend_id": pl.String, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def similar(self, items: Iterable[str], k: int = 10) -> pl.DataFrame:
        """The k items most like each given one: item_id, similar_item_id, score, rank.

        Raises:
            InputError: an item is unknown.
        """
        live = self._ready()
        rows = []
        for item in items:
            place = live.state.index_of.get(str(item))
            if place is None:
                raise InputError(f"There is no item {item!r}. Ids are strings.")
            found, scores = live.channels.similar(place, k)
            rows += [
                (str(item), live.state.rows[near]["item_id"], float(score), rank)
                for rank, (near, score) in enumerate(zip(found, scores, strict=True), 1)
            ]
        schema = {Columns.ITEM_ID: pl.String, "similar_item_id": pl.String, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def search(self, query: str, k: int = 10, user: str | None = None) -> pl.DataFrame:
        """The k items that fit a text best, by words and by meaning, for a user where one is given: item_id, title, score, rank."""
        live = self._ready()
        places, scores = live.search(query, k, live.state.history(user) if user is not None else None)
        rows = [
            (live.state.rows[place]["item_id"], live.state.rows[place].get("title"), float(score), rank)
            for rank, (place, score) in enumerate(zip(places, scores, strict=True), 1)
        ]
        schema = {Columns.ITEM_ID: pl.String, Columns.TITLE: pl.String, Columns.SCORE: pl.Float32, Columns.RANK: pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def users(self) -> list[str]:
        """All users with a history."""
        live = self._ready()
        return list(dict.fromkeys([*live.brain.users, *live.state.latest_users(10**9)]))

    def _batch(self, live: Live, names: list[str], k: int, filter_seen: bool, moment: float | None) -> pl.DataFrame:
        now = time.time() if moment is None else moment
        states = live.queries([live.state.history(name) for name in names], [Asker(name, now) for name in names])
        found = live.best(states, k, filter_seen)
        places = np.concatenate([items for items, _ in found]) if found else np.zeros(0, np.int32)
        counts = [len(items) for items, _ in found]
        return pl.DataFrame(
            {
                Columns.USER_ID: np.repeat(np.array(names, dtype=object), counts),
                Columns.ITEM_ID: [live.state.rows.item_id(place) for place in places.tolist()],
                Columns.SCORE: np.concatenate([scores for _, scores in found]) if found else [],
                Columns.RANK: np.concatenate([np.arange(1, count + 1) for count in counts]) if found else [],
            },
            schema=_SCHEMA,
        )

    def _ready(self) -> Live:
        if self._live is None:
            raise InputError("This recommender has learned nothing yet. Call fit(data), or Recommender.load(path).")
        return self._live


def _profiles(users: pl.DataFrame) -> Iterable[tuple[str, str | None]]:
    return users.select(Columns.USER_ID, "extra").iter_rows() if users.height else ()
