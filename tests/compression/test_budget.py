"""The budget: what it accepts, what it refuses, and that it counts as the evaluation does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.compression.budget import AUC_QUESTIONS, Budget, Questions, auc, gains, share_of
from tastemaker.evaluation.ranking import per_user
from tastemaker.schema.errors import InputError
from tastemaker.schema.protocols import Asker, FloatArray, IntArray

ITEMS = 50


class Lists:
    """Answers that are known beforehand."""

    def __init__(self, lists: Sequence[IntArray]) -> None:
        self.asked = self.people = 0
        self._lists = list(lists)

    def lists(self, histories: Sequence[IntArray], k: int, askers: Sequence[Asker] | None = None) -> list[IntArray]:
        begin = int(histories[0][0])
        self._told(histories, askers)
        self.asked += len(histories)
        return [one[:k] for one in self._lists[begin : begin + len(histories)]]

    def chances(
        self, histories: Sequence[IntArray], items: Sequence[IntArray], askers: Sequence[Asker] | None = None
    ) -> list[FloatArray]:
        self._told(histories, askers)
        return [
            np.isin(some, self._lists[int(history[0])]).astype(np.float32) for history, some in zip(histories, items, strict=True)
        ]

    def _told(self, histories: Sequence[IntArray], askers: Sequence[Asker] | None) -> None:
        """Every question comes with its own asker, or none with any."""
        if askers is not None:
            assert [one.user_id for one in askers] == [f"u{history[0]}" for history in histories]
            self.people += len(askers)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return np.zeros((len(texts), 1), np.float32)

    def users(self, histories: Sequence[IntArray]) -> FloatArray:
        return np.zeros((len(histories), 1), np.float32)


def world(count: int = 4_000, seed: int = 0) -> tuple[Questions, list[IntArray]]:
    """Questions whose own number is their history, and lists that are right now and then."""
    random = np.random.default_rng(seed)
    lists = [random.permutation(ITEMS).astype(np.int32)[:10] for _ in range(count)]
    targets = [np.array([one[random.integers(0, 20) % 10]] if random.random() < 0.4 else [99], np.int32) for one in lists]
    return Questions([np.array([row], np.int32) for row in range(count)], targets, np.arange(count) // 4, "toy"), lists


def spoiled(lists: list[IntArray], share: float, seed: int = 1) -> list[IntArray]:
    """A share of the lists is another one altogether."""
    random = np.random.default_rng(seed)
    return [random.permutation(ITEMS).astype(np.int32)[:10] if random.random() < share else one for one in lists]


def test_the_same_lists_cost_nothing_and_few_questions_make_it_sure() -> None:
    questions, lists = world()
    answers = Lists(lists)
    verdict = Budget(0.0, questions, Lists(lists)).judge(answers)
    assert verdict.accepted
    assert verdict.change.low == verdict.change.high == 0
    assert verdict.overlap == 1
    assert answers.asked == len(questions) // 4


def test_random_lists_are_refused_and_small_losses_need_a_budget() -> None:
    questions, lists = world()
    harmful = Budget(0.01, questions, Lists(lists)).judge(Lists(spoiled(lists, 1.0)))
    assert not harmful.accepted
    assert harmful.change.high < 0
    little = spoiled(lists, 0.02)
    assert not Budget(0.0, questions, Lists(lists)).judge(Lists(little)).accepted
    assert Budget(0.1, questions, Lists(lists)).judge(Lists(little)).accepted


def test_what_is_not_sure_is_refused_though_its_mean_is_inside() -> None:
    _, lists = world(60)
    questions = Questions([np.array([row], np.int32) for row in range(60)], [one[5:6] for one in lists], np.arange(60), "toy")

    def moved(one: IntArray, other: int) -> IntArray:
        changed = one.copy()
        changed[[5, other]] = one[[other, 5]]
        return changed

    mixed = [moved(one, 4 if row % 2 else 6) for row, one in enumerate(lists)]  # half of the targets rise a place, half fall one
    verdict = Budget(0.0, questions, Lists(lists)).judge(Lists(mixed))
    assert verdict.change.mean > 0 > verdict.change.low
    assert not verdict.accepted
    assert Budget(0.05, questions, Lists(lists)).judge(Lists(mixed)).accepted


def test_gains_are_those_of_the_evaluation() -> None:
    questions, lists = world(200)
    targets = [np.unique(np.append(one, [3, 7])).astype(np.int32) for one in questions.targets]
    rows = [(str(row), str(item), place) for row, one in enumerate(lists) for place, item in enumerate(one, 1)]
    table = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64}, orient="row")
    wanted = pl.DataFrame(
        {
            "user_id": [str(row) for row, one in enumerate(targets) for _ in one],
            "item_id": [str(item) for one in targets for item in one],
        }
    )
    theirs = per_user(table, wanted, (10,))
    ours = dict(zip(map(str, range(len(lists))), gains(lists, targets), strict=True))
    assert np.allclose([ours[user] for user in theirs.users], theirs.values["NDCG@10"])


@given(st.floats(0, 100))
def test_a_budget_is_read_as_people_write_it(percent: float) -> None:
    assert share_of(f"{percent}%") == pytest.approx(percent / 100)
    assert share_of(f" {percent} % ") == pytest.approx(percent / 100)
    assert share_of(str(percent / 100)) == pytest.approx(percent / 100)


@pytest.mark.parametrize("text", ["", "much", "-1%", "150%", "nan", "1%%x"])
def test_a_budget_that_is_none_is_told(text: str) -> None:
    with pytest.raises(InputError, match="such as 1%"):
        share_of(text)


class Blurred(Lists):
    """The same lists, but chances of which a share is drawn by lot."""

    def __init__(self, lists: Sequence[IntArray], share: float) -> None:
        super().__init__(lists)
        self.share, self.told = share, 0

    def chances(
        self, histories: Sequence[IntArray], items: Sequence[IntArray], askers: Sequence[Asker] | None = None
    ) -> list[FloatArray]:
        random, right = np.random.default_rng(0), super().chances(histories, items, askers)
        self.told += len(histories)
        return [random.random(len(one)).astype(np.float32) if random.random() < self.share else one for one in right]


def test_chances_that_got_worse_are_refused_though_the_lists_are_the_same() -> None:
    questions, lists = world()
    questions = replace(questions, catalogue=ITEMS)
    same = Budget(0.01, questions, Lists(lists)).judge(Lists(lists))
    assert same.accepted
    assert same.auc is not None
    assert same.auc > 0.8
    assert same.auc_change is not None
    assert same.auc_change.low == same.auc_change.high == 0
    worse = Budget(0.01, questions, Lists(lists)).judge(Blurred(lists, 0.2))
    assert not worse.accepted
    assert worse.change.low == 0
    assert worse.auc_change is not None
    assert worse.auc_change.high < 0
    assert "AUC by -" in worse.words
    assert Budget(0.3, questions, Lists(lists)).judge(Blurred(lists, 0.2)).accepted, "with more allowed it is accepted"
    few = replace(questions, histories=questions.histories[:12], targets=questions.targets[:12], users=questions.users[:12])
    assert not Budget(0.05, few, Lists(lists)).judge(Blurred(lists, 0.2)).accepted, "what is not sure is refused"


def test_chances_are_asked_of_few_questions_and_not_of_what_is_refused_anyhow() -> None:
    questions, lists = world()
    questions = replace(questions, catalogue=ITEMS)
    good, bad = Blurred(lists, 0.0), Blurred(spoiled(lists, 0.9), 0.0)
    budget = Budget(0.05, questions, Lists(lists))
    assert budget.judge(good).accepted
    assert good.told == AUC_QUESTIONS
    assert not budget.judge(bad).accepted
    assert bad.told == 0


def test_both_bundles_are_told_who_asks() -> None:
    questions, lists = world(1_200)
    targets = [
        one if row % 3 else np.array([99], np.int32) for row, one in enumerate(questions.targets)
    ]  # 99 is not in the catalogue
    people = [Asker(f"u{row}", 1.6e9 + row) for row in range(len(questions))]
    questions = replace(questions, targets=targets, catalogue=ITEMS, askers=people)
    before, after = Lists(lists), Lists(lists)
    assert Budget(0.01, questions, before).judge(after).accepted
    judged = min(AUC_QUESTIONS, sum(int(one[0]) < ITEMS for one in targets))
    assert before.people == after.people == after.asked + judged
    unsure = Lists(spoiled(lists, 0.02))
    Budget(0.0, questions, Lists(lists)).judge(unsure)
    assert unsure.people == unsure.asked == len(questions), "at the later looks too"


def test_the_auc_of_a_question_is_that_of_its_pairs() -> None:
    wanted = np.array([True, False, False, True])
    assert auc(np.array([0.9, 0.1, 0.9, 0.0], np.float32), wanted) == (1 + 0.5 + 0 + 0) / 4
    assert auc(np.array([np.nan, 0.1, 0.2, 0.3], np.float32), wanted) == 0.5, "a chance that is no number never wins"
