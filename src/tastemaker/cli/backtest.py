"""The backtest: learner and floors trained on the earlier events alone, and what they answer to the later ones. Used by `evaluate`, `compress` and `demo`."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.cli.progress import progress_bars
from tastemaker.cli.strangers import MOST_LISTS, known, lists_of, strangers, variety
from tastemaker.cli.workspace import Workspace, open_workspace
from tastemaker.schema.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from tastemaker.data.dataset import Dataset
    from tastemaker.data.questions import Questions
    from tastemaker.data.sequences import Sequences
    from tastemaker.data.split import Split
    from tastemaker.evaluation.report import Judged
    from tastemaker.schema.protocols import FloatArray, IntArray, Progress
    from tastemaker.schema.settings import Settings
    from tastemaker.training.fit import TrainedBrain


EARLY = "with features and ranker"
"""What is kept of the bundle of the earlier events: one that holds less is not taken for it."""


def backtest_ahead(directory: Path) -> None:
    """The backtest of a workspace that may have no bundle yet; it only keeps the lists, and `evaluate` uses them again.

    Raises:
        InputError: the journal holds too little to hold anything back.
    """
    from tastemaker.data.dataset import Dataset
    from tastemaker.data.split import split
    from tastemaker.journal.append import Journal

    workspace = open_workspace(directory)
    journal = Journal.open(workspace.journal)
    try:
        data = Dataset.from_journal(journal, workspace.settings)
    finally:
        journal.close()
    chosen = workspace.settings
    part = split(data, chosen.data.split, chosen.data.test_share, chosen.train.seed)
    with progress_bars(False) as progress:
        backtest(workspace, data, part, True, progress)


def backtest(workspace: Workspace, data: Dataset, part: Split, floors: bool, progress: Progress) -> Judged:
    """The learner and the floors, trained on the earlier events alone; lists are kept in `runs/` and used again for the same data and settings."""
    import msgspec
    import polars as pl

    settings = workspace.settings
    asked = asked_of(workspace, data, part)
    users = dict(zip(asked.rows, asked.users, strict=True)) if asked.rows != asked.users else None
    kept = workspace.runs / f"backtest-{_key(data, settings, floors, asked.words)}.parquet"
    looks = kept.with_suffix(".json")
    if kept.is_file() and looks.is_file():
        table, facts = pl.read_parquet(kept), msgspec.json.decode(looks.read_bytes())
        lists = {str(name): group.drop("recommender") for (name,), group in table.group_by("recommender", maintain_order=True)}
    else:
        early = early_folder(workspace, data, asked)
        asked = replace(asked, histories=known(asked.histories, data.item_ids(), part.train.item_ids()))
        lists, facts = _trained_lists(part, data, asked, settings, floors, progress, workspace.runs / "cache", early)
        kept.parent.mkdir(parents=True, exist_ok=True)
        whole = pl.concat([table.with_columns(pl.lit(name).alias("recommender")) for name, table in lists.items()])
        whole.write_parquet(kept.with_suffix(".tmp"))
        kept.with_suffix(".tmp").replace(kept)
        looks.with_suffix(".tmp").write_bytes(msgspec.json.encode(facts))
        looks.with_suffix(".tmp").replace(looks)
    return judged_of(lists, asked.targets, part.train, asked.words, {"kind": "backtest", **facts}, users)


def asked_of(workspace: Workspace, data: Dataset, part: Split) -> Questions:
    """The questions of a backtest.

    Raises:
        InputError: there are fewer than two.
    """
    from tastemaker.data.questions import questions

    settings = workspace.settings
    asked = questions(part, data, data.item_ids(), settings.evaluation.max_users, settings.train.seed)
    if len(asked.rows) < 2:
        raise InputError(f"{data.events.height:,} events are too few to hold some back. Import more, then evaluate.")
    return asked


def early_folder(workspace: Workspace, data: Dataset, asked: Questions) -> Path:
    """Where the bundle of the earlier events is kept: it has not learned from the questions, so that what is made of it can be judged by them."""
    return workspace.runs / f"early-{_key(data, workspace.settings, EARLY, asked.words)}"


def keep_early(brain: TrainedBrain, folder: Path) -> None:
    """Writes the payload of the bundle of the earlier events; a language model that was not tuned is that of every bundle and is left out."""
    import numpy as np

    from tastemaker.training.export import export

    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    export(brain, partial, text=brain.settings.finetune.mode != "frozen")
    whitening = brain.whitening
    if whitening is not None:
        (partial / "text_encoder").mkdir(exist_ok=True)
        for name, array in (("mean", whitening.mean), ("components", whitening.components)):
            np.save(partial / "text_encoder" / f"whitening_{name}.npy", array, allow_pickle=False)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _key(data: Dataset, settings: Settings, *others: Any) -> str:
    """Stands for the data and all settings that a fit and its questions hang on."""
    import msgspec

    from tastemaker.schema.settings_file import to_table

    table = to_table(settings)
    for free in ("compress", "serving", "profile"):
        table.pop(free)
    people = hashlib.sha256(msgspec.json.encode(data.users.to_dicts())).hexdigest()
    return hashlib.sha256(msgspec.json.encode([data.fingerprint(), people, table, *others])).hexdigest()[:16]


def _trained_lists(
    part: Split, whole: Dataset, asked: Questions, settings: Settings, floors: bool, progress: Progress, cache: Path, early: Path
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """The lists of the learner and of the floors, all trained on the earlier events alone; how soon strangers are served and what variety costs."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    from tastemaker.evaluation.recommenders import OURS, UNRANKED
    from tastemaker.training.fit import fit, states_of
    from tastemaker.training.ranked import Asked

    brain = fit(part.train, settings, progress, None, cache, rows=settings.ranker.mode != "off")
    keep_early(brain, early)
    ids, depth = brain.sequences.item_ids, max(20, *settings.evaluation.k)
    facts: dict[str, Any] = {"ranker": brain.ranker.report() if brain.ranker is not None else None}
    with threadpool_limits(1, "blas"):
        moments = Asked(asked.users, asked.times, whole.events if whole.log is None else whole.log)
        lists = {OURS: lists_of(asked.rows, [items for items, _ in brain.recommend(asked.histories, depth, asked=moments)], ids)}
        if brain.ranker is not None and brain.ranker.ranker.plan.orders:
            lists[UNRANKED] = lists_of(
                asked.rows, [items for items, _ in brain.recommend(asked.histories, depth, users=asked.users)], ids
            )
        some = sorted(np.random.default_rng(settings.train.seed).permutation(len(asked.rows))[:MOST_LISTS].tolist())
        states, wanted = states_of(brain.model, [asked.histories[row] for row in some]), wanted_of(asked.targets, ids)
        categories = [list(words or []) for words in brain.catalogue["categories"].to_list()]
        facts["frontier"] = variety(
            brain.channels, brain.fusion, states, [wanted[asked.rows[row]] for row in some], categories, settings.fusion.depth
        )
        if floors:
            text = brain.channels.text.rows(every(brain.channels.n_items))
            train, order = brain.sequences, part.train.time_is_order
            lists |= floor_lists(train, text, order, asked.rows, asked.histories, settings, progress)
            told = strangers(part, whole, train, lambda met, who, k: [items for items, _ in brain.recommend(met, k, who)], settings)
            facts |= curve_of(told)
    return lists, facts


