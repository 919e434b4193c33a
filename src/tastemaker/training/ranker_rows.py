"""Rows that a ranker can learn from: the lists that the fusion would have given at held-back events, with what was known just before.

Candidates come from channels that have learned from earlier events alone, and every feature is as of the question's own moment, so that no row knows
more than a service would have known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.sequences import Sequences
from tastemaker.features.feature_set import FeatureSet
from tastemaker.features.likeness import LIKENESS, likenesses
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.ranker_input import HISTORY, channel_columns, channel_names, compared, cosines
from tastemaker.index.channels import Channels
from tastemaker.models.fusion import Fusion, boosted
from tastemaker.schema.candidates import ChannelScores
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray, IntArray, QueryState
from tastemaker.schema.settings import Settings
from tastemaker.training.holdout import Holdout
from tastemaker.training.preparation import fit_preparation
from tastemaker.training.ranker_labels import heads_of, labels_of
from tastemaker.training.unclicked import left_alone

QUESTION, LABEL = "question", "label"
OF_QUESTIONS = ("users", "judged", "folds", "later")
"""What there is one of for each question; of the other arrays there is one for each row."""
RANKER_NEGATIVES = ("unclicked", "candidates", "both")
JUDGED = 0.3
"""Share of the questions, the latest, that nothing learns from: chances are calibrated and the order is judged by them."""
_BATCH = 256


@dataclass(frozen=True)
class RankerRows:
    """Rows in the order of time, those of one question together; R rows of Q questions.

    Attributes:
        asked: question int64, user_id, item_id, timestamp (epoch seconds), label (1.0 the item that came next, else 0.0).
        names: of the columns, F: channels, fusion, features, reduced text.
        values: float32 [R, F], as they are. compared: what a ranker reads of them: some relative to their list, and 0 what counts other people's events.
            The channels of `hold_out`, which takes the last events of each user, know of other people's later ones; beside them a count as of the moment
            would tell what was still to come. And 0 the length of the history: all items of a list share it, and questions are asked at the ends of histories, so
            that a ranker would learn it of long ones and be asked about short ones.
        heads: labels of the settings. labels: whether each holds, float32 [R, H].
        begin: where each question's rows begin, int64 [Q + 1].
        items: item indices, int32 [R]. users: user vectors of the questions, float32 [Q, D].
        scores: of the fusion, float32 [R]. plain: the same without the boost of new items. raised: bool [R], items that the boost is for.
        new: bool [R], items that the channels have not learned from.
        positions: places at which items were shown, int64 [R], -1 where they were not.
        judged: bool [Q], questions that nothing may learn from.
        folds: int8 [Q], parts of the users, the judged ones part 0, where times can't be compared: what learns from two parts can be judged by the third. -1: the
            time decides.
        later: bool [Q], questions whose channels knew nothing of what anybody did after a moment before them (`hold_out_later`).
    """

    asked: pl.DataFrame
    names: list[str]
    values: FloatArray
    compared: FloatArray
    heads: tuple[str, ...]
    labels: FloatArray
    begin: NDArray[np.int64]
    items: IntArray
    users: FloatArray
    scores: FloatArray
    plain: FloatArray
    raised: NDArray[np.bool_]
    new: NDArray[np.bool_]
    positions: NDArray[np.int64]
    judged: NDArray[np.bool_]
    folds: NDArray[np.int8]
    later: NDArray[np.bool_]

    @property
    def owner(self) -> NDArray[np.int64]:
        """Which question each row belongs to, counted from 0, int64 [R]."""
        return np.repeat(np.arange(len(self.begin) - 1), np.diff(self.begin))

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Rows that may be learned from, bool [R]."""
        return ~self.judged[self.owner]

    def table(self, preparation: Preparation) -> pl.DataFrame:
        """Who, what, when, the label, and the prepared columns: what a ranker is trained on."""
        ready = preparation.apply(self.compared)
        return self.asked.with_columns(pl.Series(name, ready[:, place]) for place, name in enumerate(preparation.kept))

    def joined(self, other: RankerRows) -> RankerRows:
        """Both together, in the order of time; columns and heads are the same."""
        begins = np.concatenate([self.begin, self.begin[-1] + other.begin[1:]])
        behind = int(self.asked[QUESTION].to_numpy().max(initial=-1)) + 1
        moved = other.asked.with_columns(pl.col(QUESTION) + behind)
        asked, sizes = pl.concat([self.asked, moved]), np.diff(begins)
        when = asked[Columns.TIMESTAMP].to_numpy()[begins[:-1]]
        order = np.argsort(when, kind="stable")
        begin = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        rows = np.arange(begin[-1]) + np.repeat(begins[:-1][order] - begin[:-1], sizes[order])

        def both(name: str) -> Any:
            whole = np.concatenate([getattr(self, name), getattr(other, name)])
            return whole[order if name in OF_QUESTIONS else rows]

        fields = [one.name for one in fields_of(self) if one.name not in ("asked", "names", "heads", "begin")]
        return replace(self, asked=asked[rows], begin=begin, **{name: both(name) for name in fields})


