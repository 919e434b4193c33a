"""The whole fit on a world whose answer the eye can see."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest
from ring_world import ITEMS, ring

from tastemaker.data.dataset import Dataset
from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.schema.signals import Signals
from tastemaker.training.fit import TrainedBrain, fit
from tastemaker.training.sequence import train_sequence


def _number(brain: TrainedBrain, item: int) -> int:
    return brain.sequences.item_ids.index(f"i{item}")


def _best(brain: TrainedBrain, history: list[int], k: int = 3) -> list[str]:
    found = brain.recommend([np.array([_number(brain, item) for item in history], dtype=np.int32)], k)[0][0]
    return [brain.sequences.item_ids[place] for place in found]


def test_it_learns_which_item_comes_next(brain: TrainedBrain) -> None:
    starts = [start for start in range(ITEMS) if not {start + 1, start + 2, start + 3} & {15, 35, ITEMS, ITEMS + 1, ITEMS + 2}]
    hits = [f"i{start + 3}" in _best(brain, [start, start + 1, start + 2], 2) for start in starts]
    assert np.mean(hits) > 0.9
    assert brain.metrics["validation_ndcg_fusion"] > 0.5


def test_an_item_without_events_is_recommended_for_its_text(brain: TrainedBrain) -> None:
    vectors = brain.model.item_vectors()
    cold, others = _number(brain, 15), [_number(brain, item) for item in range(ITEMS) if item not in (15, 35)]
    likeness = vectors[others] @ vectors[cold]
    same = [brain.catalogue["title"][place].split()[0] == "green" for place in others]
    assert likeness[same].mean() > likeness[np.logical_not(same)].mean() + 0.1
    found = brain.recommend([np.array([_number(brain, 14)], dtype=np.int32)], ITEMS)[0][0]
    assert cold in found


def test_unknown_users_sessions_and_long_histories_are_answered(brain: TrainedBrain) -> None:
    histories = [np.zeros(0, np.int32), np.array([3], np.int32), np.tile(np.arange(20, dtype=np.int32), 500)]
    for history, (items, score) in zip(histories, brain.recommend(histories, 10), strict=True):
        assert len(items) == len(set(items.tolist())) == 10
        assert not set(items.tolist()) & set(history.tolist())
        assert np.isfinite(score).all()
        assert (np.diff(score) <= 0).all()


def test_the_seed_decides_everything(toy_settings: Settings) -> None:
    settings = msgspec.structs.replace(
        toy_settings, sequence=msgspec.structs.replace(toy_settings.sequence, min_steps=20, epochs=2)
    )
    data, histories = ring(120), [np.array([2, 3], np.int32)]
    one, two = fit(data, settings), fit(data, settings)
    assert np.array_equal(one.model.item_vectors(), two.model.item_vectors())
    assert one.fusion.to_dict() == two.fusion.to_dict()
    other = fit(data, msgspec.structs.replace(settings, train=msgspec.structs.replace(settings.train, seed=7)))
    assert not np.array_equal(one.model.item_vectors(), other.model.item_vectors())
    assert np.array_equal(one.recommend(histories, 5)[0][1], two.recommend(histories, 5)[0][1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_learn(toy_settings: Settings, precision: str) -> None:
    from tastemaker.data.sequences import build
    from tastemaker.training.holdout import hold_out
    from tastemaker.training.sequence import Validation

    settings = msgspec.structs.replace(toy_settings, train=msgspec.structs.replace(toy_settings.train, precision=precision))
    held = hold_out(build(ring()), 0.0, 0)
    text = Signals.of(np.zeros((held.train.n_items, 1), np.float32))  # no text at all: ids alone must do
    _, result = train_sequence(held.train, text, settings, Validation(held.histories, held.targets))
    assert result.best_score is not None
    assert result.best_score > 0.8


def test_tiny_logs_and_catalogues_without_text_still_give_a_brain() -> None:
    settings = load_settings(None, ["sequence.min_steps=5", "sequence.epochs=1", "sequence.dim=16", "train.threads=1"], {})
    rows = {"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"], "timestamp": [1e9, 1e9 + 1, 1e9 + 2]}
    brain = fit(Dataset.read(events=pl.DataFrame(rows)), settings)
    assert brain.encoder is None
    assert brain.recommend([np.array([0], np.int32)], 5)[0][0].tolist() == [1]
    one = fit(Dataset.read(events=pl.DataFrame({name: values[:1] for name, values in rows.items()})), settings)
    assert one.recommend([np.zeros(0, np.int32)], 5)[0][0].tolist() == [0]


def test_what_cannot_be_learned_is_said(toy_settings: Settings) -> None:
    data = ring(5)
    with pytest.raises(InputError, match="no event to learn from"):
        fit(data.with_events(data.events.clear()), toy_settings)
    with pytest.raises(SettingsError, match="expected auto, bf16 or fp32"):
        fit(data, load_settings(None, ["train.precision=int3"], {}))


def test_a_device_that_is_not_here_is_refused(toy_settings: Settings) -> None:
    given = msgspec.structs.replace(toy_settings, train=msgspec.structs.replace(toy_settings.train, device="cuda"))
    with pytest.raises(SettingsError, match=r"train\.device is 'cuda'"):
        fit(ring(), given)
