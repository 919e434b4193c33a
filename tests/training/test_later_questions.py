"""Questions after a moment: nothing that learned before it may know of them, and both kinds of questions judge a ranker."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from ring_world import ring

from tastemaker.data.sequences import Sequences, build
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.fit import TrainedBrain, _later, fit
from tastemaker.training.holdout import Holdout, hold_out_later
from tastemaker.training.parts import Process

USERS = 600


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return build(ring(USERS))


@pytest.fixture(scope="module")
def held(sequences: Sequences) -> Holdout:
    found = hold_out_later(sequences, 0.2, 10_000, 0)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def brain(toy_settings: Settings) -> TrainedBrain:
    few = [
        "sequence.min_steps=20",
        "sequence.epochs=1",
        "ranker.epochs=1",
        "ranker.questions=300",
        "ranker.later_share=0.2",
        "ranker.later_questions=500",
        "train.threads=1",
    ]
    texts = f"text.model={toy_settings.text.model}"
    return fit(ring(USERS), load_settings(None, [*few, texts, "sequence.dim=32", "text.dim=24"], {}))


def test_all_that_is_learned_from_came_before_all_that_is_asked(sequences: Sequences, held: Holdout) -> None:
    assert held.train.times.max() < held.times.min()
    assert np.array_equal(held.times, np.sort(held.times))
    later = len(sequences.items) - len(held.train.items)
    assert later == pytest.approx(0.2 * len(sequences.items), rel=0.02)
    assert not held.fresh.any(), "nothing is pretended to be new"


def test_each_question_is_asked_with_what_its_user_had_met(sequences: Sequences, held: Holdout) -> None:
    for row in range(0, len(held.targets), 17):
        user = int(held.users[row])
        whole, times = sequences.history(user), sequences.times[sequences.offsets[user] : sequences.offsets[user + 1]]
        before = whole[times < held.times[row]]
        assert np.array_equal(held.histories[row], before), "what came after the moment of the cut is told, up to the question"
        assert len(before)
        assert held.targets[row] not in before
    assert any(len(held.histories[row]) > held.train.lengths()[held.users[row]] for row in range(len(held.targets)))


def test_what_is_met_again_and_what_is_met_first_is_not_asked(sequences: Sequences) -> None:
    again = dataclasses.replace(sequences, items=np.zeros_like(sequences.items))
    assert hold_out_later(again, 0.5, 10_000, 0) is None, "everybody meets one item again and again"


def test_too_few_later_events_are_none(sequences: Sequences) -> None:
    assert hold_out_later(sequences, 0.05, 10_000, 0) is None
    some = hold_out_later(sequences, 0.3, 400, 0)
    assert some is not None
    assert len(some.targets) == 400


def test_rows_of_both_kinds_stand_together_in_the_order_of_time(brain: TrainedBrain, held: Holdout) -> None:
    assert brain.features is not None
    rows = brain.features.rows
    assert rows.later.any()
    assert not rows.later.all()
    assert rows.asked["timestamp"].is_sorted()
    assert rows.users.shape[0] == len(rows.judged) == len(rows.later) == len(rows.begin) - 1
    number = {item: place for place, item in enumerate(brain.sequences.item_ids)}
    assert [number[item] for item in rows.asked["item_id"]] == rows.items.tolist()
    assert np.array_equal(rows.owner, rows.asked["question"].rle_id().to_numpy()), "a question's rows stay together"
    fusion = rows.values[:, rows.names.index("fusion")]
    np.testing.assert_allclose(fusion, rows.plain, atol=1e-4)
    when = rows.asked["timestamp"].to_numpy()[rows.begin[:-1]]
    assert when[rows.later].min() >= held.times.min()
    judged = rows.judged & rows.later
    assert when[judged].min() >= when[rows.later & ~judged].max(), "the latest later questions judge"
    assert rows.judged[~rows.later].any()


def test_channels_of_later_questions_know_nothing_of_them(brain: TrainedBrain, held: Holdout) -> None:
    assert brain.features is not None
    rows = brain.features.rows
    trained = rows.values[:, rows.names.index("trained")]
    of_later = rows.later[rows.owner]
    np.testing.assert_allclose(trained[of_later], np.log1p(held.train.counts()[rows.items[of_later]]), atol=1e-5)


def test_the_ranker_says_how_it_did_on_both(brain: TrainedBrain) -> None:
    assert brain.ranker is not None
    gate, rows = brain.ranker.gate, brain.ranker.rows
    assert gate.questions == int((rows.judged & rows.later).sum())
    assert gate.last_questions == int((rows.judged & ~rows.later).sum())
    assert "on the last events of users" in brain.ranker.notes[-1]


def test_none_is_asked_where_the_settings_do_not_want_it_or_times_tell_an_order_alone(sequences: Sequences) -> None:
    nothing: Any = None  # what would be read of the items is not reached
    asked = load_settings(None, ["ranker.later_share=0.2"], {})
    assert _later(nothing, sequences, True, 1, 0.0, asked, Process()) is None
    assert _later(nothing, sequences, False, 1, 0.0, Settings(), Process()) is None
    with pytest.raises(AttributeError):
        _later(nothing, sequences, False, 1, 0.0, asked, Process())
