"""Who judges the steps of a compression: a bundle that has not learned from the questions, and these."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tastemaker.cli.workspace import Workspace
from tastemaker.schema.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from tastemaker.compression.budget import Questions
    from tastemaker.data.dataset import Dataset
    from tastemaker.data.questions import Questions as Asked
    from tastemaker.data.split import Split
    from tastemaker.schema.protocols import Progress

ENOUGH_PEOPLE = 500
"""Users below whom the interval of the configured split is too wide to be sure of 1 %: of MovieLens 100k, 167 users leave ±.9 % of a cut language model, 896 ±.7 %."""
LATEST = 0.2
"""Share of each user's events that judge where everybody is asked."""


def judges(workspace: Workspace, parent: Path, progress: Progress) -> tuple[Path, Questions]:
    """A bundle that has not learned from the questions, and these: the one to compress where enough newer events are there, else an earlier one."""
    from tastemaker.bundle.read import open_bundle
    from tastemaker.cli.evaluate import ENOUGH_USERS
    from tastemaker.data.dataset import Dataset
    from tastemaker.data.select import positives
    from tastemaker.data.split import newer
    from tastemaker.journal.append import Journal

    settings = workspace.settings
    manifest = open_bundle(parent, check=False).manifest
    journal = Journal.open(workspace.journal)
    try:
        data = Dataset.from_journal(journal, settings)
        seen = manifest.data.position
        later = positives(journal.read(seen), settings.data.positive) if journal.position() > seen else None
    finally:
        journal.close()
    if later is not None and later.height:
        fresh = newer(data, later)
        if fresh.test["user_id"].n_unique() >= ENOUGH_USERS:
            return parent, _newer_questions(
                parent, fresh.test, f"{fresh.words}; the bundle itself was judged", settings.compress.questions
            )
    return _early(workspace, parent, data, progress)


def _newer_questions(parent: Path, test: pl.DataFrame, words: str, most: int) -> Questions:
    import numpy as np

    from tastemaker.compression.budget import Questions
    from tastemaker.inference.brain import Brain
    from tastemaker.schema.protocols import Asker

    brain, now = Brain(parent), time.time()
    wanted: dict[str, list[int]] = {}
    for user, item in test.select("user_id", "item_id").iter_rows():
        if item in brain.index_of:
            wanted.setdefault(user, []).append(brain.index_of[item])
    asked = [user for user in list(wanted)[:most] if len(brain.history(user))]
    targets = [np.array(wanted[user], dtype=np.int32) for user in asked]
    askers = [Asker(user, now) for user in asked]
    return Questions([brain.history(user) for user in asked], targets, np.arange(len(asked)), words, len(brain.index_of), askers)


def _early(workspace: Workspace, parent: Path, data: Dataset, progress: Progress) -> tuple[Path, Questions]:
    """The bundle of the earlier events, that `evaluate` has left behind or that is trained now, and the later events as questions."""
    from tastemaker.cli.backtest import early_folder, keep_early
    from tastemaker.training.fit import fit

    settings = workspace.settings
    part, asked = held_back(workspace, data)
    payload = early_folder(workspace, data, asked)
    if not (payload / "settings.json").is_file():
        ranked = settings.ranker.mode != "off"
        keep_early(fit(part.train, settings, progress, None, workspace.runs / "cache", rows=ranked), payload)
    made = _as_questions(asked, data.item_ids(), part.train.item_ids(), settings.compress.questions, settings.train.seed)
    return _whole_bundle(payload, parent), made


def _as_questions(asked: Asked, whole: Sequence[str], early: Sequence[str], most: int, seed: int) -> Questions:
    """At most so many of the questions in an order of chance, items by their numbers in the bundle of the earlier events (`early`), not in the whole one's (`whole`)."""
    import numpy as np

    from tastemaker.compression.budget import Questions
    from tastemaker.schema.protocols import Asker

    number = {item: place for place, item in enumerate(early)}
    places = np.array([number.get(item, -1) for item in whole], dtype=np.int32)
    wanted: dict[str, list[int]] = {}
    for row, item in asked.targets.select("user_id", "item_id").iter_rows():
        wanted.setdefault(row, []).append(number.get(item, -1))
    rows = np.random.default_rng(seed).permutation(len(asked.rows))[:most].tolist()
    met = [places[asked.histories[row]] for row in rows]
    targets = [np.array(wanted[asked.rows[row]], dtype=np.int32) for row in rows]
    users: dict[str, int] = {}
    groups = [users.setdefault(asked.users[row], len(users)) for row in rows]
    askers = [Asker(asked.users[row], float(asked.times[row])) for row in rows]
    words = f"{asked.words}; judged is a bundle of the earlier events alone, and what held there is done to the whole one"
    histories = [one[one >= 0] for one in met]
    return Questions(histories, targets, np.array(groups, dtype=np.int64), words, len(early), askers)


def held_back(workspace: Workspace, data: Dataset) -> tuple[Split, Asked]:
    """The split whose later events judge the steps, see `compress.split`, and what is asked of it.

    Raises:
        InputError: there are too few events.
    """
    from tastemaker.cli.backtest import asked_of
    from tastemaker.data.split import split, temporal_user

    settings = workspace.settings
    chosen, asks = settings.compress.split, settings.data
    if chosen != "temporal_user":
        own = split(data, asks.split if chosen == "auto" else chosen, asks.test_share, settings.train.seed)
        asked = asked_of(workspace, data, own)
        people = len(set(asked.users))
        if chosen != "auto" or settings.compress.effort == "quick" or people >= ENOUGH_PEOPLE:
            return own, asked
    latest = temporal_user(data, LATEST)
    if chosen == "auto" and latest.test["user_id"].n_unique() <= people:
        return own, asked
    return latest, asked_of(workspace, data, latest)


def _whole_bundle(payload: Path, parent: Path) -> Path:
    """The bundle of the earlier events, with the text encoder of the whole one where the same language model reads in both."""
    from tastemaker.bundle.read import open_bundle
    from tastemaker.bundle.verify import MANIFEST
    from tastemaker.bundle.write import write_bundle
    from tastemaker.compression.step import bring, carry

    settings = open_bundle(parent, check=False).manifest.settings
    bundles = payload / "bundles"
    for known in sorted(bundles.glob(f"*/{MANIFEST}")) if bundles.is_dir() else []:
        if open_bundle(known.parent, check=False).manifest.parents == [parent.name]:
            return known.parent
    own = {path.name for path in (payload / "text_encoder").glob("*")}

    def fill(place: Path) -> None:
        carry(payload, place, ["bundles"])
        for path in (parent / "text_encoder").glob("*"):
            if path.name not in own:
                bring(path, place / "text_encoder" / path.name)

    if (parent / "text_encoder").is_dir() and not own:
        raise InputError(f"{payload} was made without texts, {parent.name} with them. Delete it and compress again.")
    return bundles / write_bundle(bundles, fill, settings=settings, parents=[parent.name])
