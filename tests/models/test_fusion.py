"""Laws of the fusion: finite for any input, the same after JSON, shares that belong to channels."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.models.fusion import Fusion, features
from tastemaker.schema.candidates import ChannelScores, joined

CHANNELS = ("sequence", "text", "popular")


def _found(scores: np.ndarray, counts: np.ndarray) -> ChannelScores:
    ranks = np.argsort(np.argsort(-np.nan_to_num(scores), axis=0, kind="stable"), axis=0).astype(np.int32)
    items = np.arange(len(scores), dtype=np.int32)
    return ChannelScores(items, CHANNELS, scores.astype(np.float32), ranks, counts.astype(np.float32), 10)


def _random(seed: int) -> Fusion:
    random = np.random.default_rng(seed)
    width = features(_found(np.zeros((1, 3)), np.zeros(1)), 1).shape[1]
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    return Fusion(draw(width), np.abs(draw(width)) + 0.1, draw(width), draw(5, width), draw(5), draw(5), 0.5)


@given(hnp.arrays(np.float32, (4, 3)), st.integers(0, 100_000))
def test_scores_and_parts_are_finite_whatever_the_channels_say(scores: np.ndarray, length: int) -> None:
    found = _found(scores, np.array([0, 1, 5, 1000]))
    for fusion in (_random(0), Fusion.reciprocal_ranks(CHANNELS)):
        assert np.isfinite(fusion.score(found, length)).all()
        assert np.isfinite(fusion.parts(found, length)).all()


def test_json_keeps_every_number() -> None:
    fusion, found = _random(1), _found(np.random.default_rng(2).normal(size=(6, 3)), np.arange(6))
    again = Fusion.from_dict(json.loads(json.dumps(fusion.to_dict())))
    assert np.array_equal(again.score(found, 3), fusion.score(found, 3))


def test_without_learning_it_is_the_sum_of_reciprocal_ranks() -> None:
    scores = np.array([[-1.0, 0.9, 0.1], [-2.0, 0.5, 0.9], [-3.0, 0.1, 0.5]])
    fusion = Fusion.reciprocal_ranks(CHANNELS)
    assert np.argmax(fusion.score(_found(scores, np.ones(3)), 5)) == 0
    boosted = Fusion.reciprocal_ranks(CHANNELS, cold_boost=50.0)
    assert np.argmax(boosted.score(_found(scores, np.array([1, 1, 0])), 5)) == 2


def test_no_candidates_give_no_scores() -> None:
    empty = _found(np.zeros((0, 3)), np.zeros(0))
    assert _random(0).score(empty, 3).shape == (0,)
    assert _random(0).parts(empty, 3).shape == (0, 3)


def test_lists_that_stand_one_behind_the_other_are_judged_as_each_alone() -> None:
    fusion, random = _random(1), np.random.default_rng(3)
    lists = [_found(random.normal(size=(size, 3)), random.integers(0, 3, size)) for size in (6, 1, 4)]
    lengths, begin = [3, 50, 0], np.array([0, 6, 7, 11])
    whole, each = joined(lists), np.repeat(lengths, [6, 1, 4])
    alone = [fusion.score(one, length) for one, length in zip(lists, lengths, strict=True)]
    parts = [fusion.parts(one, length) for one, length in zip(lists, lengths, strict=True)]
    assert np.allclose(fusion.score(whole, each), np.concatenate(alone), atol=1e-5)
    assert np.allclose(fusion.parts(whole, each, begin), np.concatenate(parts), atol=1e-5)
    assert not np.allclose(fusion.score(whole, 3), np.concatenate(alone), atol=1e-3)