@dataclass(frozen=True)
class Known:
    """What the rows are made from.

    Attributes:
        held: the questions. channels: of a fit that has not seen them. fusion: learned beside these channels.
        user_vectors: gives float32 [B, D] for histories.
        log: every event of the journal, whatever its type.
        features: declared over the catalogue; None where the log has no times.
        text: whitened text vectors, float32 [N, T].
        sequences: the whole histories. item_ids: names of the indices.
    """

    held: Holdout
    channels: Channels
    fusion: Fusion
    user_vectors: Callable[[Sequence[IntArray]], FloatArray]
    log: pl.DataFrame
    features: FeatureSet | None
    text: FloatArray
    sequences: Sequences
    item_ids: list[str]


@dataclass(frozen=True)
class List:
    """One question's rows, n of them.

    Attributes:
        items: int32 [n]. columns: float32 [n, 2C + 7].
        scores, plain, raised: as in `RankerRows`, [n]. counts: training events, [n].
        positions: int64 [n].
    """

    items: IntArray
    columns: FloatArray
    scores: FloatArray
    plain: FloatArray
    raised: NDArray[np.bool_]
    counts: FloatArray
    positions: NDArray[np.int64]


def ranker_rows(
    known: Known, reduction: Reduction, questions: int, settings: Settings, by_time: bool, later: bool = False
) -> RankerRows:
    """The lists of held-back events, with all their columns and labels.

    Args:
        reduction: of the text vectors. questions: most of them.
        by_time: the latest are taken, and the latest of these judged; else some drawn by the seed, and those of some users are judged.
        later: the questions are those of `hold_out_later`.

    Items that the holdout pretends to be new are left out: they are new to the channels and old to everything else, which no live item is, and they are
    answers far more often than new items are. What is learned of them would not hold. The fusion has learned from most of the questions, so that
    beside it a ranker gains a little less here than it will.

    A list holds what the same answer showed in vain, where the log tells (see `sampling.ranker`), then the fusion's best, `ranker.depth` in all. A
    target that is among neither is not in its list.
    """
    held, random = known.held, np.random.default_rng(settings.train.seed)
    chosen = random.permutation(np.flatnonzero(~held.fresh[held.targets]))
    if by_time:  # the latest: the channels know other people's events of after an early question
        chosen = chosen[np.argsort(-held.times[chosen], kind="stable")]
    chosen = chosen[:questions]
    chosen = chosen[np.argsort(held.times[chosen], kind="stable")]
    vectors = known.user_vectors([held.histories[row] for row in chosen])
    kept, lists = _lists(known, chosen, vectors, settings, random)
    begin = np.concatenate([[0], np.cumsum([len(one.items) for one in lists])]).astype(np.int64)
    items = np.concatenate([held.targets[:0], *(one.items for one in lists)]).astype(np.int32)
    asked = _asked(known, np.repeat(chosen[kept], np.diff(begin)), items)
    heads = heads_of(known.log, settings)
    names, values, read = _columns(known, asked, items, begin, lists, [held.histories[row] for row in chosen[kept]], settings)
    texts = reduction.apply(known.text[items])
    floats = np.zeros(0, np.float32)
    folds = np.full(len(kept), -1, np.int8) if by_time else _folds(known, chosen[kept], random)
    return RankerRows(
        asked=asked,
        names=names + reduction.names,
        values=np.concatenate([*values, texts], axis=1).astype(np.float32),
        compared=np.concatenate([*read, texts], axis=1).astype(np.float32),
        heads=heads,
        labels=labels_of(known.log, asked, heads, settings.ranker.horizon_days),
        begin=begin,
        items=items,
        users=vectors[kept],
        scores=np.concatenate([floats, *(one.scores for one in lists)]),
        plain=np.concatenate([floats, *(one.plain for one in lists)]),
        raised=np.concatenate([np.zeros(0, bool), *(one.raised for one in lists)]),
        new=np.concatenate([floats, *(one.counts for one in lists)]) == 0,
        positions=np.concatenate([np.zeros(0, np.int64), *(one.positions for one in lists)]),
        judged=folds == 0 if not by_time else np.arange(len(kept)) >= round(len(kept) * (1 - JUDGED)),
        folds=folds,
        later=np.full(len(kept), later),
    )


