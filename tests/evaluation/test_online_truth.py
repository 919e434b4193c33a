"""Figures of live traffic: other policies judged by the log of one, experiments that may be looked at, two rankers in one list."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.evaluation.experiment import MISMATCH, difference, sample_ratio, variant_of
from tastemaker.evaluation.interleaving import team_draft
from tastemaker.evaluation.off_policy import doubly_robust, ips, snips


class World:
    """Situations, things and the chance that each is taken: what nobody knows in life."""

    def __init__(self, seed: int, situations: int = 6, things: int = 8) -> None:
        self.random = np.random.default_rng(seed)
        self.chance = self.random.beta(1, 6, (situations, things))
        self.logged = self.random.dirichlet(np.full(things, 2.0), situations)
        self.target = self.random.dirichlet(np.full(things, 2.0), situations)

    @property
    def truth(self) -> float:
        return float((self.target * self.chance).sum(axis=1).mean())

    def log(self, n: int) -> tuple[np.ndarray, ...]:
        """Situation, thing, reward, propensity of the log and of the target."""
        situation = self.random.integers(len(self.chance), size=n)
        thing = (self.random.random((n, 1)) < self.logged[situation].cumsum(axis=1)).argmax(axis=1)
        reward = (self.random.random(n) < self.chance[situation, thing]).astype(float)
        return situation, thing, reward, self.logged[situation, thing], self.target[situation, thing]


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    held, values, truths = 0, [], []
    for seed in range(400):
        world = World(seed)
        situation, thing, reward, logged, target = world.log(2_000)
        wrong = world.chance * 0.5 + 0.05  # a model that is off
        expected = (world.target * wrong).sum(axis=1)[situation]
        found = {
            "ips": lambda r=reward, a=logged, b=target: ips(r, a, b),
            "snips": lambda r=reward, a=logged, b=target: snips(r, a, b),
            "dr": lambda r=reward, a=logged, b=target, w=wrong[situation, thing], e=expected: doubly_robust(r, a, b, w, e),
        }[name]()
        held += found.low <= world.truth <= found.high
        values.append(found.value)
        truths.append(world.truth)
    assert 0.92 <= held / 400 <= 0.98  # 95 %, three standard errors of 400 tries
    assert abs(np.mean(values) - np.mean(truths)) < 0.004


def test_a_naive_mean_does_not_hold_the_truth() -> None:
    held = 0
    for seed in range(100):
        world = World(seed)
        _, _, reward, logged, _ = world.log(2_000)
        found = ips(reward, logged, logged)
        held += found.low <= world.truth <= found.high
    assert held < 80  # an interval of 95 % that knows nothing of the other policy


def test_a_good_model_narrows_the_interval() -> None:
    world = World(0)
    situation, thing, reward, logged, target = world.log(5_000)
    plain = ips(reward, logged, target)
    helped = doubly_robust(
        reward, logged, target, world.chance[situation, thing], (world.target * world.chance).sum(axis=1)[situation]
    )
    assert helped.high - helped.low < plain.high - plain.low


def test_closed_forms() -> None:
    rewards, logged, target = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.2]), np.array([0.25, 0.5, 0.1])
    weights = target / logged
    assert ips(rewards, logged, target).value == pytest.approx((weights * rewards).mean())
    assert snips(rewards, logged, target).value == pytest.approx((weights * rewards).sum() / weights.sum())
    assert ips(rewards, logged, target).effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert ips(rewards, logged, target, clip=0.5).value == pytest.approx(1.0 / 3)
    assert not ips(rewards, logged, target).enough
    same = snips(rewards, logged, logged)
    assert same.value == pytest.approx(2 / 3)
    assert same.effective == pytest.approx(3)


@pytest.mark.parametrize(
    ("rewards", "logged", "target", "words"),
    [
        ([1.0], [0.0], [0.5], "not in"),
        ([1.0], [0.5], [1.5], "not in"),
        ([1.0, 1.0], [0.5], [0.5], "as many"),
        ([], [], [], "no log"),
    ],
)
def test_logs_that_make_no_sense(rewards: list[float], logged: list[float], target: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ips(np.array(rewards), np.array(logged), np.array(target))
    with pytest.raises(ValueError, match="can say nothing"):
        snips(np.array([1.0]), np.array([0.5]), np.array([0.0]))


def test_variants_are_sticky_fair_and_independent() -> None:
    shares = {"live": 0.95, "canary": 0.05}
    users = [f"u{number}" for number in range(20_000)]
    dealt = [variant_of(user, "one", shares) for user in users]
    assert dealt == [variant_of(user, "one", shares) for user in users]
    assert sample_ratio([Counter(dealt)[name] for name in shares], list(shares.values())) > 0.001
    half = {"a": 0.5, "b": 0.5}
    other = [variant_of(user, "two", half) == "a" for user, first in zip(users, dealt, strict=True) if first == "canary"]
    assert 0.42 < np.mean(other) < 0.58
    more = [variant_of(user, "one", {"canary": 0.25, "live": 0.75}) for user in users]
    few = [variant_of(user, "one", {"canary": 0.05, "live": 0.95}) for user in users]
    assert all(late == "canary" for early, late in zip(few, more, strict=True) if early == "canary"), (
        "who is in stays in as the share grows"
    )
    assert {variant_of(user, "one", {"a": 0.0, "b": 1.0}) for user in users[:500]} == {"b"}
    with pytest.raises(ValueError, match="sum"):
        variant_of("u", "one", {"a": 0.5, "b": 0.6})


def test_groups_of_a_wrong_size_are_noticed() -> None:
    assert sample_ratio([5_000, 5_060], [0.5, 0.5]) > 0.05
    assert sample_ratio([5_000, 5_400], [0.5, 0.5]) < MISMATCH
    assert sample_ratio([0, 0], [0.5, 0.5]) == 1.0
    with pytest.raises(ValueError, match="positive share"):
        sample_ratio([1, 2, 3], [0.5, 0.5])


def _looks(random: np.random.Generator, gain: float) -> tuple[np.ndarray, np.ndarray, range]:
    new, old = random.binomial(20, 0.05 * (1 + gain), 5_000) / 20, random.binomial(20, 0.05, 5_000) / 20
    return new, old, range(250, 5_001, 250)


def test_looking_twenty_times_does_not_find_what_is_not_there() -> None:
    random = np.random.default_rng(1)
    fooled, naive = 0, 0
    for _ in range(300):
        new, old, looks = _looks(random, 0.0)
        fooled += any(difference(new[:n], old[:n]).decided for n in looks)
        gaps = [(new[:n].mean() - old[:n].mean()) / np.sqrt(new[:n].var() / n + old[:n].var() / n) for n in looks]
        naive += any(abs(gap) > 1.96 for gap in gaps)
    assert fooled / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert naive / 300 > 0.15, "a test made for one look is fooled by twenty"


def test_a_real_gain_is_found_and_the_interval_holds_it() -> None:
    random = np.random.default_rng(2)
    new, old, looks = _looks(random, 0.2)
    assert any(difference(new[:n], old[:n]).low > 0 for n in looks)
    found = difference(new, old)
    assert found.low < 0.01 < found.high
    with pytest.raises(ValueError, match="two"):
        difference(new[:1], old)


@given(
    st.lists(st.integers(0, 30), unique=True, max_size=15),
    st.lists(st.integers(0, 30), unique=True, max_size=15),
    st.integers(0, 12),
    st.integers(0, 10_000),
)
def test_an_interleaved_list_is_full_and_fair(first: list[int], second: list[int], k: int, seed: int) -> None:
    found = team_draft(first, second, k, np.random.default_rng(seed))
    assert len(found.items) == min(k, len(set(first) | set(second)))
    assert len(set(found.items)) == len(found.items)
    for team, own in enumerate((first, second)):
        taken = [item for item, of in zip(found.items, found.teams, strict=True) if of == team]
        assert [item for item in own if item in taken] == taken, "each ranker's own order is kept"
    if set(first) == set(second):
        assert abs(found.teams.count(0) - found.teams.count(1)) <= 1
    assert found == team_draft(first, second, k, np.random.default_rng(seed))


def test_clicks_prefer_the_better_ranker_and_nobody_where_they_are_equal() -> None:
    random = np.random.default_rng(0)
    good, bad = list(range(10)), list(range(9, -1, -1))

    def wins(first: list[int], second: list[int]) -> float:
        credits = []
        for _ in range(2_000):
            shown = team_draft(first, second, 5, random)
            clicked = {item for item in shown.items if random.random() < (0.3 if int(str(item)) < 3 else 0.02)}
            credits.append(shown.credit(clicked))
        return float(np.mean(credits))

    assert wins(bad, good) > 0.2
    assert abs(wins(good, good[1:2] + good[:1] + good[2:])) < 0.06
