"""Teaches the item tower and the user tower together which item comes next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.data.sequences import Sequences
from tastemaker.data.weights import event_weights, window_chance
from tastemaker.models.item_tower import ItemRows, ItemTower
from tastemaker.models.losses import part_of_cross_entropy
from tastemaker.models.user_sequence import UserSequence
from tastemaker.schema.protocols import FloatArray, IntArray, Progress
from tastemaker.schema.settings import SequenceSettings, Settings
from tastemaker.schema.signals import Signals
from tastemaker.training.contrast import Batch
from tastemaker.training.group import gathered, rank, rows_of, values_of_all, world
from tastemaker.training.loop import LoopOptions, LoopResult, Task, Watch, run
from tastemaker.training.objective import BINARY, objective_of
from tastemaker.training.optimisers import OptimiserOptions
from tastemaker.training.precision import compute_dtype, use_threads

VALIDATION_ROWS = 4_000
PRIOR_WEIGHT = 0.5
SMALLEST_BATCH = 8
BATCHES_AN_EPOCH = 64  # a log with fewer full batches than this takes smaller ones
_CUTOFF = 10
_ROWS = 65_536  # items computed at a time where all are wanted
_CELLS = 2**25  # scores in memory at a time


@dataclass(frozen=True)
class Validation:
    """Held-back next items.

    Attributes:
        histories: what came before, item indices, oldest first.
        targets: what came next, int [R].
    """

    histories: Sequence[IntArray]
    targets: NDArray[np.integer]


@dataclass(frozen=True)
class Start:
    """Where a training begins that is not the first.

    Attributes:
        model: learned on part of the same log, over the same items.
        epoch: of the schedule, at which its weights are gone on from.
    """

    model: SequenceModel
    epoch: int


class SequenceModel(nn.Module):
    """Both towers and the popularity prior: logits of the next item = user · item + bias."""

    def __init__(self, signals: Signals, counts: Tensor, settings: SequenceSettings) -> None:
        super().__init__()
        met = counts > 0
        self.items = ItemTower(signals, met, settings.dim, settings.id_dropout, settings.id_rows, settings.signal_dropout)
        shape = (settings.dim, settings.layers, settings.heads, settings.max_length, settings.dropout)
        self.users = UserSequence(*shape, settings.block)
        prior = torch.log1p(counts.float())
        rarity = math.log(settings.loss_negatives) if settings.loss in BINARY else 0.0  # K negatives for each positive
        self.bias = nn.Parameter(PRIOR_WEIGHT * (prior - prior.mean()) - rarity)

    @torch.no_grad()
    def begin_from(self, other: SequenceModel) -> None:
        """Takes over what another model learned; items that it had no events of keep the numbers and the prior that they have here."""
        met_N = other.items.met[:, 0] > 0
        mine = self.state_dict()
        for name, value in other.state_dict().items():
            of_items = name == "bias" or (name == "items.identity" and not self.items.hashed)
            mine[name].copy_(torch.where(met_N.reshape(-1, *[1] * (value.ndim - 1)), value, mine[name]) if of_items else value)

    @torch.inference_mode()
    def item_vectors(self) -> FloatArray:
        """Unit item vectors, float32 [N, D]."""
        self.eval()
        found = np.empty((self.items.n_items, self.items.dim), dtype=np.float32)
        for begin in range(0, len(found), _ROWS):
            rows = torch.arange(begin, min(begin + _ROWS, len(found)))
            found[begin : begin + _ROWS] = self.items(rows).numpy()
        return found

    @torch.inference_mode()
    def user_vectors(self, histories: Sequence[IntArray], batch: int = 512) -> FloatArray:
        """User vectors, float32 [B, D]; zero for an empty history."""
        self.eval()
        vectors = self.items() if self.items.n_items <= _ROWS else ItemRows(self.items)
        found = np.zeros((len(histories), self.items.dim), dtype=np.float32)
        latest = [history[-self.users.max_length :] for history in histories]
        order = np.argsort([len(history) for history in latest], kind="stable")
        for begin in range(0, len(order), batch):
            rows = order[begin : begin + batch]
            ids, lengths = pad([latest[row] for row in rows])
            found[rows] = self.users(vectors[ids], lengths).numpy()
        return found


def pad(histories: Sequence[IntArray]) -> tuple[Tensor, Tensor]:
    """Histories padded on the right with 0, int64 [B, L], and their lengths, int64 [B]."""
    lengths = np.array([len(history) for history in histories], dtype=np.int64)
    ids = np.zeros((len(histories), max(1, int(lengths.max(initial=0)))), dtype=np.int64)
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    if inside.any():
        ids[inside] = np.concatenate(list(histories))
    return torch.from_numpy(ids), torch.from_numpy(lengths)


class SequenceTask(Task):
    """Next-item prediction at every real position of every history (the dense all-action objective).

    Raises:
        SettingsError: `sequence.loss` or the section `sampling` asks for what is unknown or what this log can't give.
    """

    def __init__(self, sequences: Sequences, model: SequenceModel, settings: Settings, validation: Validation | None) -> None:
        self.model: SequenceModel = model
        self._validation = validation
        self._items = torch.from_numpy(sequences.items.astype(np.int64))
        self._begin, self._length = windows(sequences, settings.sequence.max_length)
        self._seed, self._dtype = settings.train.seed, compute_dtype(settings.train.precision)
        largest = min(settings.sequence.batch_size, max(SMALLEST_BATCH, len(self._begin) // BATCHES_AN_EPOCH))
        self._steps = math.ceil(len(self._begin) / largest)
        self._owner = np.searchsorted(sequences.offsets, self._begin, side="right") - 1
        chosen = settings.sampling
        weight = event_weights(sequences, chosen)
        self._weight = None if weight is None else torch.from_numpy(weight)
        if weight is not None:
            upto = np.concatenate([[0.0], np.cumsum(weight, dtype=np.float64)])
            self._sums = upto[self._begin + self._length + 1] - upto[self._begin + 1]
        self._rare_share = chosen.rare_share if len(self._begin) else 0.0
        met = sequences.items[_places(self._begin, self._length) + 1]
        self._balanced = window_chance(met, self._length) if self._rare_share else np.zeros(len(self._begin))
        often = 1 - self._rare_share + self._rare_share * len(self._begin) * self._balanced
        targets: NDArray[np.float64] = np.bincount(met, weights=np.repeat(often, self._length), minlength=sequences.n_items)  # type: ignore[assignment]
        self._objective = objective_of(sequences, settings, targets)
        self.divides = self._objective.divides and not model.items.hashed and sequences.n_items >= world()
        self.apart = ("items.identity", "bias")

    def steps(self) -> int:
        """Batches of an epoch."""
        return self._steps

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Window numbers; histories of like length share a batch, so that little is padded."""
        random = np.random.default_rng([self._seed, epoch])
        drawn = np.arange(len(self._length))
        if self._rare_share:
            replaced = random.random(len(drawn)) < self._rare_share
            drawn[replaced] = random.choice(len(drawn), size=int(replaced.sum()), p=self._balanced / self._balanced.sum())
        length = self._length[drawn]
        jitter = random.random(len(length)) * (0.3 * length + 2)
        order = drawn[np.argsort(length + jitter, kind="stable")]
        parts = np.array_split(order, self._steps) if self._steps else []
        for place in random.permutation(len(parts)):
            yield parts[place]

    def loss(self, batch: NDArray[np.int64]) -> Tensor:
        """Weighted mean of the objective over the batch's positions; in a group that divides, this process's share of it."""
        if self.divides and world() > 1:
            return self._share_of_loss(batch)
        begin, length = torch.from_numpy(self._begin[batch]), torch.from_numpy(self._length[batch])
        place_L = torch.arange(int(length.max()))
        real_BL = place_L < length[:, None]
        source_BL = torch.where(real_BL, begin[:, None] + place_L, 0)
        items = self._items[source_BL]
        vectors: Tensor | ItemRows
        if self._objective.touches_all:
            vectors = whole_ND = self.model.items()
            met_BLD = F.embedding(items, whole_ND)
        else:
            vectors = ItemRows(self.model.items)
            met_BLD = vectors[items]
        states_BLD = self.model.users.states(met_BLD)
        event_P = source_BL[real_BL] + 1
        states_PD, target_P = states_BLD[real_BL], self._items[event_P]
        weight_P = None if self._weight is None else self._weight[event_P]
        users_P = np.repeat(self._owner[batch], self._length[batch])
        return self._objective.loss(Batch(states_PD, vectors, self.model.bias, target_P, users_P, weight_P), self._dtype)

    def _share_of_loss(self, batch: NDArray[np.int64]) -> Tensor:
        """Each process reads some of the histories and scores some of the items, for all positions of the batch: only states go round, no table does."""
        rows = rows_of(len(self.model.bias))
        dealt = [batch[process :: world()] for process in range(world())]
        event_P = torch.from_numpy(np.concatenate([_places(self._begin[part], self._length[part]) for part in dealt]))
        counts = [int(self._length[part].sum()) for part in dealt]
        own_P = torch.arange(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        item_P, target_P = self._items[event_P], self._items[event_P + 1]
        vectors_nD = self.model.items.part(rows)
        met_M, place_P = torch.unique(item_P, return_inverse=True)
        here_M = (met_M >= rows.start) & (met_M < rows.stop)
        met_MD = gathered(vectors_nD[met_M[here_M] - rows.start], here_M.nonzero()[:, 0], len(met_M))
        length = torch.from_numpy(self._length[dealt[rank()]])
        real_BL = torch.arange(int(length.max()) if len(length) else 0) < length[:, None]
        place_BL = torch.zeros(real_BL.shape, dtype=torch.int64)
        place_BL[real_BL] = place_P[own_P]
        own_PD = self.model.users.states(F.embedding(place_BL, met_MD))[real_BL] if len(own_P) else met_MD[:0]
        states_PD = gathered(own_PD, own_P, len(event_P))
        column_P = torch.where((target_P >= rows.start) & (target_P < rows.stop), target_P - rows.start, -1)
        weight_P = None if self._weight is None else self._weight[event_P + 1]
        bias_n = self.model.bias[rows]
        return part_of_cross_entropy(states_PD, vectors_nD, bias_n, column_P, values_of_all, self._dtype, weight_P)

    def weight(self, batch: NDArray[np.int64]) -> float:
        """What the positions of some windows count together."""
        if self._weight is None:
            return float(self._length[batch].sum())
        return float(self._sums[batch].sum())

    def fingerprint(self) -> str:
        """A hash over the histories and the items' signals."""
        found = xxhash.xxh3_64()
        signals = [vectors.numpy() for vectors in self.model.items.signals()]
        for values in (self._begin, self._length, self._items.numpy(), *signals):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def validate(self) -> float | None:
        """NDCG@10 over the whole catalogue, seen items left out; None without held-back events."""
        if self._validation is None or len(self._validation.targets) == 0:
            return None
        return ndcg(self.model, self._validation)


def windows(sequences: Sequences, longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pieces of up to `longest` events, each with an event behind it to predict; cut from the newest end.

    Returns:
        Where each piece begins in `sequences.items`, and its length; every event but the first of a user is a target once.
    """
    pairs = np.maximum(sequences.lengths() - 1, 0)
    pieces = -(-pairs // longest)
    user = np.repeat(np.arange(sequences.n_users), pieces)
    number = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    end = sequences.offsets[1:][user] - 1 - number * longest
    begin = np.maximum(end - longest, sequences.offsets[:-1][user])
    return begin.astype(np.int64), (end - begin).astype(np.int64)


def _places(begin: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the events of all windows stand in `sequences.items`, one window behind the other, [T]; the target of each is behind it."""
    return np.repeat(begin - (np.cumsum(length) - length), length) + np.arange(int(length.sum()))


@torch.inference_mode()
def ndcg(model: SequenceModel, validation: Validation, batch: int = 512) -> float:
    """Mean NDCG@10 of one target a row; a tie counts against the target."""
    batch = max(1, min(batch, _CELLS // max(len(model.bias), 1)))
    vectors, users = torch.from_numpy(model.item_vectors()), torch.from_numpy(model.user_vectors(validation.histories))
    total = 0.0
    for begin in range(0, len(validation.targets), batch):
        scores = users[begin : begin + batch] @ vectors.T + model.bias
        target = torch.from_numpy(np.asarray(validation.targets[begin : begin + batch], dtype=np.int64))
        wanted = scores.gather(1, target[:, None])
        for row, history in enumerate(validation.histories[begin : begin + batch]):
            scores[row, torch.from_numpy(history.astype(np.int64))] = -torch.inf
        scores.scatter_(1, target[:, None], -torch.inf)
        place = (scores >= wanted).sum(1)
        total += float(torch.where(place < _CUTOFF, 1 / torch.log2(place + 2.0), 0.0).sum())
    return total / len(validation.targets)


def train_sequence(
    sequences: Sequences,
    signals: Signals,
    settings: Settings,
    validation: Validation | None = None,
    stop_after: int | None = None,
    what: str = "sequence",
    progress: Progress | None = None,
    run_dir: Path | None = None,
    start: Start | None = None,
    watch: Watch | None = None,
) -> tuple[SequenceModel, LoopResult]:
    """Learns both towers from histories.

    Args:
        sequences: histories.
        signals: what the items are.
        settings: sections `sequence`, `sampling` and `train` are read.
        validation: held-back events for early stopping; None trains the whole schedule.
        stop_after: epochs to run of the schedule (for a refit).
        what, progress, run_dir: as in `training.loop.run`.
        start: weights to go on from; None: new ones.
        watch: as in `training.loop.run`.
    """
    use_threads(settings.train.threads)
    torch.manual_seed(settings.train.seed)
    model = SequenceModel(signals, torch.from_numpy(sequences.counts()), settings.sequence)
    if start is not None:
        model.begin_from(start.model)
    task = SequenceTask(sequences, model, settings, validation)
    chosen = settings.sequence
    epochs = max(chosen.epochs, math.ceil(chosen.min_steps / max(task.steps(), 1))) if task.steps() else 0
    options = LoopOptions(
        epochs=epochs,
        begin_at=start.epoch if start is not None else 0,
        stop_after=min(stop_after, epochs) if stop_after else None,
        patience=chosen.patience,
        optimiser=OptimiserOptions(
            settings.train.optimiser,
            settings.train.schedule,
            chosen.learning_rate,
            chosen.weight_decay,
            chosen.warmup,
            settings.train.ema,
        ),
        accumulate=settings.train.accumulate,
        checkpoint_seconds=settings.train.checkpoint_seconds,
        seed=settings.train.seed,
    )
    return model, run(task, options, what, progress, run_dir, watch)