def _columns(
    known: Known,
    asked: pl.DataFrame,
    items: IntArray,
    begin: NDArray[np.int64],
    lists: Sequence[List],
    histories: Sequence[IntArray],
    settings: Settings,
) -> tuple[list[str], list[FloatArray], list[FloatArray]]:
    """Names of the columns besides the text's, the tables of them as they are, and what a ranker reads of these; see `RankerRows`."""
    names, alike, told = channel_names(known.channels.names), None, None
    values = [np.concatenate([np.zeros((0, len(names)), np.float32), *(one.columns for one in lists)])]
    plain = values[0].copy()
    plain[:, names.index(HISTORY)] = 0.0
    if settings.ranker.likeness:
        alike = likenesses(items, histories, begin, known.channels.text.rows, known.channels.items.rows)
        values.append(alike)
        names += LIKENESS
    if known.features is not None:
        values.append(known.features.rows(known.log, asked))
        names += known.features.names
        told = values[-1] * known.features.personal
    return names, values, compared(plain, told, begin, alike)


def prepare(rows: RankerRows, settings: Settings) -> Preparation:
    """The preparation that suits the rows that may be learned from: see `training.preparation.fit_preparation`."""
    learned = rows.learned
    label = rows.asked[LABEL].to_numpy().astype(np.float32)[learned]
    chosen = settings.features
    return fit_preparation(rows.names, rows.compared[learned], label, chosen.scaling, chosen.select, settings.train.seed)


def _lists(
    known: Known, chosen: NDArray[np.int64], vectors: FloatArray, settings: Settings, random: np.random.Generator
) -> tuple[list[int], list[List]]:
    """The lists of questions, and which of the questions they belong to: those without a row are left out."""
    held, kept, lists = known.held, [], []
    beside = left_alone(known.sequences, known.log, known.item_ids, settings.sampling)
    for begin in range(0, len(chosen), _BATCH):
        part = slice(begin, begin + _BATCH)
        histories = [held.histories[row] for row in chosen[part]]
        states = known.channels.states(histories, vectors[part], held.users[chosen[part]])
        candidates = known.channels.candidates(states, settings.fusion.depth, held.known & ~held.fresh)
        for place, (state, found) in enumerate(zip(states, candidates, strict=True), begin):
            row = int(chosen[place])
            user, target = int(held.users[row]), int(held.targets[row])
            shown = beside.of(user, target) if beside is not None else held.targets[:0]
            scores = known.fusion.score(found, len(state.history))
            items = _offered(found.items[np.argsort(-scores, kind="stable")], target, shown, settings, random)
            if len(items):
                kept.append(place)
                places = beside.positions(user, target, items) if beside is not None else np.full(len(items), -1, np.int64)
                lists.append(list_of(known.channels, known.fusion, state, found, scores, items, places))
    return kept, lists


