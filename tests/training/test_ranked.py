"""The lists of a trained brain with its ranker: offline as the service gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from ring_world import ITEMS, ring

from tastemaker.bundle.write import write_bundle
from tastemaker.schema.protocols import Asker
from tastemaker.schema.settings import RankerSettings, Settings
from tastemaker.serving.wire import Live
from tastemaker.training.fit import TrainedBrain, states_of
from tastemaker.training.ranked import Asked, recommend_ranked


@pytest.fixture(scope="module")
def forced(brain: TrainedBrain) -> TrainedBrain:
    ranker = msgspec.structs.replace(brain.settings.ranker, mode="always")
    return replace(brain, settings=msgspec.structs.replace(brain.settings, ranker=ranker))


def test_a_brain_has_a_ranker_and_says_what_became_of_it(brain: TrainedBrain) -> None:
    assert brain.ranker is not None
    assert brain.metrics["ranker_vectors_agree"] > 0.5
    assert any("orders" in note for note in brain.notes)
    assert brain.ranker.ranker.plan.heads == ("event",)


def test_the_bundle_ranks_as_the_brain_does(forced: TrainedBrain, tmp_path: Path) -> None:
    version = write_bundle(tmp_path, forced.export)
    live = Live(tmp_path / version, service=Settings(ranker=RankerSettings(mode="always")))
    users, now = [f"u{number}" for number in range(0, 60, 7)], 1_600_000_000.0 + 1_000 * 240
    row = {user: place for place, user in enumerate(forced.sequences.user_ids)}
    histories = [forced.sequences.history(row[user]) for user in users]
    offline = recommend_ranked(
        forced, states_of(forced.model, histories), Asked(users, np.full(len(users), now), ring(skip=(15, 35)).events), ITEMS
    )
    online = live.best(live.queries([live.state.history(user) for user in users], [Asker(user, now) for user in users]), ITEMS)
    for (items, scores), (others, told) in zip(offline, online, strict=True):
        assert len(items) == len(others)
        np.testing.assert_allclose(np.sort(scores), np.sort(told), atol=1e-3)
        assert items[:5].tolist() == others[:5].tolist()


def test_a_brain_asked_without_moment_answers_by_the_fusion(brain: TrainedBrain) -> None:
    history = [np.array([3, 4], np.int32)]
    plain = brain.recommend(history, 5)[0][0]
    assert plain.tolist() == brain.recommend(history, 5, None)[0][0].tolist()
