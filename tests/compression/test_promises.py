"""What each part of a compression promises the others: compared with the bundle as it was, learned from no text that judges, never taken for what it is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import toy_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.compression import text, user
from tastemaker.compression.budget import Budget, Questions
from tastemaker.compression.figures import Figures, Probe, gained, held_back
from tastemaker.compression.ladder import Ladder
from tastemaker.compression.reread import texts_of
from tastemaker.compression.step import DEAD, TEXT, USER, Facts, Step, Tools, carry
from tastemaker.compression.vectors import to_bytes
from tastemaker.inference import runtimes
from tastemaker.inference.engine import TextEncoder
from tastemaker.schema.protocols import Asker, FloatArray, IntArray
from tastemaker.schema.settings import CompressSettings

ITEMS, ASKED = 40, 2_000


class Worn:
    """Answers of which a share, 4 % for each time that the bundle was changed, miss their target."""

    def __init__(self, changes: int) -> None:
        self._missed = 0.04 * changes

    def lists(self, histories: Sequence[IntArray], k: int, askers: Sequence[Asker] | None = None) -> list[IntArray]:
        rows = [int(history[0]) for history in histories]
        lots = np.random.default_rng(3).random(ASKED)
        return [np.array([ITEMS if lots[row] < self._missed else row % ITEMS], np.int32) for row in rows]

    def chances(
        self, histories: Sequence[IntArray], items: Sequence[IntArray], askers: Sequence[Asker] | None = None
    ) -> list[FloatArray]:
        return [np.zeros(len(one), np.float32) for one in items]

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return np.zeros((len(texts), 1), np.float32)

    def users(self, histories: Sequence[IntArray]) -> FloatArray:
        return np.zeros((len(histories), 1), np.float32)


def questions() -> Questions:
    rows = np.arange(ASKED)
    return Questions([np.array([row], np.int32) for row in rows], [np.array([row % ITEMS], np.int32) for row in rows], rows, "toy")


def wearing(name: str, calls: list[str], gains: tuple[str, ...] = ()) -> Step:
    def apply(bundle: Path, place: Path, tools: Tools) -> Facts:
        calls.append(name)
        carry(bundle, place)
        (place / f"worn-{name}.txt").write_text("once more")
        return {}

    return Step(name, DEAD, "wears a little", apply, gains)


@pytest.fixture
def climbing(tmp_path: Path) -> Callable[[list[str]], Ladder]:
    """Makes a ladder of two steps, or of others, that each lose 4 %, 6 % being allowed."""
    toy_bundle.write_later_workspace(tmp_path / "space", 30)
    judged = Registry(tmp_path / "space" / "bundles").live()

    def make(calls: list[str], gains: tuple[str, ...] = ()) -> Ladder:
        tools = Tools(
            lambda folder: Worn(len(list(folder.glob("worn-*")))),
            lambda path, width: TextEncoder(path, width),
            lambda path, content: content,
            CompressSettings(),
            tmp_path / "cache",
        )
        probe = Probe(questions().histories[:10], [])
        ladder = Ladder(
            tmp_path / "ladder", [[wearing(name, calls, gains)] for name in ("one", "two")], tools, probe, questions(), 0.06, 200
        )
        ladder.climb(judged)
        return ladder

    return make


def test_small_losses_do_not_add_up_and_a_rung_that_is_gone_is_made_again(climbing: Callable[[list[str]], Ladder]) -> None:
    calls: list[str] = []
    ladder = climbing(calls)
    assert [one.state for one in ladder.tried()] == ["accepted", "refused"], "the second is compared with the bundle as it was"
    assert calls == ["one", "two"]
    climbing(calls)
    assert calls == ["one", "two"], "what was tried stands"
    shutil.rmtree(ladder.folder / str(ladder.tried()[0].version))
    climbing(calls)
    assert calls == ["one", "two", "one", "two"]


def test_a_step_that_wins_nothing_is_left_out_though_the_quality_is_kept(climbing: Callable[..., Ladder]) -> None:
    ladder = climbing([], ("bytes",))  # each adds a file and saves nothing
    assert [one.state for one in ladder.tried()] == ["refused", "refused"]
    first = ladder.tried()[0]
    assert first.verdict is not None
    assert first.verdict.accepted
    assert "it wins nothing (bytes " in first.why
    assert not ladder.accepted()


def test_a_gain_is_fewer_bytes_or_clearly_more_speed() -> None:
    before = Figures(bytes=1_000, parts={}, parameters=1, p50=1.0, p99=1.0, answers=100.0, texts=100.0, resident=1_000)

    def told(*names: str, **better: float) -> str:
        return gained(before, msgspec.structs.replace(before, **better), names)

    assert "bytes 1,000 before, 1,000 after; answers 100 before, 100 after" in told("bytes", "answers")
    assert not told("bytes", "answers", bytes=999)
    assert told("bytes", "answers", bytes=1_001, answers=104.0), "so little may be chance"
    assert not told("bytes", "answers", bytes=1_001, answers=106.0)
    assert told("answers", answers=50.0), "slower is no gain"
    assert told("resident", resident=1_000, bytes=1), "bytes are not what this step is for"
    assert not told("resident", resident=900)
    assert not told("resident", resident=None), "what was not measured speaks against nobody"
    assert not told(), "a step that prepares another need not win anything"


def test_the_same_items_are_compared_in_every_bundle() -> None:
    asked = questions()
    asked = Questions(asked.histories, asked.targets, asked.users, "toy", ITEMS)
    one, other = Budget(0.01, asked, Worn(0))._pools, Budget(0.01, asked, Worn(1))._pools
    assert all((a == b).all() for a, b in zip(one._items, other._items, strict=True))
    for items, wanted, row in zip(one._items, one._wanted, one.rows, strict=True):
        assert items[wanted].tolist() == asked.targets[row].tolist()
        assert not np.isin(items[~wanted], np.concatenate([asked.histories[row], asked.targets[row]])).any()


def test_a_text_step_must_keep_the_neighbours_of_new_texts() -> None:
    probe = Probe([], [], least=0.6)
    step = wearing("any", [])
    of = {part: Step("any", part, "", step.apply) for part in (TEXT, USER)}
    poor = Figures(bytes=1, parts={}, parameters=1, p50=1.0, p99=1.0, answers=1.0, texts=1.0, neighbours=0.5)
    assert "keeps 0.500 of its ten neighbours" in probe.faults(poor, of[TEXT])[0]
    assert not probe.faults(poor, of[USER])
    assert not probe.faults(msgspec.structs.replace(poor, neighbours=0.61), of[TEXT])


def test_a_text_step_learns_from_no_text_that_judges_and_the_catalogue_is_read_again(tmp_path: Path) -> None:
    toy_bundle.write_later_workspace(tmp_path / "space", 30)
    bundle, place, learned = Registry(tmp_path / "space" / "bundles").live(), tmp_path / "place", list[str]()
    place.mkdir()

    def make(source: Path, target: Path, texts: Sequence[str]) -> Facts:
        learned.extend(texts)
        model = onnx.load(str(source / "model.onnx"))
        table = next(one for one in model.graph.initializer if one.name == "table")
        table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[:, ::-1].copy(), "table"))
        onnx.save(model, str(target / "model.onnx"))
        return {}

    tools = Tools(
        Worn,
        lambda path, width: TextEncoder(path, width),
        lambda path, content: content,
        CompressSettings(),
        tmp_path / "cache",  # type: ignore[arg-type]
    )
    text.changed(bundle, place, tools, "turned", make)
    every = list(dict.fromkeys(texts_of(bundle)))
    held = [one for one, judges in zip(every, held_back(every), strict=True) if judges]
    assert held
    assert sorted(learned) == sorted(set(every) - set(held))
    before, after = (np.load(folder / "channels" / "text.npy") for folder in (bundle, place))
    assert np.allclose(after, before[:, ::-1], atol=1e-6), "the vectors in the index are those of the new encoder"
    assert np.allclose(TextEncoder(place / "text_encoder", after.shape[1]).encode(texts_of(place)[:5]), after[:5], atol=1e-6)
    source = bundle / "text_encoder"
    assert text._key(source, "int8", every, [128, 0]) != text._key(source, "int8", every, [64, 0]), "made by other settings"
    assert text._key(source, "int8", every, [128, 0]) != text._key(source, "int8", every[1:], [128, 0]), "made of other texts"


def test_the_user_tower_keeps_inputs_for_every_runtime_to_meet(tmp_path: Path) -> None:
    random, bundle, place = np.random.default_rng(0), tmp_path / "bundle", tmp_path / "place"
    for part in ("users", "channels", "user_tower"):
        (bundle / part).mkdir(parents=True)
    place.mkdir()
    words = "agraph (float[b,l,80] vectors, int64[b] lengths) => (float[b,80] vector) { all = MatMul (vectors, w)\n vector = ReduceMean <axes = [1], keepdims = 0> (all) }"
    graph = toy_bundle.graph(words, {"w": random.normal(size=(80, 80)).astype(np.float32)})
    onnx.save(graph, bundle / "user_tower" / "model.onnx")
    np.save(bundle / "channels" / "items.npy", random.normal(size=(50, 80)).astype(np.float32))
    np.save(bundle / "users" / "offsets.npy", np.arange(0, 401, 4))
    np.save(bundle / "users" / "items.npy", random.integers(0, 50, 400).astype(np.int32))
    np.save(bundle / "users" / "times.npy", np.arange(400.0))
    (bundle / "settings.json").write_bytes(msgspec.json.encode({"sequence": {"max_length": 3}}))
    tools = Tools(Worn, None, None, CompressSettings(calibration=8), tmp_path)  # type: ignore[arg-type]
    assert float(user.int8(bundle, place, tools)["cosine"]) > 0.999
    feeds = user.history_feeds(bundle, 1_000, 0)
    assert sum(len(feed["lengths"]) for feed in feeds) == 100
    assert max(int(feed["lengths"].max()) for feed in feeds) == 3
    with np.load(place / "user_tower" / "golden.npz") as table:
        sizes = [sum(path.stat().st_size for path in (folder / "user_tower").iterdir()) for folder in (bundle, place)]
        assert sizes[1] < 0.7 * sizes[0], "what is kept for the runtimes takes no more bytes than eight bits save"
        found = runtimes.by_onnxruntime(place / "user_tower" / "model.onnx").run(
            None, {name: table[name] for name in ("vectors", "lengths")}
        )[0]
        assert runtimes._alike(found, table["vector"]) > 0.999


def test_a_parents_files_are_never_written_through_their_links(tmp_path: Path) -> None:
    random, bundle, place = np.random.default_rng(0), tmp_path / "bundle", tmp_path / "place"
    for part in ("channels", "features"):
        (bundle / part).mkdir(parents=True)
    place.mkdir()
    np.save(bundle / "channels" / "bias.npy", np.zeros(300, np.float32))
    for name in ("channels/items", "channels/text", "features/item_vectors"):
        np.save(bundle / f"{name}.npy", random.normal(size=(300, 16)).astype(np.float32))
    before = {path: path.read_bytes() for path in bundle.rglob("*.npy")}
    to_bytes(bundle, place, Tools(Worn, None, None, CompressSettings(), tmp_path))  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in before} == before
    assert np.load(place / "features" / "item_vectors.npy").dtype == np.float16


def test_what_another_cpu_measured_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    own = runtimes._key(tmp_path / "model.onnx", 1)
    assert own == runtimes._key(tmp_path / "model.onnx", 1)
    assert own != runtimes._key(tmp_path / "model.onnx", 2)
    monkeypatch.setattr(runtimes, "flags", lambda: frozenset({"sse2"}))
    assert own != runtimes._key(tmp_path / "model.onnx", 1)
