"""Laws of both kinds of index: whatever was added, replaced or left out, what is found is what an exact search of the same rows would find."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.index import approximate, build
from tastemaker.index.approximate import ApproximateIndex
from tastemaker.index.coded import Bytes, Plain
from tastemaker.index.exact import DenseIndex
from tastemaker.schema.settings import AlertSettings, IndexSettings
from tastemaker.schema.unwritten import unwritten

DIM, ROWS = 8, 300
FORCED = IndexSettings(kind="approximate", recall=0.9)


def _clustered(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(rows // 40, 4), dim))
    found = centres[random.integers(0, len(centres), rows)] + 0.5 * random.standard_normal((rows, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def _opened(folder: Path, vectors: np.ndarray, offsets: np.ndarray | None, wanted: IndexSettings = FORCED) -> DenseIndex:
    build.build(DenseIndex(vectors, offsets), folder, "items", wanted)
    return approximate.load(folder, "items", Plain(vectors), offsets)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ann")
    vectors = _clustered(ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "HEAD", 20)
        _opened(place, vectors, np.linspace(-1, 1, ROWS, dtype=np.float32))
    assert isinstance(
        approximate.load(place, "items", Plain(vectors), np.linspace(-1, 1, ROWS, dtype=np.float32)), ApproximateIndex
    )
    return place


def _read_all_lists(index: DenseIndex) -> None:
    assert isinstance(index, ApproximateIndex)
    index.plan = msgspec.structs.replace(index.plan, probes=index.plan.lists)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "replace", "bar", "allow", "search"]), st.integers(0, 10_000), st.integers(0, 10_000)),
    max_size=60,
)


class Model:
    """What an index should know: all rows, in one table, and which may be found."""

    def __init__(self, index: DenseIndex, vectors: np.ndarray, offsets: np.ndarray) -> None:
        self.index, self.rows, self.offsets = index, list(vectors), list(offsets)
        self.allowed = np.ones(len(vectors), dtype=bool)

    def take(self, step: Step, tolerance: float) -> None:
        word, number, seed = step
        vector = (0.5 * (_clustered(ROWS)[[seed % ROWS, seed // ROWS % ROWS]].sum(axis=0))).astype(np.float32)
        if word == "append":
            offset = float(seed % 3) - 1
            assert self.index.append(vector, offset) == len(self.rows)
            self.rows.append(vector)
            self.offsets.append(offset)
            self.allowed = np.append(self.allowed, True)
        elif word == "replace":
            self.index.replace(number % len(self.rows), vector)
            self.rows[number % len(self.rows)] = vector
        elif word == "bar":  # a stretch: few, many or all of them
            self.allowed[number % len(self.rows) :][: seed % (2 * len(self.rows))] = False
        elif word == "allow":
            self.allowed[number % len(self.rows) :: 1 + seed % 40] = True
        else:
            self.check(vector, 1 + number % 30, tolerance)

    def check(self, query: np.ndarray, depth: int, tolerance: float) -> None:
        true = np.array(self.rows) @ query + np.array(self.offsets, dtype=np.float32)
        allowed = None if self.allowed.all() else self.allowed.copy()
        items, scores = self.index.search(query[None], depth, allowed)[0]
        best = np.sort(true[self.allowed])[::-1][:depth]
        assert len(items) == len(best) == len(set(items.tolist()))
        assert self.allowed[items].all()
        assert np.all(np.diff(scores) <= 1e-6)
        assert np.abs(scores - true[items]).max(initial=0) < tolerance
        assert np.all(true[items] >= best.min(initial=np.inf) - 2 * tolerance)
        assert np.allclose(self.index.rows(items), np.array(self.rows)[items].reshape(len(items), DIM), atol=1e-6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.sampled_from(["exact", "few", "lists"]))
def test_what_was_added_replaced_or_left_out_is_found_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Step], kind: str
) -> None:
    vectors, offsets = _clustered(ROWS), np.linspace(-1, 1, ROWS, dtype=np.float32)
    index = DenseIndex(vectors, offsets) if kind == "exact" else approximate.load(folder, "items", Plain(vectors), offsets)
    with monkeypatch.context() as patch:
        if kind == "lists":  # all lists are read: what is left is the rounding of the codes
            for name, value in (("SCANNED", 0), ("WAITING", 6), ("MOVED", 4)):
                patch.setattr(approximate, name, value)
            _read_all_lists(index)
        model = Model(index, vectors, offsets)
        for step in [*steps, ("search", 12, 7)]:
            model.take(step, 1e-4 if kind != "lists" else 0.05)


def test_a_delta_of_dead_entries_begins_anew_and_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCANNED", 0), ("WAITING", 8), ("MOVED", 4)):
        monkeypatch.setattr(approximate, name, value)
    vectors, offsets = _clustered(ROWS), np.linspace(-1, 1, ROWS, dtype=np.float32)
    index = approximate.load(folder, "items", Plain(vectors), offsets)
    assert isinstance(index, ApproximateIndex)
    _read_all_lists(index)
    model = Model(index, vectors, offsets)
    for number in range(400):
        model.take(("replace", 250 + number % 70, number), 0.05) if number % 3 else model.take(("append", 0, number), 0.05)
        if number % 20 == 0:
            model.check(_clustered(1, number)[0], 20, 0.05)
    assert index.entries[0] < 400, "dead entries are thrown away"


def test_few_items_stay_exact_many_get_an_inverted_file(tmp_path: Path) -> None:
    few, many = _clustered(200), _clustered(600)
    wanted = IndexSettings(exact_to=400, recall=0.5)
    assert not _opened(tmp_path, few, None, wanted).approximate
    assert _opened(tmp_path, many, None, wanted).approximate
    assert not approximate.load(tmp_path, "items", Plain(many), approximate=False).approximate
    other = tmp_path / "exact"
    other.mkdir()
    assert not _opened(other, many, None, IndexSettings(kind="exact", exact_to=0)).approximate
    assert list(other.iterdir()) == []


def test_a_file_that_finds_too_little_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).standard_normal((3_000, 64), dtype=np.float32)  # no clusters at all: lists say nothing
    assert build.build(DenseIndex(noise), tmp_path, "items", IndexSettings(exact_to=0, recall=0.99), noise[:20]) is None
    assert "search stays exact" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_without_faiss_search_is_exact_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tastemaker.index._faiss", None)
    assert not approximate.load(folder, "items", Plain(_clustered(ROWS))).approximate
    assert "pip install faiss-cpu" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.002, 0.01, 0.1, 0.3, 0.7, 0.995])
@pytest.mark.parametrize("correlated", [False, True])
def test_filters_keep_what_an_exact_filtered_search_finds(
    tmp_path_factory: pytest.TempPathFactory, share: float, correlated: bool
) -> None:
    vectors, index = _large(tmp_path_factory)
    random = np.random.default_rng(3)
    allowed = random.random(len(vectors)) < share
    if correlated:  # what is allowed lies far from what is asked for
        allowed = np.argsort(np.argsort(vectors @ vectors[0])) < share * len(vectors)
    queries = vectors[random.integers(0, len(vectors), 40)] + 0.05 * random.standard_normal((40, 32), dtype=np.float32)
    found = index.search(queries, 20, allowed)
    true = DenseIndex(vectors).search(queries, 20, allowed)
    assert [len(one[0]) for one in found] == [len(one[0]) for one in true]
    assert np.mean([len(np.intersect1d(one[0], best[0])) / len(best[0]) for one, best in zip(found, true, strict=True)]) > 0.95


def test_what_lies_close_together_is_looked_at_by_its_codes_and_what_is_scattered_is_scanned(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    vectors, index = _large(tmp_path_factory)
    assert isinstance(index, ApproximateIndex)
    count, random = 2 * index._read, np.random.default_rng(4)
    close, scattered, few = (np.zeros(len(vectors), bool) for _ in range(3))
    close[np.argsort(-(vectors @ vectors[0]))[:count]] = True
    scattered[random.choice(len(vectors), count, replace=False)] = True
    few[np.argsort(-(vectors @ vectors[0]))[: count // 5]] = True
    ways = [index._way(20, allowed, len(vectors) - int(allowed.sum())) for allowed in (close, scattered, few)]
    assert ways == ["lists", "scan", "scan"]
    query = vectors[:3] + 0.05 * random.standard_normal((3, 32), dtype=np.float32)
    for allowed in (close, scattered):
        pairs = zip(index.search(query, 50, allowed), DenseIndex(vectors).search(query, 50, allowed), strict=True)
        assert min(len(np.intersect1d(one[0], best[0])) for one, best in pairs) >= 48, "all of them, so only codes are rough"


_LARGE: dict[str, tuple[np.ndarray, DenseIndex]] = {}


def _large(folders: pytest.TempPathFactory) -> tuple[np.ndarray, DenseIndex]:
    if not _LARGE:
        vectors = _clustered(20_000, dim=32)
        index = _opened(folders.mktemp("large"), vectors, None, IndexSettings(exact_to=0, recall=0.95))
        assert isinstance(index, ApproximateIndex)
        assert index.plan.probes < index.plan.lists
        _LARGE["one"] = vectors, index
    return _LARGE["one"]


def test_codes_of_vectors_stand_behind_an_inverted_file_too(tmp_path: Path) -> None:
    vectors = _clustered(3_000, dim=32)
    build.build(DenseIndex(vectors), tmp_path, "items", FORCED)
    index = approximate.load(tmp_path, "items", Bytes.of(vectors))
    found, true = index.search(vectors[:9], 10), DenseIndex(vectors).search(vectors[:9], 10)
    assert np.mean([len(np.intersect1d(one[0], best[0])) for one, best in zip(found, true, strict=True)]) > 8.5


def test_the_popular_are_found_wherever_they_lie(tmp_path: Path) -> None:
    vectors = _clustered(20_000, dim=32)
    offsets = np.where(np.arange(len(vectors)) % 200 == 0, 3.0, -3.0).astype(np.float32)  # a hundred in all clusters
    questions = 5 * _clustered(200, 9, dim=32)
    index = _opened(tmp_path, vectors, offsets, IndexSettings(exact_to=0, recall=0.9))
    assert isinstance(index, ApproximateIndex)
    true = DenseIndex(vectors, offsets).search(questions, 100)
    found = index.search(questions, 100)
    assert np.mean([len(np.intersect1d(one[0], best[0])) / 100 for one, best in zip(found, true, strict=True)]) > 0.95


def test_where_codes_are_too_rough_the_best_are_scored_by_their_own_vectors(tmp_path: Path) -> None:
    near = np.random.default_rng(0).standard_normal((6_000, 32), dtype=np.float32)
    near = (_clustered(1, dim=32) + 0.002 * near).astype(np.float32)  # so close together that bytes hardly tell them apart
    near[:20] *= 40  # the codes reach as far as these
    questions = np.random.default_rng(1).standard_normal((60, 32), dtype=np.float32)
    plan = build.build(DenseIndex(near), tmp_path, "items", IndexSettings(kind="approximate", recall=0.9), questions)
    assert plan is not None
    assert plan.more > 0
    index = approximate.load(tmp_path, "items", Plain(near))
    items, scores = index.search(questions[:1], 30)[0]
    assert np.allclose(scores, near[items] @ questions[0], atol=1e-4)


def test_what_is_asked_of_an_index_goes_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = 10, 50_000, 50_001, 500_000, 500_001, 5_000_000, 5_000_001
    assert [build.usual_recall(rows) for rows in sizes] == [0.995, 0.995, 0.98, 0.98, 0.95, 0.95, 0.90]
    monkeypatch.setattr(build, "RECALLS", ((100, 0.9), (math.inf, 0.3)))
    vectors = np.random.default_rng(3).standard_normal((3_000, 16)).astype(np.float32)
    plan = build.build(DenseIndex(vectors), tmp_path, "items", IndexSettings(exact_to=0), vectors[:50])
    assert plan is not None
    assert plan.recall >= 0.3
    stricter = build.build(DenseIndex(vectors), tmp_path, "items", IndexSettings(exact_to=0, recall=0.6), vectors[:50])
    assert stricter is not None
    assert stricter.probes > plan.probes


def test_no_more_lists_are_read_than_are_needed(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).standard_normal((2_500, 16)).astype(np.float32)
    counts = []
    for wanted in (0.3, 0.4, 0.6):
        plan = build.build(DenseIndex(vectors), tmp_path, "items", IndexSettings(exact_to=0, recall=wanted), vectors[:100])
        assert plan is not None
        assert plan.recall >= wanted
        counts.append(plan.probes)
    assert counts == sorted(counts)
    assert any(count & (count - 1) for count in counts), "doubling alone reads up to twice as many as are needed"


def test_together_is_as_alone_whatever_is_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    vectors = random.standard_normal((6_000, 16)).astype(np.float32)
    index = _opened(tmp_path, vectors, None, IndexSettings(exact_to=0, recall=0.5))
    questions, depths = random.standard_normal((8, 16)).astype(np.float32), [5, 40, 40, 5, 90, 40, 5, 40]
    for share in (0.0, 0.003, 0.02, 0.3, 0.7, 0.99):
        allowed = unwritten(random.random(6_000) >= share)
        for _ in range(2):  # what is kept of the mask from the first time, too
            found = index.search(questions, depths, allowed)
            for question, depth, (items, scores) in zip(questions, depths, found, strict=True):
                [(alone, own)] = index.search(question[None], depth, allowed)
                assert allowed[items].all()
                assert items.tolist() == alone.tolist()
                assert np.allclose(scores, own, atol=1e-4)
        best = int(found[1][0][0])
        index.replace(best, -questions[1])
        assert best not in index.search(questions[1:2], 5, allowed)[0][0].tolist()


def _asked_of(folder: Path, spread: float, wanted: IndexSettings) -> build.Plan | None:
    """What becomes of 3,000 rows so far from the centres around which they lie."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((75, 32))
    rows = (centres[random.integers(0, 75, 3_000)] + spread * random.standard_normal((3_000, 32))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return build.build(DenseIndex(rows), folder, "items", wanted, rows[:40])


def test_an_index_of_many_items_that_misses_the_aim_is_used_from_the_floor_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aim, wanted = 0.995, IndexSettings(exact_to=0)
    assert _asked_of(tmp_path, 0.7, wanted) is None, "few items: a look at all of them is cheap"
    assert f"at least {aim} is asked for" in capsys.readouterr().out
    monkeypatch.setattr(build, "FLOOR_FROM", 2_999)
    plan = _asked_of(tmp_path, 0.7, wanted)
    assert plan is not None
    assert build.FLOOR <= plan.recall < aim
    assert plan.probes <= plan.lists // build.AIM_SHARE
    assert f"finds {plan.recall:.3f} of the true best where {aim} was aimed at" in (told := capsys.readouterr().out)
    assert f"index.recall = {aim} makes that a must" in told
    farther = _asked_of(tmp_path, 1.0, wanted)
    assert farther is not None, "an eighth of the lists does not hold the floor, a quarter does"
    assert (farther.probes, farther.recall >= build.FLOOR) == (farther.lists // build.FLOOR_SHARE, True)


@pytest.mark.parametrize(("spread", "recall"), [(1.6, 0.0), (0.7, 0.995)])
def test_below_the_floor_and_below_a_recall_of_ones_own_search_stays_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spread: float, recall: float
) -> None:
    monkeypatch.setattr(build, "FLOOR_FROM", 2_999)
    assert _asked_of(tmp_path, spread, IndexSettings(exact_to=0, recall=recall)) is None
    assert list(tmp_path.iterdir()) == []
    assert f"at least {recall or build.FLOOR} is asked for" in capsys.readouterr().out


def test_what_an_index_has_to_find_is_no_less_than_what_the_alert_wants() -> None:
    asked = [build.recall_asked(rows, IndexSettings())[1] for rows in (10, 50_000, 50_001, 5_000_000, 10**9)]
    assert asked == [0.995, 0.995, 0.9, 0.9, 0.9]
    assert min(asked) >= AlertSettings().recall_share
    assert build.recall_asked(10**6, IndexSettings(recall=0.97)) == (0.97, 0.97)