def curve_of(told: dict[str, Any] | None) -> dict[str, Any]:
    """The curve of first events as a fact of the report; nothing where nobody could be asked."""
    return {} if told is None else {"first events": told}


def wanted_of(targets: pl.DataFrame, ids: Sequence[str]) -> dict[str, set[int]]:
    """The items that came next in each question, by number; those without a number can't be found, and count as one that is not."""
    number = {item: place for place, item in enumerate(ids)}
    found: dict[str, set[int]] = {}
    for row, item in targets.select("user_id", "item_id").iter_rows():
        found.setdefault(row, set()).add(number.get(item, -1 - len(found)))
    return found


def floor_lists(
    train: Sequences,
    text: FloatArray,
    time_is_order: bool,
    rows: list[str],
    histories: Sequence[IntArray],
    settings: Settings,
    progress: Progress,
) -> dict[str, pl.DataFrame]:
    """The lists of all floors, by name; `rows` name the questions of `histories`."""
    from tastemaker.training.baselines import baselines, recommend

    lists, depth = {}, max(20, *settings.evaluation.k)
    for place, (name, scorer) in enumerate(baselines(train, text, time_is_order, settings.train.seed)):
        lists[name] = lists_of(rows, recommend(scorer, histories, depth), train.item_ids)
        progress("baselines", place + 1, 5)
    return lists


def every(n: int) -> IntArray:
    """All item indices, int32 [n]."""
    import numpy as np

    return np.arange(n, dtype=np.int32)


def judged_of(
    lists: dict[str, pl.DataFrame],
    targets: pl.DataFrame,
    train: Dataset,
    words: str,
    facts: dict[str, Any],
    users: dict[str, str] | None = None,
) -> Judged:
    """Lists and targets as a report takes them; `users`: who asked each question, where a question is no user."""
    import polars as pl

    from tastemaker.evaluation.report import Judged

    popularity = train.events["item_id"].value_counts(name="count")
    lengths = train.events["user_id"].value_counts(name="count")
    if users is not None:
        names = pl.DataFrame({"row": list(users), "user_id": list(users.values())})
        lengths = names.join(lengths, on="user_id", how="left").select(pl.col("row").alias("user_id"), pl.col("count").fill_null(0))
    return Judged(lists, targets, popularity, lengths, len(train.item_ids()), words, users, dict(facts))
