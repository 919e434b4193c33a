"""People found by common friends as networkx counts them, by taste, and by nothing at all."""

from __future__ import annotations

from pathlib import Path

import networkx
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from tastemaker.data.graph import build_graphs
from tastemaker.index.companions import Companions
from tastemaker.index.friends import CHANNELS, Friends, Person
from tastemaker.schema.graph import Social

USERS = 60


def social_of(pairs: set[tuple[int, int]], users: int = USERS) -> Social:
    rows = [(f"user:{one}", "friend", f"user:{other}", 1.0) for one, other in pairs]
    edges = pl.DataFrame(rows, schema=["head", "relation", "tail", "weight"], orient="row")
    found = build_graphs(edges, [], [str(number) for number in range(users)], 1_000).social
    assert found is not None
    return found


@pytest.fixture(scope="module")
def pairs() -> set[tuple[int, int]]:
    random = np.random.default_rng(0)
    return {(int(one), int(other)) for one, other in random.integers(USERS - 1, size=(220, 2)) if one != other}


@pytest.fixture(scope="module")
def friends(pairs: set[tuple[int, int]]) -> Friends:
    """User 59 has no friend; everybody has a taste, and item i adds direction i."""
    random = np.random.default_rng(1)
    tastes = random.normal(size=(USERS, 4)).astype(np.float32)
    tastes /= np.linalg.norm(tastes, axis=1, keepdims=True)
    return Friends(social_of(pairs), tastes, np.eye(4, dtype=np.float32), tastes)


def test_common_friends_are_those_of_networkx(friends: Friends, pairs: set[tuple[int, int]]) -> None:
    graph = networkx.Graph(list(pairs))
    graph.add_nodes_from(range(USERS))
    for user in range(0, USERS, 7):
        mutual, shared = friends.scores(Person(user, friends.tastes[user]))[:2]
        away = [(user, other) for other in range(USERS) if other != user and other not in graph[user]]
        for index, scores in ((networkx.adamic_adar_index, mutual), (networkx.resource_allocation_index, shared)):
            for _, other, score in index(graph, away):
                assert scores[other] == pytest.approx(score, abs=1e-5)
        for _, other in away:
            assert friends.common(user, other) == len(list(networkx.common_neighbors(graph, user, other)))


def test_nobody_is_offered_himself_his_friends_or_whom_he_barred(friends: Friends) -> None:
    for user in range(USERS):
        known = set(friends.friends(user).tolist())
        barred = np.array([(user + 30) % USERS], dtype=np.int32)
        found = friends.candidates(Person(user, friends.tastes[user], barred), USERS)
        assert not set(found.items.tolist()) & {user, *known, *barred.tolist()}
        assert set(found.items.tolist()) == set(range(USERS)) - {user, *known, *barred.tolist()}
        assert found.channels == CHANNELS
        assert np.isfinite(found.scores).all()


def test_without_friends_taste_decides_and_without_taste_the_well_known(friends: Friends) -> None:
    lonely = friends.candidates(Person(59, friends.tastes[59]), 5)
    assert lonely.items[np.argmax(lonely.scores[:, 3])] == np.argsort(-(friends.tastes @ friends.tastes[59]))[1]
    assert not lonely.scores[:, :3].any()
    stranger = friends.candidates(Person(-1, np.zeros(4, np.float32)), 3)
    assert set(stranger.items.tolist()) == set(np.argsort(-friends.degrees, kind="stable")[:3].tolist())
    assert np.allclose(friends.taste(np.array([1, 1, 2])), [0, 0.5**0.5, 0.5**0.5, 0])
    assert not friends.taste(np.array([99])).any()


def test_saved_friends_are_the_same(friends: Friends, tmp_path: Path) -> None:
    friends.save(tmp_path)
    again = Friends.load(tmp_path, friends.social).candidates(Person(3, friends.tastes[3]), 9)
    assert np.array_equal(again.scores, friends.candidates(Person(3, friends.tastes[3]), 9).scores)


def test_companions_hand_on_what_friends_met_and_are_like(tmp_path: Path) -> None:
    social = social_of({(0, 1), (0, 2), (2, 3)}, 5)
    met = sp.csr_matrix(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.5], [0, 0, 0], [1, 1, 1]], np.float32))
    vectors = np.array([[2, 0], [0, 2], [0, 2], [0, 0], [2, 0]], np.float32)
    Companions(social, met, vectors, 0.5).save(tmp_path)
    friends = Companions.load(tmp_path)
    rows = np.array([0, 3, 4, -1], np.int32)
    assert np.allclose(friends.scores(rows, 4), [[0, 0.5, 0.25, 0], [0, 0, 0.5, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    own = np.array([[3, 0], [0, 0], [1, 0], [0, 7]], np.float32)
    mixed = friends.smoothed(rows, own)
    assert np.allclose(mixed[0], np.array([3, 3]) / 2**0.5)  # as long as before, half way to the friends
    assert np.allclose(mixed[1:], [[0, 2], [1, 0], [0, 7]])  # nobody yet: the friends' own; no friends: as given
    assert np.allclose(friends.smoothed(rows, own, 0.0)[0], own[0])
    assert (friends.row("3"), friends.row("nobody")) == (3, -1)
