"""The ranker's network and what it learns from: lists of held-back events as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.features.categories import Categories
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.ranker_input import RankerInput
from tastemaker.models.ranker import NEXT, Shape
from tastemaker.models.ranker_network import RankerNetwork
from tastemaker.schema.columns import Columns
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import RankerSettings
from tastemaker.training.alignment import directions
from tastemaker.training.ranker_rows import LABEL, RankerRows

STOP_SHARE = 0.15
"""Share of the learned questions by which training is stopped where it is best."""
BATCH = 32
LEAST_STEPS = 400
"""Small logs are passed more often, until this many steps are made."""


@dataclass(frozen=True)
class Examples:
    """What a network learns from; R rows of Q questions.

    Attributes:
        dense: float32 [R, X]. codes: int64 [R, C]. fusion: float32 [R].
        labels: float32 [R, H] of `heads`. positions: int64 [R], -1 where a row was not shown.
        begin: int64 [Q + 1]. target: place of the answer among its question's rows, int64 [Q], -1 where it is not there.
    """

    dense: FloatArray
    codes: NDArray[np.int64]
    fusion: FloatArray
    labels: FloatArray
    positions: NDArray[np.int64]
    begin: NDArray[np.int64]
    target: NDArray[np.int64]
    heads: tuple[str, ...]


def make_examples(
    rows: RankerRows,
    reduction: Reduction,
    preparation: Preparation,
    catalogue: pl.DataFrame,
    vectors: FloatArray,
    settings: RankerSettings,
) -> tuple[Examples, RankerInput, list[str]]:
    """The rows as a network reads them, how they are read, and a sentence for each head that was dropped."""
    categories = Categories(fields=settings.categories, buckets=settings.buckets)
    met = np.unique(rows.items)
    given = RankerInput(preparation, reduction, categories, *directions(vectors[met], rows.users, settings.vector_dim))
    names = categories.of_items(list(catalogue[met].iter_rows(named=True)))[np.searchsorted(met, rows.items)]
    for place, field_name in enumerate(categories.fields):
        if field_name == "user_id":
            who = {user: categories.of_asker(user, None)[place] for user in rows.asked[Columns.USER_ID].unique()}
            names[:, place] = [who[user] for user in rows.asked[Columns.USER_ID]]
    kept, notes = [], []
    learned = rows.learned
    for place, head in enumerate(rows.heads):
        least = [int(rows.labels[part, place].sum()) for part in (learned, ~learned)]
        if min(least) == 0:
            notes.append(
                f"Head {head!r} was dropped: {least[0]:,} of {int(learned.sum()):,} rows to learn from and {least[1]:,} of {int((~learned).sum()):,} to judge by bear it."
            )
        else:
            kept.append(place)
    label = rows.asked[LABEL].to_numpy()
    target = np.full(len(rows.begin) - 1, -1, dtype=np.int64)
    right = np.flatnonzero(label == 1.0)
    target[rows.owner[right]] = right - rows.begin[rows.owner[right]]
    dense = given.dense(rows.compared, rows.users[rows.owner], vectors[rows.items])
    heads = tuple(rows.heads[place] for place in kept)
    return Examples(dense, names, rows.plain, rows.labels[:, kept], rows.positions, rows.begin, target, heads), given, notes


def shape_of(examples: Examples, settings: RankerSettings) -> Shape:
    """The network's shape for these examples."""
    return Shape(
        dense=examples.dense.shape[1], fields=examples.codes.shape[1], buckets=settings.buckets, embedding=settings.embedding_dim,
        tasks=1 + len(examples.heads), body=settings.body, sharing=settings.sharing, cross_layers=settings.cross_layers,
        experts=settings.experts, hidden=tuple(settings.hidden),
    )  # fmt: skip


