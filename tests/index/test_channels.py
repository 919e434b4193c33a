"""Channels on a toy world whose answers the eye can see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.index.channels import CHANNELS, Channels, Decays
from tastemaker.index.neighbours import Neighbours, history_matrix
from tastemaker.schema.protocols import QueryState


def _world(n: int = 6) -> Channels:
    """Item i has text and item vector i; i and i + 1 are neighbours; item 0 is the most popular."""
    eye = np.eye(n, dtype=np.float32)
    chain = sp.csr_matrix(np.diag(np.full(n - 1, 0.5, np.float32), 1) + np.diag(np.full(n - 1, 0.5, np.float32), -1))
    counts = np.arange(n, 0, -1).astype(np.float32)
    return Channels(eye, np.zeros(n, np.float32), eye, counts / n, counts, Neighbours(chain), Neighbours(chain), Decays())


def _state(history: list[int], vector: np.ndarray | None = None) -> QueryState:
    return QueryState(np.array(history, dtype=np.int32), vector)


def _column(found: object, name: str) -> np.ndarray:
    scores: np.ndarray = found.scores[:, CHANNELS.index(name)]  # type: ignore[attr-defined]
    return scores


def test_each_channel_says_what_it_should() -> None:
    channels = _world()
    found = channels.candidates([_state([0, 3], 5 * np.eye(6, dtype=np.float32)[5])], 6)[0]
    assert found.items.tolist() == [1, 2, 4, 5]
    assert np.allclose(_column(found, "neighbours"), [0.5 * 0.6, 0.5, 0.5, 0])
    assert found.items[np.argmax(_column(found, "sequence"))] == 5
    assert np.isclose(np.exp(channels.scores([_state([0], None)])[0]).sum(), 1, atol=1e-5)
    assert found.items[np.argmax(_column(found, "popular"))] == 1


def test_an_unknown_user_gets_popular_items_first() -> None:
    found = _world().candidates([_state([])], 3)[0]
    assert found.items[np.argmax(_column(found, "popular"))] == 0
    assert np.isfinite(found.scores).all()


def test_what_is_not_allowed_or_seen_is_no_candidate() -> None:
    allowed = np.array([True, False, True, True, False, True])
    found = _world().candidates([_state([0, 3]), _state([])], 6, allowed)
    assert found[0].items.tolist() == [2, 5]
    assert found[1].items.tolist() == [0, 2, 3, 5]
    assert _world().candidates([_state([])], 6, np.zeros(6, dtype=bool))[0].items.tolist() == []


def test_an_added_item_is_found_by_its_text() -> None:
    channels = _world()
    text = np.array([0, 0, 1, 0, 0, 0], np.float32)
    assert channels.append_item(text, text) == 6
    assert channels.n_items == 7
    found = channels.candidates([_state([2])], 3)[0]
    assert found.items[np.argmax(_column(found, "text"))] == 6
    assert found.counts[found.items == 6] == 0
    assert channels.similar(2, 1)[0].tolist() == [6]
    assert channels.candidates([_state([6])], 3)[0].items[0] == 0  # a history of new items only


def test_depth_beyond_the_catalogue_and_a_batch_equal_single_answers() -> None:
    channels = _world()
    states = [_state([0]), _state([1, 2]), _state([])]
    together = channels.candidates(states, 100)
    for state, whole in zip(states, together, strict=True):
        alone = channels.candidates([state], 100)[0]
        assert np.array_equal(alone.items, whole.items)
        assert np.allclose(alone.scores, whole.scores, atol=1e-6)
        assert np.array_equal(alone.ranks, whole.ranks)


def test_saved_channels_answer_alike(tmp_path: Path) -> None:
    channels, state = _world(), _state([1, 4], np.ones(6, np.float32))
    channels.save(tmp_path)
    again, wanted = Channels.load(tmp_path).candidates([state], 4)[0], channels.candidates([state], 4)[0]
    assert np.array_equal(again.items, wanted.items)
    assert np.array_equal(again.scores, wanted.scores)


@pytest.mark.parametrize("length", [0, 1, 120])
def test_a_history_weighs_its_latest_events_most(length: int) -> None:
    row = history_matrix([np.arange(length, dtype=np.int32)], 200, 0.5, depth=50)
    assert row.nnz == min(length, 50)
    if length:
        assert row[0, length - 1] == 1.0
