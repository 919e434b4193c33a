"""The loss of the sequence model by name, and what it tells the right next item apart from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.data.negatives import OwnItems, popular_chance
from tastemaker.data.sequences import Sequences
from tastemaker.models.binary import Opponents, bayesian_personalised_ranking, binary_cross_entropy, generalised_power
from tastemaker.models.losses import fused_cross_entropy, smoothing_gap
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.training import contrast
from tastemaker.training.contrast import Batch, Contrast, Draw, contrast_of

BINARY = ("bce", "gbce")
LOSSES = ("softmax", *BINARY, "bpr")
SHARED = ("full", "uniform", "popularity", "in_batch")


class Objective(Protocol):
    """What training makes smaller."""

    @property
    def touches_all(self) -> bool:
        """Whether a step needs the vectors of the whole catalogue."""

    @property
    def divides(self) -> bool:
        """Whether it is the cross entropy among all items, which parts of the catalogue can share."""

    def loss(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Weighted mean over the positions, a scalar; `dtype` is that of the large matrix products."""


class Softmax:
    """Cross entropy among all items, or among a sample that stands for them, with smoothed labels where asked for.

    Args:
        sample: None for all items.
        smoothing: share of each label that is spread over all items alike.
    """

    def __init__(self, sample: Contrast | None, smoothing: float = 0.0) -> None:
        self._sample, self._smoothing = sample, smoothing

    @property
    def touches_all(self) -> bool:
        """Whether a step needs the vectors of the whole catalogue."""
        return self._sample is None or self._sample.touches_all or self._smoothing > 0

    @property
    def divides(self) -> bool:
        """Whether it is the cross entropy among all items, which parts of the catalogue can share."""
        return self._sample is None and self._smoothing == 0

    def loss(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Weighted mean over the positions, a scalar."""
        if self._sample is None:
            assert isinstance(batch.items, Tensor)  # `touches_all`
            plain = fused_cross_entropy(batch.states, batch.items, batch.bias, batch.target, dtype, batch.weight)
        else:
            plain = self._sample.loss(batch, dtype)
        if self._smoothing == 0.0:
            return plain
        assert isinstance(batch.items, Tensor)
        return plain + self._smoothing * smoothing_gap(batch.states, batch.items, batch.bias, batch.target, batch.weight)


class OneByOne:
    """BCE, gBCE or BPR against items that the user never met.

    The columns are drawn anew for each batch and shared by its positions; an item that was drawn twice counts twice, and no logit is corrected: these losses are those of
    their negatives' distribution.

    Args:
        loss: `bce`, `gbce` or `bpr`.
        own: which items each user met: they are nobody's negatives there.
        chance: of each item in one draw, float32 [N]; None: no draw, all items alike, which is what uniform draws estimate.
        draws: columns drawn for a batch; 0 takes the batch's own targets for drawn.
        negatives: K of `bce` and `gbce`.
        calibration: t of `gbce`.
    """

    def __init__(self, loss: str, own: OwnItems, chance: Tensor | None, draws: int, negatives: int, calibration: float) -> None:
        self._loss, self._own, self._draws, self._negatives = loss, own, draws, negatives
        self._drawn = None if chance is None else Draw(chance)
        self._power = generalised_power(negatives, own.n_items, calibration) if loss == "gbce" else 1.0

    @property
    def touches_all(self) -> bool:
        """Whether a step needs the vectors of the whole catalogue."""
        return self._drawn is None

    @property
    def divides(self) -> bool:
        """Whether it is the cross entropy among all items, which parts of the catalogue can share."""
        return False

    def loss(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Weighted mean over the positions, a scalar."""
        chosen, opponents = self.opponents(batch)
        whole = isinstance(batch.items, Tensor) and len(chosen) == len(batch.items)
        items, bias = (batch.items, batch.bias) if whole else (batch.items[chosen], batch.bias[chosen])
        assert isinstance(items, Tensor)
        if self._loss == "bpr":
            return bayesian_personalised_ranking(batch.states, items, bias, opponents, dtype)
        return binary_cross_entropy(batch.states, items, bias, opponents, self._negatives, self._power, dtype)

    def opponents(self, batch: Batch) -> tuple[Tensor, Opponents]:
        """The items of the columns, int64 [C] and ascending, and each user's negatives among them."""
        target = batch.target
        if self._drawn is None:
            chosen, place, often = torch.arange(len(batch.items)), target, torch.ones(len(batch.items))
        else:
            drawn = self._drawn(self._draws) if self._draws else target
            chosen, places = torch.unique(torch.cat([target, drawn]), return_inverse=True)
            place, often = places[: len(target)], torch.bincount(places[len(target) :], minlength=len(chosen)).float()
        users, user = np.unique(batch.users, return_inverse=True)
        share = often.repeat(len(users), 1)
        row, column = _columns_of(*self._own.pairs(users), chosen.numpy(), len(batch.items))
        share[torch.from_numpy(row), torch.from_numpy(column)] = 0.0
        share /= share.sum(1, keepdim=True).clamp_min(1.0)
        return chosen, Opponents(place, torch.from_numpy(user), share, batch.weight)


def _columns_of(
    row: NDArray[np.int64], item: NDArray[np.int64], chosen: NDArray[np.int64], n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, column) of those (row, item) whose item has a column."""
    column = np.full(n_items, -1, dtype=np.int64)
    column[chosen] = np.arange(len(chosen))
    found = column[item]
    return row[found >= 0], found[found >= 0]


def objective_of(sequences: Sequences, settings: Settings, targets: NDArray[np.float64]) -> Objective:
    """What the settings ask for.

    Args:
        sequences: the training log.
        settings: the sections `sequence`, `sampling` and `train`.
        targets: how often each item is a target in an epoch, [N].

    Raises:
        SettingsError: an unknown word, or one that does not go with the loss.
    """
    chosen, sampling = settings.sequence, settings.sampling
    if chosen.loss not in LOSSES:
        raise SettingsError(f"sequence.loss is {chosen.loss!r}; expected {', '.join(LOSSES)}.")
    if chosen.loss == "softmax":
        return Softmax(contrast_of(sequences, sampling, targets), chosen.label_smoothing)
    if chosen.label_smoothing:
        raise SettingsError(f"sequence.label_smoothing goes with the loss softmax; the loss is {chosen.loss!r}. Set it to 0.")
    if sampling.negatives not in SHARED:
        raise SettingsError(
            f"sampling.negatives is {sampling.negatives!r}; the loss {chosen.loss!r} shares its negatives: expected {', '.join(SHARED)}."
        )
    chance, draws = None, sampling.count
    if sampling.negatives in ("popularity", "in_batch"):
        chance = torch.from_numpy(popular_chance(sequences.counts(), sampling.alpha).astype(np.float32))
    elif sampling.negatives == "uniform" or sequences.n_items > contrast.FULL_SOFTMAX_ITEMS:
        chance = torch.ones(sequences.n_items)
    if sampling.negatives == "in_batch":
        draws = 0
    elif sampling.negatives == "full":
        draws = contrast.SAMPLED_ITEMS
    return OneByOne(chosen.loss, OwnItems(sequences), chance, draws, chosen.loss_negatives, chosen.gbce_t)
