"""BCE, gBCE, BPR and label smoothing give the value and the gradients of their formulas, written out one position at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tastemaker.models.binary import Opponents, bayesian_personalised_ranking, binary_cross_entropy, generalised_power
from tastemaker.models.losses import fused_cross_entropy, smoothing_gap

P, C, D, USERS = 700, 90, 8, 5
DTYPES = [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)]


class Toy:
    """Positions of five users; a column counts as often as it was drawn, the user's own columns (every target among them) never."""

    def __init__(self, weighted: bool = False) -> None:
        random = torch.Generator().manual_seed(0)
        self.hidden = (F.normalize(torch.randn(P, D, generator=random), dim=-1) * 6).requires_grad_()
        self.items = F.normalize(torch.randn(C, D, generator=random), dim=-1).requires_grad_()
        self.bias = torch.randn(C, generator=random).requires_grad_()
        self.user = torch.randint(0, USERS, (P,), generator=random)
        own = torch.rand(USERS, C, generator=random) < 0.3
        self.target = torch.stack([torch.multinomial(own[user].float(), 1, generator=random)[0] for user in self.user])
        times = torch.randint(0, 4, (C,), generator=random).float() * ~own
        self.weight = torch.rand(P, generator=random) * 3 if weighted else None
        self.share = times / times.sum(1, keepdim=True)

    def opponents(self) -> Opponents:
        return Opponents(self.target, self.user, self.share, self.weight)

    def plain(self, of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """`of` is given a positive logit, all logits and the shares of the negatives."""
        logits = self.hidden @ self.items.T + self.bias
        each = torch.stack([of(row[y], row, self.share[u]) for row, y, u in zip(logits, self.target, self.user, strict=True)])
        weight = torch.ones(P) if self.weight is None else self.weight
        return (each * weight).sum() / weight.sum()

    def agrees(self, wanted: torch.Tensor, found: torch.Tensor, tolerance: float) -> bool:
        parts = (self.hidden, self.items, self.bias)
        both = [torch.cat([part.flatten() for part in torch.autograd.grad(3 * loss, parts)]) for loss in (wanted, found)]
        near = float((both[0] - both[1]).norm() / both[0].norm()) < tolerance
        return near and abs(wanted.item() - found.item()) < tolerance * abs(wanted.item())


def _bce(negatives: int, power: float) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    def of(wanted: torch.Tensor, logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        right = torch.log(torch.sigmoid(wanted) ** power)
        wrong = (share * torch.log(1 - torch.sigmoid(logits))).sum()
        return -(right + negatives * wrong) / (negatives + 1)

    return of


def _bpr(wanted: torch.Tensor, logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    return -(share * torch.log(torch.sigmoid(wanted - logits))).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("negatives", "power"), [(1, 1.0), (20, 0.4)])
def test_bce_and_gbce_are_their_formula(negatives: int, power: float, dtype: torch.dtype, tolerance: float, weighted: bool) -> None:
    toy = Toy(weighted)
    found = binary_cross_entropy(toy.hidden, toy.items, toy.bias, toy.opponents(), negatives, power, dtype)
    assert toy.agrees(toy.plain(_bce(negatives, power)), found, tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_bpr_is_its_formula(dtype: torch.dtype, tolerance: float, weighted: bool) -> None:
    toy = Toy(weighted)
    found = bayesian_personalised_ranking(toy.hidden, toy.items, toy.bias, toy.opponents(), dtype)
    assert toy.agrees(toy.plain(_bpr), found, tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_smoothed_labels_are_those_of_torch(smoothing: float, weighted: bool) -> None:
    toy = Toy(weighted)
    each = F.cross_entropy(toy.hidden @ toy.items.T + toy.bias, toy.target, label_smoothing=smoothing, reduction="none")
    weight = torch.ones(P) if toy.weight is None else toy.weight
    parts = (toy.hidden, toy.items, toy.bias, toy.target)
    found = fused_cross_entropy(*parts, weight=toy.weight) + smoothing * smoothing_gap(*parts, toy.weight)
    assert toy.agrees((each * weight).sum() / weight.sum(), found, 1e-5)


@pytest.mark.parametrize(("negatives", "n_items", "t"), [(1, 1_000, 0.75), (256, 3_416, 0.75), (256, 3_416, 0.0), (64, 65, 1.0)])
def test_the_power_of_gbce_is_that_of_the_paper(negatives: int, n_items: int, t: float) -> None:
    alpha = negatives / (n_items - 1)
    assert generalised_power(negatives, n_items, t) == pytest.approx(alpha * (t * (1 - 1 / alpha) + 1 / alpha))


def test_gbce_learns_the_chance_that_bce_overrates() -> None:
    """One user, three items; trained to the end by full gradients, t = 1 finds the true chance of the items (the paper's theorem)."""
    truth = torch.tensor([0.2, 0.3, 0.5])

    def learned(power: float) -> torch.Tensor:
        logits = torch.zeros(3, requires_grad=True)
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(150):
            optimiser.zero_grad()
            loss = torch.zeros(())
            for item in range(3):
                share = torch.full((1, 3), 0.5)
                share[0, item] = 0
                one, zero = torch.ones(1, 1), torch.tensor([0])
                opponents = Opponents(torch.tensor([item]), zero, share)
                loss = loss + truth[item] * binary_cross_entropy(one, logits[:, None], torch.zeros(3), opponents, 1, power)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return torch.sigmoid(logits.detach())

    assert torch.allclose(learned(generalised_power(1, 3, 1.0)), truth, atol=0.01)
    assert (learned(1.0) > truth + 0.05).all()


def test_where_no_negative_is_left_only_the_positive_counts() -> None:
    """A catalogue of one item: nothing to be told apart from."""
    hidden, items = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[1.5]], requires_grad=True)
    bias = torch.tensor([0.25], requires_grad=True)
    alone = Opponents(torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 1))
    loss = binary_cross_entropy(hidden, items, bias, alone, 3)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-3.25)) / 4)
    slope = -1 / (1 + math.exp(3.25)) / 4
    found = [part.item() for part in torch.autograd.grad(loss, (hidden, items, bias))]
    assert found == pytest.approx([1.5 * slope, 2.0 * slope, slope])
    ranking = bayesian_personalised_ranking(hidden, items, bias, alone)
    assert ranking.item() == 0.0
    assert [part.item() for part in torch.autograd.grad(ranking, (hidden, items, bias))] == [0.0, 0.0, 0.0]
    assert generalised_power(3, 1, 0.75) == 1.0


def test_far_logits_stay_finite() -> None:
    hidden, items = torch.tensor([[400.0]], requires_grad=True), torch.tensor([[-1.0], [1.0]], requires_grad=True)
    opponents = Opponents(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
    for loss, value in (
        (binary_cross_entropy(hidden, items, torch.zeros(2), opponents, 1), 400.0),
        (bayesian_personalised_ranking(hidden, items, torch.zeros(2), opponents), 800.0),
    ):
        assert loss.item() == pytest.approx(value)
        assert all(bool(torch.isfinite(part).all()) for part in torch.autograd.grad(loss, (hidden, items)))
