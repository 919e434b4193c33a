"""Learns the ranker from the lists of held-back events, calibrates its chances, and judges whether it may order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.select import condition
from tastemaker.evaluation.calibration import Reliability
from tastemaker.features.preparation import Preparation, Reduction
from tastemaker.features.ranker_input import RankerInput
from tastemaker.models.calibration import Calibration
from tastemaker.models.ranker import BODIES, NEXT, SHARINGS, Plan, Ranker
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.protocols import FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.training.alignment import agreement, rotation
from tastemaker.training.calibration import KINDS
from tastemaker.training.ranker_fit import Examples, fit_network, make_examples
from tastemaker.training.ranker_gate import Gate, calibrated, judge_order, sentence_of
from tastemaker.training.ranker_rows import RankerRows

MODES = ("auto", "always", "chances", "off")
FEWEST = 100
"""Questions with their answer in the list that there must be to learn from."""


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
    parts = np.unique(rows.folds)
    if parts[0] < 0:
        ranker, loss = _fitted(examples, learn, boost, settings)
        logits, first = _told(ranker, rows, examples)
    else:
        judge = np.arange(len(rows.judged))
        ranker, loss = _fitted(examples, judge, boost, settings)
        logits, first = _crossed(rows, examples, parts, boost, settings)
    later = judge[rows.later[judge]]
    asked = later if len(later) else judge
    gate = judge_order(rows, examples, first, asked, np.setdiff1d(judge, asked), chosen.mode)
    calibrations, heads, forward = calibrated(rows, examples, logits, asked, chosen.calibration)
    plan = msgspec.structs.replace(ranker.plan, calibrations=calibrations, orders=gate.passed)
    notes.append(sentence_of(gate, chosen.mode))
    metrics: dict[str, float | int] = {
        "ranker_ndcg": gate.ranker, "ranker_ndcg_fusion": gate.fusion, "ranker_orders": int(gate.passed), "ranker_epoch_loss": loss,
        **{f"ranker_auc {name}": one.auc for name, one in heads.items()},
        **{f"ranker_ratio {name}": one.ratio for name, one in heads.items()},
        **{f"ranker_ratio_later {name}": ratio for name, ratio in forward.items()},
    }  # fmt: skip
    return TrainedRanker(Ranker(plan, ranker.arrays), given, gate, heads, rows, first, notes, metrics)


def _fitted(examples: Examples, learn: NDArray[np.int64], boost: float, settings: Settings) -> tuple[Ranker, float]:
    """A ranker that learned from these questions, its chances as they come; and its loss on those by which it was stopped."""
    network, loss = fit_network(examples, learn, settings.ranker, settings.train.seed)
    arrays = {name: value.detach().numpy().copy() for name, value in network.state_dict().items() if name != "positions"}
    plan = Plan(
        shape=network.shape, heads=examples.heads, calibrations=tuple(Calibration() for _ in examples.heads), orders=True,
        found=float((examples.target >= 0).mean()), boost=boost * float(arrays["fusion_scale"][0]), depth=settings.ranker.depth,
    )  # fmt: skip
    return Ranker(plan, arrays), loss


def _told(ranker: Ranker, rows: RankerRows, examples: Examples) -> tuple[FloatArray, FloatArray]:
    """What a ranker says of all rows: logits, [R, 1 + H], and what `next` orders by, float32 [R]."""
    logits = ranker.logits(examples.dense, examples.codes, rows.plain)
    settled = ranker.settled(logits, rows.plain, rows.new, rows.begin)
    return logits, (settled + ranker.plan.boost * rows.raised).astype(np.float32)


def _crossed(
    rows: RankerRows, examples: Examples, parts: NDArray[np.int8], boost: float, settings: Settings
) -> tuple[FloatArray, FloatArray]:
    """The same, each row by a ranker that has not learned from its user: all questions judge, and what answers learns from all of them."""
    told = [_told(_fitted(examples, np.flatnonzero(rows.folds != part), boost, settings)[0], rows, examples) for part in parts]
    own = np.searchsorted(parts, rows.folds)[rows.owner]
    logits, first = (np.stack(both)[own, np.arange(len(own))] for both in zip(*told, strict=True))
    return logits, first