def fit_network(examples: Examples, learn: NDArray[np.int64], settings: RankerSettings, seed: int) -> tuple[RankerNetwork, float]:
    """Trains on the questions `learn`, stopped where a part of them held aside is best; gives the network and its loss there.

    The loss is the cross entropy of the softmax over each question's rows, and of each label; tasks are weighed by their uncertainty (A. Kendall et
    al., 2018: exp(-s) L + s/2, s learned, from log 2 L of the constant guess on) or by `task_weights`.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    mixed = random.permutation(learn)
    stop, rest = mixed[: round(len(mixed) * STOP_SHARE)], mixed[round(len(mixed) * STOP_SHARE) :]
    network = RankerNetwork(shape_of(examples, settings), settings.dropout)
    start = torch.tensor(_guess(examples, learn), dtype=torch.float32)
    uncertainty = torch.nn.Parameter(torch.log(2 * start))
    fixed = [settings.task_weights.get(name, 1.0) for name in (NEXT, *examples.heads)] if settings.task_weights else None
    optimiser = torch.optim.AdamW(
        [
            {"params": list(network.parameters()), "weight_decay": settings.weight_decay},
            {"params": [uncertainty], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
    rows = _Rows(examples)
    batches = max(1, -(-len(rest) // BATCH))
    epochs, done = max(settings.epochs, -(-LEAST_STEPS // batches)), 0
    steps = epochs * batches
    best = (
        float((rows.losses(network, stop) / start).sum()),
        {name: value.clone() for name, value in network.state_dict().items()},
    )
    for _ in range(epochs):
        network.train()
        mixed = random.permutation(rest)
        for begin in range(0, len(mixed), BATCH):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (1 - done / steps)
            losses = rows.loss(network, mixed[begin : begin + BATCH])
            weighed = losses @ torch.tensor(fixed) if fixed else (losses * torch.exp(-uncertainty) + uncertainty / 2).sum()
            optimiser.zero_grad(set_to_none=True)
            weighed.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            done += 1
        loss = float((rows.losses(network, stop) / start).sum())
        if loss < best[0]:
            best = loss, {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best[1])
    return network.eval(), best[0]


class _Rows:
    """Examples as tensors, questions padded to one length."""

    def __init__(self, examples: Examples) -> None:
        self.dense, self.codes = torch.from_numpy(examples.dense), torch.from_numpy(examples.codes)
        self.fusion, self.labels = torch.from_numpy(examples.fusion), torch.from_numpy(examples.labels)
        self.positions = torch.from_numpy(examples.positions)
        self.begin, self.target = examples.begin, examples.target
        self.shown = bool((examples.positions >= 0).any())

    def loss(self, network: RankerNetwork, questions: NDArray[np.int64]) -> Tensor:
        """Mean loss of each task, [T]."""
        begin, size = self.begin[questions], np.diff(self.begin)[questions]
        place = np.arange(size.max())
        real = place < size[:, None]
        flat = torch.from_numpy((begin[:, None] + place)[real])
        logits = network(self.dense[flat], self.codes[flat], self.fusion[flat])
        if network.training and self.shown:
            logits = logits + network.of_position(self.positions[flat])
        there = torch.from_numpy(self.target[questions] >= 0)
        first = torch.full(real.shape, -torch.inf).masked_scatter(torch.from_numpy(real), logits[:, 0])
        right = torch.from_numpy(self.target[questions].clip(0))
        listwise = F.cross_entropy(first[there], right[there]) if there.any() else logits.sum() * 0
        labels = F.binary_cross_entropy_with_logits(logits[:, 1:], self.labels[flat], reduction="none").mean(0)
        return torch.cat([listwise[None], labels])

    @torch.no_grad()
    def losses(self, network: RankerNetwork, questions: NDArray[np.int64]) -> Tensor:
        """The same without dropout and position tower, over many questions."""
        network.eval()
        parts = [questions[begin : begin + 512] for begin in range(0, len(questions), 512)]
        return torch.stack([self.loss(network, part) * (len(part) / len(questions)) for part in parts]).sum(0)


def _guess(examples: Examples, learn: NDArray[np.int64]) -> list[float]:
    """Loss of each task by a constant guess: what a loss is measured against."""
    there = learn[examples.target[learn] >= 0]
    first = 1.0 if not len(there) else float(np.log(np.maximum(np.diff(examples.begin)[there], 2)).mean())
    owner = np.repeat(np.isin(np.arange(len(examples.begin) - 1), learn), np.diff(examples.begin))
    share = np.clip(examples.labels[owner].mean(axis=0), 1e-6, 1 - 1e-6)
    return [first, *(-share * np.log(share) - (1 - share) * np.log(1 - share)).tolist()]
