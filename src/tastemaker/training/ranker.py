"""Learns the ranker from the lists of held-back events, calibrates its chances, and judges whether it may order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.data.select import condition
from tastemaker.evaluation.calibration import Reliability, reliability
from tastemaker.evaluation.significance import paired
from tastemaker.features.categories import Categories
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.ranker_input import RankerInput
from tastemaker.models.calibration import Calibration
from tastemaker.models.ranker import BODIES, NEXT, SHARINGS, Plan, Ranker, Shape
from tastemaker.models.ranker_network import RankerNetwork
from tastemaker.schema.columns import Columns
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.reports import Interval
from tastemaker.schema.settings import RankerSettings, Settings
from tastemaker.training.alignment import agreement, directions, rotation
from tastemaker.training.calibration import KINDS, fit_calibration
from tastemaker.training.ranker_rows import LABEL, RankerRows

MODES = ("auto", "always", "chances", "off")
FEWEST = 100
"""Questions with their answer in the list that there must be to learn from."""
STOP_SHARE = 0.15
"""Share of the learned questions by which training is stopped where it is best."""
BATCH = 32
LEAST_STEPS = 400
"""Small logs are passed more often, until this many steps are made."""
CUTOFF = 10
RESAMPLES = 1_000
SURE = 0.05
"""The ranker orders where no more than this share of the resampled gains over the fusion lies below 0."""


@dataclass(frozen=True)
class Gate:
    """The order of the ranker beside that of the fusion, NDCG@10 on questions that it has not learned from.

    Where there are questions of `hold_out_later` they judge, and the last events of users only must not be ordered worse: what holds only where channels
    know nothing of the time of a question, or only where they do, is no gain to rely on.

    Attributes:
        fusion, ranker: means. gain: of the ranker, with its interval, users resampled. p: that there is no difference.
        new: gain on targets that no channel has learned from; 0 where there was none (the holdout's pretended-new items are not asked for).
        questions: judged. passed: the ranker orders.
        last: mean gain on the last events of `last_questions` more; 0 where these are what judges.
    """

    fusion: float
    ranker: float
    gain: Interval
    p: float
    new: float
    questions: int
    passed: bool
    last: float = 0.0
    last_questions: int = 0


@dataclass(frozen=True)
class TrainedRanker:
    """A ranker, and how it was judged.

    Attributes:
        ranker, input: what answers. gate: whether it orders. heads: how well each head's chances hold on questions that were not learned from, of users that their
            calibration had not seen.
        rows: what it learned from and was judged by. first: its `next` logits of these, float32 [R].
        notes: sentences for whoever trains.
        metrics: the same in figures.
    """

    ranker: Ranker
    input: RankerInput
    gate: Gate
    heads: dict[str, Reliability]
    rows: RankerRows
    first: FloatArray
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, float | int] = field(default_factory=dict)

    def for_vectors(self, early: FloatArray, later: FloatArray) -> TrainedRanker:
        """The same ranker for the item vectors of another fit, float32 [n, D] of the same items each."""
        turn = rotation(early, later)
        given = replace(self.input, of_user=turn @ self.input.of_user, of_item=turn @ self.input.of_item)
        return replace(self, input=given, metrics={**self.metrics, "ranker_vectors_agree": agreement(early, later, turn)})

    def export(self, folder: Path) -> None:
        """Writes what answers, and `report.json` with gate and heads."""
        folder.mkdir(parents=True, exist_ok=True)
        self.ranker.save(folder)
        self.input.save(folder)
        (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(self.report()), indent=1))

    def report(self) -> dict[str, object]:
        """Gate, heads and notes as plain values."""
        return {
            "gate": msgspec.to_builtins(self.gate),
            "heads": {name: msgspec.to_builtins(one) for name, one in self.heads.items()},
            "notes": self.notes,
        }


def check_ranker(settings: Settings) -> None:
    """Tells of mistakes in the settings before anything is trained.

    Raises:
        SettingsError: an unknown word, a text that is no label, weights of heads that are not there, or weights that weigh nothing.
    """
    chosen = settings.ranker
    for name, value, known in (
        ("mode", chosen.mode, MODES),
        ("body", chosen.body, BODIES),
        ("sharing", chosen.sharing, SHARINGS),
        ("calibration", chosen.calibration, KINDS),
    ):
        if value not in known:
            raise SettingsError(f"ranker.{name} is {value!r}; expected {', '.join(known)}.")
    if not chosen.hidden or min(chosen.hidden) < 1:
        raise SettingsError(f"ranker.hidden is {list(chosen.hidden)}; expected one or more widths of at least 1.")
    for head in chosen.heads:
        condition(head)
    if NEXT in chosen.heads:
        raise SettingsError(f"ranker.heads names {NEXT!r}, which every ranker has. Leave it out.")
    if chosen.heads:
        for name, given in (("weights", chosen.weights), ("task_weights", chosen.task_weights)):
            unknown = [head for head in given if head not in (NEXT, *chosen.heads)]
            if unknown:
                raise SettingsError(
                    f"ranker.{name} names {unknown[0]!r}, which is none of ranker.heads: {', '.join(chosen.heads)}."
                )
    if chosen.weights and not any(chosen.weights.values()):
        raise SettingsError(f"ranker.weights is {chosen.weights}, which weighs nothing: every score would be 0.")


def train_ranker(
    rows: RankerRows,
    reduction: Reduction,
    preparation: Preparation,
    catalogue: pl.DataFrame,
    vectors: FloatArray,
    boost: float,
    settings: Settings,
) -> TrainedRanker | str:
    """The ranker of these rows, or the sentence that says why there is none.

    Args:
        rows: of a fit that has not seen their targets. reduction, preparation: of their columns.
        catalogue: one row an item. vectors: unit item vectors of that fit, float32 [N, D].
        boost: what the fusion adds for new items.
    """
    chosen = settings.ranker
    examples, given, notes = make_examples(rows, reduction, preparation, catalogue, vectors, chosen)
    learn, judge = np.flatnonzero(~rows.judged), np.flatnonzero(rows.judged)
    if (examples.target[learn] >= 0).sum() < FEWEST or not (examples.target[judge] >= 0).any():
        return f"No ranker: of {len(learn):,} questions to learn from the answer of too few was among the {chosen.depth} best (at least {FEWEST})."
    network, loss = fit_network(examples, learn, chosen, settings.train.seed)
    arrays = {name: value.detach().numpy().copy() for name, value in network.state_dict().items() if name != "positions"}
    found = float((examples.target >= 0).mean())
    plain = tuple(Calibration() for _ in examples.heads)
    plan = Plan(
        shape=network.shape, heads=examples.heads, calibrations=plain, orders=True, found=found,
        boost=boost * float(arrays["fusion_scale"][0]), depth=chosen.depth,
    )  # fmt: skip
    ranker = Ranker(plan, arrays)
    logits = ranker.logits(examples.dense, examples.codes, rows.plain)
    settled = ranker.settled(logits, rows.plain, rows.new, rows.begin)
    first = (settled + plan.boost * rows.raised).astype(np.float32)
    later = judge[rows.later[judge]]
    asked = later if len(later) else judge
    gate = judge_order(rows, examples, first, asked, np.setdiff1d(judge, asked), chosen.mode)
    calibrations, heads, forward = _calibrated(rows, examples, logits, asked, chosen.calibration)
    plan = msgspec.structs.replace(plan, calibrations=calibrations, orders=gate.passed)
    notes.append(_sentence(gate, chosen.mode))
    metrics: dict[str, float | int] = {
        "ranker_ndcg": gate.ranker, "ranker_ndcg_fusion": gate.fusion, "ranker_orders": int(gate.passed), "ranker_epoch_loss": loss,
        **{f"ranker_auc {name}": one.auc for name, one in heads.items()},
        **{f"ranker_ratio {name}": one.ratio for name, one in heads.items()},
        **{f"ranker_ratio_later {name}": ratio for name, ratio in forward.items()},
    }  # fmt: skip
    return TrainedRanker(Ranker(plan, arrays), given, gate, heads, rows, first, notes, metrics)


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


def judge_order(
    rows: RankerRows, examples: Examples, first: FloatArray, questions: NDArray[np.int64], last: NDArray[np.int64], mode: str
) -> Gate:
    """NDCG@10 of the order by `first`, float32 [R], beside that of the fusion, on questions that it has not learned from, and on the `last` ones."""
    (ours, theirs), others = (
        [gains(score, examples.begin, examples.target, some) for score in (first, rows.scores)] for some in (questions, last)
    )
    of_last = float((others[0] - others[1]).mean()) if len(last) else 0.0
    users = rows.asked[Columns.USER_ID].to_numpy()[rows.begin[questions]]
    groups = np.unique(users, return_inverse=True)[1].astype(np.int64)
    gain, p = paired(ours, theirs, RESAMPLES, 0, groups)
    sure = _share_below(ours - theirs, groups) <= SURE and of_last >= 0
    there = examples.target[questions] >= 0
    new = np.zeros(len(questions), dtype=bool)
    new[there] = rows.new[rows.begin[questions[there]] + examples.target[questions[there]]]
    of_new = float((ours - theirs)[new].mean()) if new.any() else 0.0
    passed = mode == "always" or (mode == "auto" and sure)
    return Gate(float(theirs.mean()), float(ours.mean()), gain, p, of_new, len(questions), passed, of_last, len(last))


def gains(
    scores: FloatArray, begin: NDArray[np.int64], target: NDArray[np.int64], questions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """NDCG@10 of each question's only answer when its rows are ordered by scores [R]; 0 where it is not among them.

    Args:
        begin, target: as in `Examples`. questions: which ones.
    """
    found = np.zeros(len(questions))
    for row, question in enumerate(questions.tolist()):
        place = int(target[question])
        if place >= 0:
            mine = scores[begin[question] : begin[question + 1]]
            rank = int((mine > mine[place]).sum())
            found[row] = 1 / np.log2(rank + 2.0) if rank < CUTOFF else 0.0
    return found


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


def _calibrated(
    rows: RankerRows, examples: Examples, logits: FloatArray, judge: NDArray[np.int64], kind: str
) -> tuple[tuple[Calibration, ...], dict[str, Reliability], dict[str, float]]:
    """Calibrations fitted on all judged questions, which are of a time that was not learned from; how well they hold; and how well over time.

    The figures are of chances by calibrations of the other half of the users, so that nobody is told by a calibration that has seen him. The ratios
    over time are of calibrations of the earlier half of the questions, on the later half: they tell drift, which no calibration can know.
    """
    inside = np.isin(rows.owner, judge)
    users = np.unique(rows.asked[Columns.USER_ID].to_numpy()[inside], return_inverse=True)[1]
    half = (np.random.default_rng(0).permutation(users.max(initial=0) + 1) % 2)[users]
    early = np.isin(rows.owner[inside], judge[: len(judge) // 2])
    calibrations, figures, forward = [], {}, {}
    for place, head in enumerate(examples.heads):
        mine, label = logits[inside, place + 1], examples.labels[inside, place]
        told = np.empty(len(mine), dtype=np.float32)
        for part in (half == 0, half == 1):
            told[part] = fit_calibration(mine[~part], label[~part], kind).apply(mine[part])
        figures[head] = reliability(told, label)
        forward[head] = reliability(fit_calibration(mine[early], label[early], kind).apply(mine[~early]), label[~early]).ratio
        calibrations.append(fit_calibration(mine, label, kind))
    return tuple(calibrations), figures, forward


def _share_below(gap: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Share of the resampled mean gains that are not above 0, users resampled."""
    random, sums, counts = np.random.default_rng(0), np.bincount(groups, gap), np.bincount(groups)
    means = []
    for _ in range(RESAMPLES):
        some = random.integers(0, len(sums), len(sums))
        means.append(sums[some].sum() / counts[some].sum())
    return float((np.array(means) <= 0).mean())


def _sentence(gate: Gate, mode: str) -> str:
    gain = f"NDCG@10 {gate.ranker:.4f} against {gate.fusion:.4f} of the fusion on {gate.questions:,} later questions (gain {gate.gain.low:+.4f} to {gate.gain.high:+.4f})"
    if gate.last_questions:
        gain += f" and {gate.last:+.4f} on the last events of users ({gate.last_questions:,})"
    if mode == "always":
        return f"The ranker orders, as ranker.mode is always: {gain}."
    if mode == "chances":
        return f"The fusion orders, as ranker.mode is chances: {gain}."
    return (
        f"The ranker orders: {gain}."
        if gate.passed
        else f"The fusion orders, the ranker only tells chances: {gain} is no sure gain."
    )
