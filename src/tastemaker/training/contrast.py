"""A sample that stands for the whole catalogue in a training step: drawn items, the batch's own targets, and hard negatives where they are asked for.

The full softmax scores every item at every position. Here a position is told apart only from items that all positions of a batch share, each
logit lowered by the logarithm of the chance that the item is there, so that the sum over the sample stands for the sum over all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.data.negatives import NONE, Hard, OwnItems, Positives, popular_chance, uniform_chance
from tastemaker.data.sequences import Sequences
from tastemaker.models.item_tower import ItemRows
from tastemaker.models.losses import fused_cross_entropy, log_inclusion, stratified_cross_entropy
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import SamplingSettings

FULL_SOFTMAX_ITEMS = 100_000
SAMPLED_ITEMS = 8_192
CORRECTIONS = ("log_q", "log_q_negatives", "none")
_ROWS = 256  # positions whose whole ranking is in memory at a time, when hard negatives are looked up


@dataclass(frozen=True)
class Batch:
    """Positions of one training step.

    Attributes:
        states: user states, float32 [P, D].
        items: item vectors, float32 [N, D], or what computes those that are asked for.
        bias: of each item, float32 [N].
        target: the item that came next, int64 [P].
        users: whose position it is, int64 [P].
        weight: what each position counts, float32 [P]; None: all alike.
    """

    states: Tensor
    items: Tensor | ItemRows
    bias: Tensor
    target: Tensor
    users: NDArray[np.int64]
    weight: Tensor | None = None


class Draw:
    """Draws items with replacement, in a time that does not grow with the catalogue.

    Args:
        chance: of each item, not negative, float [N].
    """

    def __init__(self, chance: Tensor) -> None:
        self._upto = chance.double().cumsum(0)
        self._last = int(torch.nonzero(chance)[-1]) if bool((chance > 0).any()) else 0

    def __call__(self, count: int) -> Tensor:
        """Item numbers, int64 [count]."""
        places = torch.searchsorted(self._upto, torch.rand(count, dtype=torch.float64) * self._upto[-1], right=True)
        return places.clamp_(
            max=self._last
        )  # a number that is rounded up to the whole sum belongs to the last item that can be drawn


class Contrast:
    """The sampled softmax of one training.

    `log_q` lowers all logits (Bengio and Senécal 2008; for batches Yi et al. 2019). `log_q_negatives` leaves the positive's: it was not drawn, it is there for
    certain (Khrylchenko et al. 2025, arXiv 2507.09331, from whom this differs in giving each position its own positive's weight only through the softmax).

    Args:
        chance: of each item in one draw, float32 [N].
        draws: items drawn for a batch.
        share: of each item among the targets, float32 [N]: the chance by which the batch's own targets are there. None takes them for further draws by `chance`.
        correction: one of `CORRECTIONS`.
        hard: where each position's own hard negatives come from, and how many.

    All is drawn by torch's generator, so that a seeded step is the same step again.
    """

    def __init__(
        self,
        chance: Tensor,
        draws: int,
        share: Tensor | None = None,
        correction: str = "log_q",
        hard: tuple[Hard, int] | None = None,
    ) -> None:
        if correction not in CORRECTIONS:
            raise SettingsError(f"sampling.correction is {correction!r}; expected {', '.join(CORRECTIONS)}.")
        self._chance, self._draws, self._share, self._correction, self._hard = chance, draws, share, correction, hard
        self._drawn = Draw(chance)

    @property
    def touches_all(self) -> bool:
        """Whether a step needs the vectors of the whole catalogue."""
        return self._hard is not None

    def loss(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """Weighted mean of the corrected cross entropy over the positions, a scalar.

        Args:
            batch: the positions.
            dtype: of the large matrix products; hard negatives are computed in float32 always.
        """
        target = batch.target
        drawn = self._drawn(self._draws)
        chosen, place = torch.unique(torch.cat([target, drawn]), return_inverse=True)
        place = place[: len(target)]
        bias, lift = batch.bias[chosen], None
        if self._correction != "none":
            correction = self._log_inclusion(chosen, len(target))
            bias = bias - correction
            lift = correction[place] if self._correction == "log_q_negatives" else None
        if self._hard is None:
            return fused_cross_entropy(batch.states, batch.items[chosen], bias, place, dtype, batch.weight, lift)
        shared = batch.states @ batch.items[chosen].T + bias
        if lift is not None:
            shared = shared.scatter_add(1, place[:, None], lift[:, None])
        return self._with_hard(batch, chosen, shared, place, *self._hard)

    def _log_inclusion(self, chosen: Tensor, targets: int) -> Tensor:
        if self._share is None:
            return log_inclusion(self._chance[chosen], self._draws + targets)
        return log_inclusion(self._chance[chosen], self._draws, self._share[chosen], targets)

    def _with_hard(self, batch: Batch, chosen: Tensor, shared_PC: Tensor, place: Tensor, source: Hard, count: int) -> Tensor:
        """Two strata: a row's pool, of which `count` are drawn, and all other items, for which the shared sample stands."""
        pool_PM = self._pools(batch, source)
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        drawn = source.draw_from(pool_PM, count, random)
        hard_Pn = torch.from_numpy(drawn.items.astype(np.int64))
        absent_Pn, hard_Pn = hard_Pn == NONE, hard_Pn.clamp(min=0)
        logits_Pn = (batch.states[:, None] * batch.items[hard_Pn]).sum(-1) + batch.bias[hard_Pn]
        barred_PM = pool_PM
        if self._correction == "none":
            barred_PM = drawn.items
        else:  # each of a pool of m items is among the n drawn by a chance of n / m
            logits_Pn = logits_Pn - (torch.from_numpy(drawn.log_probability) + (~absent_Pn).sum(1, keepdim=True).clamp(min=1).log())
        logits_Pn = logits_Pn.masked_fill(absent_Pn, -torch.inf)
        return stratified_cross_entropy(shared_PC, place, logits_Pn, _members(barred_PM, chosen, len(batch.items)), batch.weight)

    @torch.no_grad()
    def _pools(self, batch: Batch, source: Hard) -> NDArray[np.int32]:
        """Each position's pool by the model of this moment; scores are logits over the temperature, so that a margin is one of cosines."""
        pools = []
        assert isinstance(batch.items, Tensor)  # `touches_all`
        for begin in range(0, len(batch.target), _ROWS):
            states = batch.states[begin : begin + _ROWS]
            scores = torch.addmm(batch.bias, states, batch.items.T) / states.norm(dim=-1, keepdim=True)
            targets = batch.target[begin : begin + _ROWS].numpy().astype(np.int32)
            pools.append(source.pool(Positives(batch.users[begin : begin + _ROWS], targets, scores.numpy())))
        return np.concatenate(pools)


def contrast_of(sequences: Sequences, chosen: SamplingSettings, targets: NDArray[np.float64]) -> Contrast | None:
    """What the settings ask for; None for the full softmax.

    Args:
        sequences: the training log.
        chosen: the section `sampling`.
        targets: how often each item is a target in an epoch, [N].

    Raises:
        SettingsError: an unknown word.
    """
    counts = sequences.counts()
    share, uniform = _tensor(targets / max(targets.sum(), 1e-12)), uniform_chance(sequences.n_items)
    popular = _tensor(popular_chance(counts, chosen.alpha))
    if chosen.negatives == "full":
        mixed = _tensor(0.5 * popular_chance(counts, 1.0) + 0.5 * uniform)
        return Contrast(mixed, SAMPLED_ITEMS, None, chosen.correction) if sequences.n_items > FULL_SOFTMAX_ITEMS else None
    if chosen.negatives == "uniform":
        return Contrast(_tensor(uniform), chosen.count, share, chosen.correction)
    if chosen.negatives == "popularity":
        return Contrast(popular, chosen.count, share, chosen.correction)
    if chosen.negatives == "in_batch":
        return Contrast(share, 0, share, chosen.correction)
    if chosen.negatives == "hard":
        source = Hard(OwnItems(sequences), chosen.hard_pool, chosen.hard_skip, chosen.hard_margin)
        return Contrast(popular, chosen.count, share, chosen.correction, (source, chosen.hard_count))
    raise SettingsError(f"sampling.negatives is {chosen.negatives!r}; expected full, uniform, popularity, in_batch or hard.")


def _tensor(chance: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(chance.astype(np.float32))


def _members(items_PM: NDArray[np.int32], chosen: Tensor, n_items: int) -> Tensor:
    """Which shared columns each row's items hold, bool [P, C]."""
    column_N = np.full(n_items + 1, -1, dtype=np.int64)  # the last one is that of NONE
    column_N[chosen.numpy()] = np.arange(len(chosen))
    column_PM = column_N[items_PM]
    found = np.zeros((len(items_PM), len(chosen)), dtype=bool)
    row, place = np.nonzero(column_PM >= 0)
    found[row, column_PM[row, place]] = True
    return torch.from_numpy(found)
