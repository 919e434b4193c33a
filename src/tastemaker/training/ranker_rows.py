"""Rows that a ranker can learn from: one question's target among other candidates, with what was known of each just before.

Questions are the held-back events of the fit. Candidates come from channels that have learned from earlier events alone, and every feature is
as of the question's own moment, so that no row knows more than a service would have known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tastemaker.data.sequences import Sequences
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray, IntArray, QueryState
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout
from tastemaker.training.preparation import fit_preparation, fit_reduction
from tastemaker.training.unclicked import left_alone

QUESTIONS = 2_000
NEGATIVES = 24
LOWEST = -20.0
"""What a channel's score is where it has none, and no score lies lower."""
QUESTION, LABEL = "question", "label"
RANKER_NEGATIVES = ("unclicked", "candidates", "both")


@dataclass(frozen=True)
class RankerRows:
    """Rows in the order of time.

    Attributes:
        asked: question int64, user_id, item_id, timestamp (epoch seconds), label (1.0 the item that came next, else 0.0).
        names: of the raw columns, F: channels, fusion, features, reduced text.
        values: float32 [R, F].
    """

    asked: pl.DataFrame
    names: list[str]
    values: FloatArray

    def table(self, preparation: Preparation) -> pl.DataFrame:
        """Who, what, when, the label, and the prepared columns: what a ranker is trained on."""
        ready = preparation.apply(self.values)
        return self.asked.with_columns(pl.Series(name, ready[:, place]) for place, name in enumerate(preparation.kept))


@dataclass(frozen=True)
class Known:
    """What the rows are made from.

    Attributes:
        held: the questions. channels, fusion: of a fit that has not seen them.
        user_vectors: gives float32 [B, D] for histories.
        log: every event of the journal, whatever its type.
        features: declared over the catalogue.
        text: whitened text vectors, float32 [N, T].
        sequences: the whole histories. item_ids: names of the indices.
    """

    held: Holdout
    channels: Channels
    fusion: Fusion
    user_vectors: Callable[[Sequence[IntArray]], FloatArray]
    log: pl.DataFrame
    features: FeatureSet
    text: FloatArray
    sequences: Sequences
    item_ids: list[str]


def ranker_rows(known: Known, settings: Settings) -> tuple[RankerRows, Reduction]:
    """Each question's target and some of the other candidates, with all their columns; and the reduction of the text vectors.

    The other candidates are what the same answer showed in vain, where the log tells, filled up with what the channels found; see
    `sampling.ranker`. Questions whose target no channel found and no answer showed are left out.
    """
    seed, held = settings.train.seed, known.held
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(held.targets))[:QUESTIONS]
    chosen = chosen[np.argsort(held.times[chosen], kind="stable")]
    histories = [held.histories[row] for row in chosen]
    states = known.channels.states(histories, known.user_vectors(histories), held.users[chosen])
    found = known.channels.candidates(states, settings.fusion.depth, held.known)
    beside = left_alone(known.sequences, known.log, known.item_ids, settings.sampling)
    parts, owners, labels = [], [], []
    for row, one, state in zip(chosen.tolist(), found, states, strict=True):
        shown = beside.of(int(held.users[row]), int(held.targets[row])) if beside is not None else held.targets[:0]
        items = _told_apart(int(held.targets[row]), shown, one.items, settings.sampling.ranker, random)
        if len(items):
            parts.append((items, columns_of(known.channels, known.fusion, state, one, items)))
            owners += [row] * len(items)
            labels += [1.0] + [0.0] * (len(items) - 1)
    asked = _asked(known, np.array(owners, dtype=np.int64), [items for items, _ in parts], labels)
    reduction = fit_reduction("text_part", known.text, settings.features.text_columns, seed=seed)
    width = 2 * len(known.channels.names) + 1
    values = np.concatenate(
        [
            np.concatenate([columns for _, columns in parts]) if parts else np.zeros((0, width), np.float32),
            known.features.rows(known.log, asked),
            reduction.apply(known.text[np.concatenate([items for items, _ in parts])] if parts else known.text[:0]),
        ],
        axis=1,
    )
    names = [f"{name}.{what}" for what in ("score", "near") for name in known.channels.names] + ["fusion"]
    return RankerRows(asked, [*names, *known.features.names, *reduction.names], values.astype(np.float32)), reduction


def prepare(rows: RankerRows, settings: Settings) -> Preparation:
    """The preparation that suits the rows: see `training.preparation.fit_preparation`."""
    label = rows.asked[LABEL].to_numpy().astype(np.float32)
    chosen = settings.features
    return fit_preparation(rows.names, rows.values, label, chosen.scaling, chosen.select, settings.train.seed)


def _told_apart(target: int, shown: IntArray, found: IntArray, kind: str, random: np.random.Generator) -> IntArray:
    """The target and what it is told apart from, at most `NEGATIVES`, int32; nothing where neither an answer nor a channel holds it."""
    if not len(shown) and (kind == "unclicked" or target not in found):
        return found[:0]
    others = random.permutation(shown)[:NEGATIVES]
    if kind != "unclicked":
        more = random.permutation(np.setdiff1d(found, [target, *shown.tolist()]))
        others = np.concatenate([others, more[: NEGATIVES - len(others)]])
    return np.concatenate([[target], others]).astype(np.int32)


def columns_of(channels: Channels, fusion: Fusion, state: QueryState, found: ChannelScores, items: IntArray) -> FloatArray:
    """What the channels and the fusion say of some items, float32 [n, 2C + 1]: as candidates, or where they are none, apart.

    Args:
        state: who is asked for. found: the candidates, by item. items: int32 [n].
    """
    length = len(state.history)
    columns = _channel_columns(found, fusion.score(found, length))
    place = np.searchsorted(found.items, items).clip(max=max(len(found.items) - 1, 0))
    missing = found.items[place] != items if len(found.items) else np.ones(len(items), dtype=bool)
    rows = columns[place] if len(found.items) else np.zeros((len(items), columns.shape[1]), dtype=np.float32)
    if missing.any():
        apart = channels.score_items(state, items[missing], found.depth)
        rows[missing] = _channel_columns(apart, fusion.score(apart, length))
    return rows


def _channel_columns(found: ChannelScores, fusion: FloatArray) -> FloatArray:
    """Scores of all channels, 1 / (1 + place) in each, and the fusion's score, float32 [M, 2C + 1]."""
    scores = np.nan_to_num(found.scores, nan=LOWEST, neginf=LOWEST).clip(LOWEST)
    near = np.where(found.ranks < found.depth, 1 / (1.0 + found.ranks), 0.0)
    return np.concatenate([scores, near, fusion[:, None]], axis=1).astype(np.float32)


def _asked(known: Known, owners: IntArray, items: list[IntArray], labels: list[float]) -> pl.DataFrame:
    chosen = np.concatenate(items) if items else np.zeros(0, np.int32)
    return pl.DataFrame(
        {
            QUESTION: owners,
            Columns.USER_ID: [known.sequences.user_ids[user] for user in known.held.users[owners]],
            Columns.ITEM_ID: [known.item_ids[item] for item in chosen],
            Columns.TIMESTAMP: known.held.times[owners],
            LABEL: np.array(labels, dtype=np.float32),
        },
        schema_overrides={Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String},
    )