def _offered(best: IntArray, target: int, shown: IntArray, settings: Settings, random: np.random.Generator) -> IntArray:
    """The items of a list, int32: what was shown with the target, filled up with the best candidates, as `sampling.ranker` wants."""
    kind, depth = settings.sampling.ranker, settings.ranker.depth
    if kind == "unclicked" and not len(shown):
        return best[:0]
    if len(shown):
        shown = np.concatenate([[target], random.permutation(shown)[: depth - 1]])
    more = best[~np.isin(best, shown)] if kind != "unclicked" else best[:0]
    return np.concatenate([shown, more])[:depth].astype(np.int32)


def list_of(
    channels: Channels,
    fusion: Fusion,
    state: QueryState,
    found: ChannelScores,
    scores: FloatArray,
    items: IntArray,
    positions: NDArray[np.int64],
) -> List:
    """What the channels and the fusion say of some items: as candidates, or where they are none, apart.

    Args:
        state: who is asked for. found: the candidates, by item. scores: of the fusion, [M].
        items: int32 [n]. positions: where they were shown, [n].
    """
    length, best = len(state.history), fusion.without_boost(found, scores)
    place = np.searchsorted(found.items, items).clip(max=max(len(found.items) - 1, 0))
    missing = found.items[place] != items if len(found.items) else np.ones(len(items), dtype=bool)
    if missing.all():
        whole = channels.score_items(state, items, found.depth)
    else:
        whole = _part(found, place)
        if missing.any():
            apart = channels.score_items(state, items[missing], found.depth)
            whole.scores[missing], whole.ranks[missing], whole.counts[missing] = apart.scores, apart.ranks, apart.counts
    own = fusion.score(whole, length) if missing.any() else scores[place]
    plain = fusion.without_boost(whole, own)
    cosine = cosines(state.user_vector, channels.items.rows(items))
    columns = channel_columns(whole, plain, [best], [length], cosine, np.array([0, len(items)]))
    return List(items, columns, own, plain, boosted(whole), whole.counts, positions)


def _part(found: ChannelScores, places: NDArray[np.int64]) -> ChannelScores:
    return ChannelScores(
        found.items[places], found.channels, found.scores[places], found.ranks[places], found.counts[places], found.depth
    )


def _folds(known: Known, questions: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int8]:
    """The part of each question's user: 0 for a share of `JUDGED`, 1 and 2 for a half each of the others."""
    users = np.unique(known.held.users)
    part = np.empty(len(users), dtype=np.int8)
    first = round(len(users) * JUDGED)
    part[random.permutation(len(users))] = np.where(np.arange(len(users)) < first, 0, 1 + np.arange(len(users)) % 2)
    return part[np.searchsorted(users, known.held.users[questions])]


def _asked(known: Known, owners: NDArray[np.int64], items: IntArray) -> pl.DataFrame:
    held = known.held
    return pl.DataFrame(
        {
            QUESTION: owners,
            Columns.USER_ID: [known.sequences.user_ids[user] for user in held.users[owners]],
            Columns.ITEM_ID: [known.item_ids[item] for item in items],
            Columns.TIMESTAMP: held.times[owners],
            LABEL: (held.targets[owners] == items).astype(np.float32),
        },
        schema_overrides={Columns.USER_ID: pl.String, Columns.ITEM_ID: pl.String},
    )
