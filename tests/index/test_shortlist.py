"""Law: the candidates of a large catalogue are those that a look at every item finds, each with the same scores and places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.index import approximate, head
from tastemaker.index.channels import Channels, Decays
from tastemaker.index.companions import Companions
from tastemaker.index.neighbours import Neighbours
from tastemaker.schema.candidates import part
from tastemaker.schema.graph import Social
from tastemaker.schema.protocols import QueryState
from tastemaker.schema.settings import IndexSettings
from tastemaker.schema.unwritten import unwritten

N, DIM, TEXT, USERS = 400, 12, 20, 30


def _unit(random: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    found = random.standard_normal((rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _world(texts: bool = True) -> Channels:
    random = np.random.default_rng(0)
    near = sp.random(N, N, 0.03, format="csr", rng=random, dtype=np.float32)
    far = sp.random(N, N, 0.05, format="csr", rng=random, dtype=np.float32)
    far.data = np.round(far.data, 1) + 0.1  # many of equal weight
    popular = np.round(random.random(N), 2).astype(np.float32)
    text = _unit(random, N, TEXT) if texts else np.zeros((N, TEXT), np.float32)
    bias, graph = random.standard_normal(N).astype(np.float32), _unit(random, N, 8)
    graph[::3] = 0
    met = sp.random(USERS - 5, N, 0.05, format="csr", rng=random, dtype=np.float32)
    met.data = np.round(met.data, 1) + 0.1
    ends = np.cumsum([0, *random.integers(0, 9, USERS)])
    friends = random.integers(0, USERS, ends[-1]).astype(np.int32)  # five of them have met nothing
    social = Social([f"u{row}" for row in range(USERS)], USERS - 5, ends, friends, random.random(ends[-1], dtype=np.float32) + 0.1)
    return Channels(
        _unit(random, N, DIM),
        bias,
        text,
        popular,
        np.arange(N, dtype=np.float32),
        Neighbours(near),
        Neighbours(far),
        Decays(),
        graph,
        Companions(social, met.tocsr(), np.zeros((USERS - 5, DIM), np.float32), 0.0),
    )


@pytest.fixture(scope="module", params=[True, False], ids=["texts", "no texts"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("channels")
    _world(request.param).save(place, IndexSettings(kind="approximate", recall=0.9))
    return place


@settings(max_examples=40, deadline=None, derandomize=True)  # sums of equals may round apart
@given(
    histories=st.lists(st.lists(st.integers(0, N + 2), max_size=70), min_size=1, max_size=3),
    depth=st.integers(1, 60),
    share=st.sampled_from([1.0, 0.9, 0.3, 0.1, 0.0]),
    vectors=st.booleans(),
    filter_seen=st.booleans(),
    users=st.lists(st.integers(-1, USERS - 1), min_size=3, max_size=3),
    alike=st.booleans(),
    seed=st.integers(0, 1_000),
)
def test_candidates_are_those_of_a_look_at_every_item(
    folder: Path,
    histories: list[list[int]],
    depth: int,
    share: float,
    vectors: bool,
    filter_seen: bool,
    users: list[int],
    alike: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    both = [Channels.load(folder), Channels.load(folder, approximate=False)]
    assert [channels.items.approximate for channels in both] == [True, False]
    text, vector, graph = _unit(random, 4, TEXT), _unit(random, 4, DIM), _unit(random, 3, 8)
    for channels in both:
        for row in range(3):  # new items, and one with another content
            channels.append_item(text[row], vector[row], graph[row])
        channels.replace_item(7, text[3], vector[3])
    allowed = None if share == 1.0 else random.random(N + 3) < share
    states = []
    kinds = [unwritten(np.round(random.random(N), 2).astype(np.float32)) for _ in range(2)]
    for at, history in enumerate(histories):
        known = vectors and len(history) > 0
        vector = 5 * _unit(random, 1, DIM)[0] if known else None
        popular = kinds[at % 2] if alike and at else None
        states.append(QueryState(np.array(history, dtype=np.int32), vector, popular, user=users[at]))
    found, wanted = (channels.candidates(states, depth, allowed, filter_seen) for channels in both)
    for one, other in zip(found, wanted, strict=True):
        assert one.channels == other.channels
        assert one.items.tolist() == other.items.tolist()
        assert np.allclose(one.scores[:, 1:], other.scores[:, 1:], atol=1e-4)
        assert np.allclose(one.scores[:, 0], other.scores[:, 0], atol=0.1)
        away = one.scores[:, 0] - other.scores[:, 0]
        assert away.max(initial=-1) - away.min(initial=1) < 1e-4, "only the normaliser may differ"
        assert np.count_nonzero(one.ranks != other.ranks) <= 0.01 * one.ranks.size, "places differ by rounding alone"
        assert np.array_equal(one.counts, other.counts)
    asked = np.array([3, N + 1, 7, 100], dtype=np.int32)
    given_, told = (channels.score_items(states[0], asked, depth) for channels in both)
    assert given_.items.tolist() == asked.tolist()
    assert np.allclose(given_.scores, told.scores, atol=0.1)
    assert np.abs(given_.ranks - told.ranks).max() <= 1
    near, true = (channels.similar(5, 10, allowed)[0].tolist() for channels in both)
    assert len(set(near) & set(true)) >= len(true) - 1


def test_the_normaliser_of_a_large_catalogue_is_close(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    n = 30_000
    centres = _unit(random, 100, 32)
    items = centres[random.integers(0, 100, n)] + 0.15 * random.standard_normal((n, 32)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    nothing, zero = Neighbours(sp.csr_matrix((n, n), dtype=np.float32)), np.zeros((n, 4), np.float32)
    bias, ones = -np.log(1 + np.arange(n)).astype(np.float32), np.ones(n, np.float32)
    Channels(items, bias, zero, ones, ones, nothing, nothing, Decays()).save(tmp_path, IndexSettings(exact_to=1_000, recall=0.9))
    assert Channels.load(tmp_path).items.approximate
    channels, whole = Channels.load(tmp_path), Channels.load(tmp_path, approximate=False)
    states = [QueryState(np.array([row], dtype=np.int32), 12 * items[row]) for row in range(0, n, 1_500)]
    away = []
    for one, other in zip(channels.candidates(states, 100), whole.candidates(states, 100), strict=True):
        same, at, to = np.intersect1d(one.items, other.items, return_indices=True)
        assert len(same) > 0.8 * len(other.items)
        away.append(float(np.median(one.scores[at, 0] - other.scores[to, 0])))
    assert np.abs(away).max() < 0.15
    assert abs(float(np.mean(away))) < 0.06


def test_a_base_that_is_searched_by_lists_gives_the_same_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "SCANNED", 0)
    channels, whole = Channels.load(folder), Channels.load(folder, approximate=False)
    random = np.random.default_rng(5)
    states = [QueryState(np.arange(row, row + 9, dtype=np.int32), 5 * _unit(random, 1, DIM)[0]) for row in range(40)]
    pairs = zip(channels.candidates(states, 20), whole.candidates(states, 20), strict=True)
    assert (
        np.mean([len(np.intersect1d(one.items, other.items)) / len(other.items) for one, other in pairs]) > 0.8
    )  # rows at random have no clusters


def test_what_many_have_met_is_forgotten_when_they_are_answered(folder: Path) -> None:
    channels, random = Channels.load(folder), np.random.default_rng(3)
    assert channels.items.approximate

    def state() -> QueryState:
        return QueryState(random.choice(N, 30, replace=False).astype(np.int32), _unit(random, 1, DIM)[0])

    one, others = state(), [state() for _ in range(20)]
    before = channels.candidates([one], 40)[0].items.tolist()
    channels.candidates(others, 40)
    assert channels.candidates([one], 40)[0].items.tolist() == before
    together = [found.items.tolist() for found in channels.candidates([*others, one], 40)]
    assert together == [channels.candidates([each], 40)[0].items.tolist() for each in (*others, one)]


def test_vectors_that_were_read_travel_with_a_request_and_are_not_kept_otherwise(folder: Path) -> None:
    channels, random = Channels.load(folder), np.random.default_rng(4)
    channels.replace_item(7, _unit(random, 1, TEXT)[0], _unit(random, 1, DIM)[0])
    states = [QueryState(np.arange(begin, begin + 9, dtype=np.int32), 5 * _unit(random, 1, DIM)[0]) for begin in (0, 40)]
    for one in channels.candidates(states, 60, gather=lambda calls: {name: call() for name, call in calls.items()}):
        some = np.arange(len(one.items))[::-2]
        for found in (one, part(one, some)):
            assert found.vectors is not None
            assert np.array_equal(found.vectors, channels.items.rows(found.items))
    assert [one.vectors for one in channels.candidates(states, 60)] == [None, None]


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.2])
def test_what_is_excluded_one_by_one_is_excluded_as_by_a_mask(folder: Path, large: bool, filter_seen: bool, share: float) -> None:
    channels, random = Channels.load(folder, approximate=large), np.random.default_rng(6)
    allowed = None if share == 1.0 else random.random(N) < share
    states = [
        QueryState(random.choice(N, size, replace=False).astype(np.int32), _unit(random, 1, DIM)[0]) for size in (0, 9, 40)
    ] * 25
    excluded = [random.choice(N, 12 * (at % 5), replace=False).astype(np.int32) for at in range(len(states))]
    together = channels.candidates(states, 20, allowed, filter_seen, excluded=excluded)
    for at in (*range(10), *range(60, 70)):  # of the first piece and of the second
        state, gone, one = states[at], excluded[at], together[at]
        mask = np.ones(N, bool) if allowed is None else allowed.copy()
        mask[gone] = False
        wanted = channels.candidates([state], 20, mask, filter_seen)[0]
        alone = channels.candidates([state], 20, allowed, filter_seen, excluded=[gone])[0]
        assert one.items.tolist() == alone.items.tolist() == wanted.items.tolist()
        assert not np.isin(one.items, gone).any()
        assert np.count_nonzero(one.ranks != wanted.ranks) <= 0.01 * one.ranks.size, "places differ by rounding alone"
        assert np.allclose(one.scores[:, 1:], wanted.scores[:, 1:], atol=1e-5)
        away = one.scores[:, 0] - wanted.scores[:, 0]
        assert away.max(initial=-1) - away.min(initial=1) < 1e-4, "only the normaliser may differ"
        assert np.abs(away).max(initial=0) < 0.1


def test_what_is_popular_with_a_kind_of_people_is_looked_for_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    own, random = head.top, np.random.default_rng(7)
    monkeypatch.setattr(head, "HEAD", 60)
    monkeypatch.setattr(head, "top", lambda values, depth: looked.append(depth) or own(values, depth))
    both = [Channels.load(folder), Channels.load(folder, approximate=False)]
    kinds = [unwritten(np.round(random.random(N), 2).astype(np.float32)) for _ in range(3)]
    for turn in range(9):
        for channels in both if turn in (3, 4) else ():  # newer than what is known of the kinds
            channels.append_item(np.zeros(TEXT, np.float32), np.zeros(DIM, np.float32), np.zeros(8, np.float32))
        allowed = (None, random.random(both[0].n_items) < 0.9, random.random(both[0].n_items) < 0.1)[turn % 3]
        met = [random.choice(N, 30, replace=False).astype(np.int32) for _ in range(7)]
        states = [QueryState(items, None, kinds[(turn + at) % 3], user=at) for at, items in enumerate(met)]
        for one, other in zip(*(channels.candidates(states, 25, allowed) for channels in both), strict=True):
            assert one.items.tolist() == other.items.tolist()
            for name in ("popular", "friends"):
                at = one.channels.index(name)
                assert np.allclose(one.scores[:, at], other.scores[:, at], atol=1e-6)
                assert one.ranks[:, at].tolist() == other.ranks[:, at].tolist()
    assert len(looked) == (1 + len(kinds)) * (1 + 3), (
        "the prior once, and each kind; and again among what each of three filters leaves"
    )


def test_what_friends_met_is_the_mean_of_their_rows_by_their_weights() -> None:
    companions = _world().companions
    assert companions is not None
    social, met = companions.social, companions.met.toarray()
    for row in range(USERS):
        part = slice(social.offsets[row], social.offsets[row + 1])
        known = [
            (friend, weight)
            for friend, weight in zip(social.friends[part], social.weights[part], strict=True)
            if friend < social.n_known
        ]
        wanted = sum((weight * met[friend] for friend, weight in known), np.zeros(N)) / max(
            sum(weight for _, weight in known), 1e-9
        )
        assert np.allclose(companions.scores(np.array([-1, row], np.int32), N), [np.zeros(N), wanted], atol=1e-5)
        items, shares = companions.around(row)
        assert np.allclose(np.bincount(items, shares, N), wanted, atol=1e-5)
    assert companions.scores(np.zeros(0, np.int32), N).shape == (0, N)


def test_the_popular_of_a_filter_are_found_however_many_of_them_were_met(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "HEAD", 20)
    one, other = Channels.load(folder), Channels.load(folder, approximate=False)
    allowed = np.zeros(N, dtype=bool)
    allowed[np.random.default_rng(2).choice(N, 60, replace=False)] = True
    unwritten(allowed)
    order = np.flatnonzero(allowed)[np.argsort(-one.popular[allowed], kind="stable")]
    for met in (0, 12, 30, 55):
        states = [QueryState(order[:met].astype(np.int32), None, user=-1)]
        (mine,), (exact,) = (channels.candidates(states, 15, allowed) for channels in (one, other))
        assert mine.items.tolist() == exact.items.tolist(), met
