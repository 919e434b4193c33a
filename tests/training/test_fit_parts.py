"""Held-back events, neighbours, windows, the text cache, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_world import ring

from tastemaker.data.sequences import Sequences, build
from tastemaker.schema.errors import BundleError, InputError
from tastemaker.schema.settings import TextSettings
from tastemaker.training.checkpoints import load_weights, save_weights
from tastemaker.training.encoder import encode_cached, load_encoder
from tastemaker.training.holdout import hold_out
from tastemaker.training.neighbours import near_neighbours, recent_popularity, shared_neighbours
from tastemaker.training.precision import flushed_denormals
from tastemaker.training.sequence import windows


def _sequences(histories: list[list[int]], n: int = 6, times: list[float] | None = None) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    when = np.array(times if times is not None else range(len(items)), dtype=np.float64)
    users = [str(user) for user in range(len(histories))]
    return Sequences(users, [f"i{place}" for place in range(n)], offsets, items, when, np.zeros(len(items), np.int16), ["event"])


HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=30), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(1, 9))
def test_windows_make_every_event_but_the_first_a_target_once(histories: list[list[int]], longest: int) -> None:
    sequences = _sequences(histories)
    begin, length = windows(sequences, longest)
    assert (length >= 1).all()
    assert (length <= longest).all()
    targets = [place for one, many in zip(begin, length, strict=True) for place in range(one + 1, one + many + 1)]
    wanted = [place for user in range(len(histories)) for place in range(sequences.offsets[user] + 1, sequences.offsets[user + 1])]
    assert sorted(set(targets)) == wanted
    if all(len(history) <= longest + 1 for history in histories):
        assert sorted(targets) == wanted


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_nothing_is_learned_from_what_is_held_back(histories: list[list[int]], seed: int, share: float) -> None:
    sequences = _sequences(histories)
    held = hold_out(sequences, share, seed)
    fresh = set(np.flatnonzero(held.known & (held.train.counts() == 0)).tolist())
    for user, whole in enumerate(histories):
        kept = held.train.history(user).tolist()
        assert len(kept) < len(whole) or len(whole) < 2
        last = min(5, max(1, len(whole) // 10)) if len(whole) > 1 else 0
        cold = {item for item in whole if item not in held.train.items}
        assert kept == [item for item in whole[: len(whole) - last] if item not in cold]
    for history, target, cold_target in zip(held.histories, held.targets, held.cold, strict=True):
        assert target not in history
        assert bool(cold_target) == (int(target) in fresh)


def test_neighbours_are_those_met_together_and_the_nearer_the_stronger() -> None:
    sequences = _sequences([[0, 1, 2], [0, 1, 3], [0, 1, 2]])
    near = near_neighbours(sequences, 10).weights.toarray()
    assert np.allclose(near, near.T)
    assert not near.diagonal().any()
    assert near[0, 1] == pytest.approx(3 / 3)
    assert near[0, 2] == pytest.approx(2 * 2**-0.5 / 6**0.5)
    shared = shared_neighbours(sequences, 1).weights.toarray()
    assert shared[0, 1] == pytest.approx(1.0)
    assert (np.count_nonzero(shared, axis=1) <= 1).all()


def test_popularity_fades_only_where_times_are_real() -> None:
    sequences = _sequences([[0, 0, 0, 1, 1]], times=[0, 1, 2, 99, 100])
    old, new = recent_popularity(sequences, time_is_order=False)[:2]
    assert new > old > 0
    order = recent_popularity(sequences, time_is_order=True)
    assert order[0] == 1.0 > order[1] > order[2] == 0.0


def test_a_text_is_encoded_once_and_remembered(tiny_encoder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(TextSettings(model=str(tiny_encoder)), "fp32")
    seen: list[int] = []
    tell = lambda what, done, total: seen.append(total)  # noqa: E731
    texts = ["red thing", "", "blue thing", "red thing"]
    first = encode_cached(encoder, texts, tmp_path, progress=tell)
    assert set(seen) == {2}
    assert not first[1].any()
    assert np.array_equal(first[0], first[3])
    seen.clear()
    again = encode_cached(encoder, ["blue thing", "green thing"], tmp_path, progress=tell)
    assert set(seen) == {1}
    assert np.array_equal(again[0], first[2])
    shorter = load_encoder(TextSettings(model=str(tiny_encoder), max_length=2), "fp32")
    assert shorter.fingerprint != encoder.fingerprint


def test_an_unknown_language_model_is_an_error_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no Hugging Face encoder"):
        load_encoder(TextSettings(model=str(tmp_path)))
    with pytest.raises(InputError, match="Give a local folder"):
        load_encoder(TextSettings(model="nobody/no-such-model"))


def test_weights_come_back_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_weights(one, tmp_path / "w.safetensors")
    load_weights(two, tmp_path / "w.safetensors")
    assert torch.equal(one.weight, two.weight)
    with pytest.raises(BundleError, match="does not hold the weights"):
        load_weights(torch.nn.Linear(4, 2), tmp_path / "w.safetensors")
    with pytest.raises(BundleError, match="does not hold the weights"):
        load_weights(one, tmp_path / "absent.safetensors")


def test_the_run_leaves_curves_and_weights(brain: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    runs = next(tmp_path_factory.getbasetemp().glob("fit*/runs"))
    assert (runs / "refit.safetensors").is_file()
    assert list(runs.glob("validate/events.out.tfevents.*"))


def test_the_ring_is_a_ring() -> None:
    history = build(ring(3)).history(0)
    assert (np.diff(history) % 40 == 1).all()


def test_training_leaves_the_processor_as_it_was() -> None:
    tiny = np.float32(1e-42)
    with flushed_denormals():
        assert float(torch.tensor(1e-42) * 1.0) == 0.0
    assert float(torch.tensor(1e-42) * 1.0) > 0.0
    assert tiny * np.float32(1.0) > 0
