"""What a loss of quality says against a release: more than another seed may cost, for sure, or far more."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.schema.settings import ReleaseSettings
from tastemaker.serving.exam import Sitting, examine

QUESTIONS = 2_000


def sitting(gains: np.ndarray) -> Sitting:
    many = len(gains)
    return Sitting(gains.tolist(), [0.001] * many, [0.0] * many, [100.0] * many, {"a"})


@pytest.mark.parametrize(
    ("loss", "noise", "refused"),
    [(0.02, 0.01, True), (0.005, 0.01, False), (0.005, 0.3, False), (0.02, 0.9, False), (0.08, 2.0, True), (-0.02, 0.01, False)],
)
def test_quality(loss: float, noise: float, refused: bool) -> None:
    random = np.random.default_rng(0)
    live = random.random(QUESTIONS)
    apart = random.standard_normal(QUESTIONS) * noise
    new = live * (1 - loss) + apart - apart.mean()
    users = [f"u{place}" for place in range(QUESTIONS)]
    found = examine(sitting(new), sitting(live), users, True, (1, 1), ReleaseSettings(max_slice_loss=1.0))
    [quality] = [one for one in found if one.gate == "quality"]
    assert quality.against is refused, quality.words


def test_what_another_seed_may_cost_is_a_setting() -> None:
    live = np.random.default_rng(0).random(QUESTIONS)
    for allowed, refused in ((0.0, True), (0.006, False)):
        found = examine(
            sitting(live * 0.995), sitting(live), [str(place) for place in range(QUESTIONS)], True, (1, 1), ReleaseSettings(sure_loss=allowed)
        )  # fmt: skip
        assert [one.against for one in found if one.gate == "quality"] == [refused]
