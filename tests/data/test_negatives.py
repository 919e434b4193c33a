"""Negatives: never an item of the user's own, drawn by the chance that is declared, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tastemaker.data.negatives import (
    NONE,
    Hard,
    InBatch,
    Negatives,
    OwnItems,
    Positives,
    Proportional,
    Unclicked,
    popular_chance,
    uniform_chance,
)
from tastemaker.data.sequences import Sequences
from tastemaker.data.weights import event_weights, window_chance
from tastemaker.schema.errors import InputError, SettingsError
from tastemaker.schema.settings import SamplingSettings
from tastemaker.schema.settings_file import load_settings

N = 12
HISTORIES = st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=N), min_size=1, max_size=6)
KINDS = ("uniform", "popularity", "in_batch", "hard", "unclicked")


def log(histories: list[list[int]], times: list[float] | None = None, kinds: list[int] | None = None) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    when = np.array(times if times is not None else range(len(items)), dtype=np.float64)
    types = np.array(kinds if kinds is not None else [0] * len(items), dtype=np.int16)
    users = [f"u{user}" for user in range(len(histories))]
    return Sequences(users, [f"i{place}" for place in range(N)], offsets, items, when, types, ["view", "buy"])


def world(histories: list[list[int]], kind: str, seed: int) -> tuple[Sequences, Positives, Negatives]:
    """Every event of the log as a positive, and a source over it."""
    sequences = log(histories)
    own = OwnItems(sequences)
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(sequences.n_users), sequences.lengths())
    scores = random.normal(size=(len(users), N)).astype(np.float32)
    requests = random.integers(0, sequences.n_users, size=len(users))
    rows = Positives(users, sequences.items, scores, requests=users if kind == "unclicked" else requests)
    shown = [np.flatnonzero(random.random(N) < 0.5).astype(np.int32) for _ in histories]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in shown])]).astype(np.int64)
    sources: dict[str, Callable[[], Negatives]] = {
        "uniform": lambda: Proportional(uniform_chance(N), own),
        "popularity": lambda: Proportional(popular_chance(sequences.counts() + 1, 0.75), own),
        "in_batch": lambda: InBatch(sequences.counts(), own),
        "hard": lambda: Hard(own, pool=4, skip=1, margin=0.5),
        "unclicked": lambda: Unclicked(offsets, np.concatenate(shown), np.arange(len(histories)), own),
    }
    return sequences, rows, sources[kind]()


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.sampled_from(KINDS), st.integers(0, 99))
def test_law_no_negative_is_an_item_of_the_users_own(histories: list[list[int]], kind: str, seed: int) -> None:
    _, rows, source = world(histories, kind, seed)
    found = source.draw(rows, 5, np.random.default_rng(seed))
    assert found.items.shape == found.log_probability.shape == (len(rows.users), 5)
    for user, items in zip(rows.users, found.items, strict=True):
        assert not set(items.tolist()) & set(histories[user])
    chance = source.distribution(rows)
    total = chance.sum(axis=1)
    assert np.allclose(total[total > 0], 1.0)
    for user, row in zip(rows.users, chance, strict=True):
        assert not row[histories[user]].any()
    row, place = np.nonzero(found.items != NONE)
    declared = chance[row, found.items[row, place]]
    assert np.allclose(np.exp(found.log_probability[row, place]), declared, rtol=1e-4)
    if kind != "hard":  # drawn without replacement: its pool may be smaller than what is asked for
        assert ((found.items == NONE).all(axis=1) == (total == 0)).all() or kind == "in_batch"
    assert not found.log_probability[found.items == NONE].any()


@settings(max_examples=30, deadline=None)
@given(HISTORIES, st.sampled_from(KINDS), st.integers(0, 99))
def test_law_the_same_seed_draws_the_same(histories: list[list[int]], kind: str, seed: int) -> None:
    _, rows, source = world(histories, kind, seed)
    one, two = (source.draw(rows, 4, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one.items, two.items)
    assert np.array_equal(one.log_probability, two.log_probability)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "hard", "unclicked"])
def test_what_is_drawn_follows_the_declared_chance(kind: str) -> None:
    _, rows, source = world([[0, 1, 2], [3, 3, 4, 0, 7, 8, 9], [5]], kind, 3)
    chance = source.distribution(rows)
    draws = np.concatenate([source.draw(rows, 2, np.random.default_rng([7, turn])).items for turn in range(3_000)], axis=1)
    for row, declared in enumerate(chance):
        counted = np.bincount(draws[row][draws[row] != NONE], minlength=N)
        assert not counted[declared == 0].any()
        if np.count_nonzero(declared) > 1:
            fit = stats.chisquare(counted[declared > 0], declared[declared > 0] * counted.sum())
            assert fit.pvalue > 1e-4


def test_in_batch_follows_popularity_when_batches_are_drawn_from_the_log() -> None:
    histories = [[0, 1], [0, 2], [0, 3], [0, 4, 5], [0, 6, 1]]
    sequences, rows, source = world(histories, "in_batch", 0)
    random = np.random.default_rng(5)
    asker = int(np.flatnonzero(rows.items == 6)[0])
    counted = np.zeros(N)
    for _ in range(3_000):
        batch = np.concatenate([[asker], random.integers(len(rows.users), size=40)])
        drawn = source.draw(Positives(rows.users[batch], rows.items[batch]), 1, random)
        counted += np.bincount(drawn.items[0], minlength=N)
    declared = source.distribution(Positives(rows.users[[asker]], rows.items[[asker]]))[0]
    assert np.count_nonzero(declared) == 4
    assert declared[0] == 0.0
    # 2, 3, 4, 5 have one event each: their user met 0, 1 and 6
    fit = stats.chisquare(counted[declared > 0], declared[declared > 0] * counted.sum())
    assert fit.pvalue > 1e-4
    assert sequences.counts()[0] == 5


def test_alpha_goes_from_uniform_to_popularity() -> None:
    counts = np.array([8, 1, 0])
    assert np.allclose(popular_chance(counts, 0.0), 1 / 3)
    assert np.allclose(popular_chance(counts, 1.0), [8 / 9, 1 / 9, 0])
    assert popular_chance(counts, 0.5)[0] == pytest.approx(8**0.5 / (8**0.5 + 1))
    assert np.allclose(popular_chance(np.zeros(3, int), 0.5), 1 / 3)


def test_hard_negatives_skip_the_first_places_and_what_outscores_the_positive() -> None:
    own = OwnItems(log([[0, 1]]))
    scores = np.array([[9.0, 5.0, 8.0, 6.0, 5.4, 4.0, 3.0, 2.0, 1.0, 0.0, -1.0, np.nan]], dtype=np.float32)
    rows = Positives(np.array([0]), np.array([1], dtype=np.int32), scores)
    assert Hard(own, pool=3, skip=0).pool(rows).tolist() == [[2, 3, 4]]
    assert Hard(own, pool=3, skip=2).pool(rows).tolist() == [[4, 5, 6]]
    assert Hard(own, pool=3, skip=0, margin=0.5).pool(rows).tolist() == [[4, 5, 6]]
    assert Hard(own, pool=3, skip=3, margin=0.5).pool(rows).tolist() == [[5, 6, 7]]
    assert Hard(own, pool=3, skip=0, margin=-0.9).pool(rows).tolist() == [[5, 6, 7]]
    assert Hard(own, pool=3, skip=0, margin=-5.5).pool(rows).tolist() == [[10, NONE, NONE]]
    with pytest.raises(InputError, match="Give Positives\\(scores"):
        Hard(own).pool(Positives(rows.users, rows.items))


def test_a_user_who_met_nearly_everything_gets_what_is_left() -> None:
    own = OwnItems(log([list(range(N - 1)), list(range(N))]))
    chance = np.full(N, 1e-9)
    chance[0] = 1 - 1e-9 * (N - 1)
    rows = Positives(np.array([0, 1]), np.array([0, 0], dtype=np.int32))
    found = Proportional(chance, own).draw(rows, 3, np.random.default_rng(0))
    assert found.items.tolist() == [[N - 1] * 3, [NONE] * 3]
    assert np.allclose(found.log_probability, 0.0, atol=1e-5)


def test_default_settings_weigh_all_alike() -> None:
    assert event_weights(log([[0, 1, 2], [1]]), SamplingSettings()) is None
    assert event_weights(log([[0, 1, 2], [1]]), SamplingSettings(weights={"view": 2.0})) is None


def test_weights_are_the_formula() -> None:
    sequences = log([[0, 1, 1, 2], [1]], times=[1.6e9 + 86_400 * day for day in (0, 1, 2, 3, 4)], kinds=[0, 1, 0, 0, 1])
    sequences = Sequences(**{**vars(sequences), "values": np.array([np.nan, 1.0, 3.0, -1.0, 0.0])})
    chosen = SamplingSettings(weights={"buy": 3.0}, value="log", value_scale=2.0, user_power=0.5, item_power=1.0, half_life=2.0)
    wanted = np.array([1, 3 * (1 + 2 * np.log(2)), 1 + 2 * np.log(4), 1, 3])
    wanted *= np.array([4, 4, 4, 4, 1]) ** -0.5 / np.array([1, 3, 3, 1, 3]) * 0.5 ** (np.array([4, 3, 2, 1, 0]) / 2)
    found = event_weights(sequences, chosen)
    assert found is not None
    assert found.dtype == np.float32
    assert np.allclose(found, wanted / wanted.mean(), rtol=1e-5)
    linear = event_weights(sequences, SamplingSettings(value="linear"))
    assert linear is not None
    assert np.allclose(linear, np.array([1, 2, 4, 1, 1]) / 1.8)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (SamplingSettings(weights={"sale": 2.0}), "names sale, but the log's event types are: view, buy"),
        (SamplingSettings(weights={"view": -1.0}), "expected numbers from 0 up"),
        (SamplingSettings(weights={"view": 0.0}), "weight 0"),
        (SamplingSettings(value="square"), "expected none, linear or log"),
        (SamplingSettings(half_life=3.0), "missing or only an order"),
    ],
)
def test_weights_that_make_no_sense_are_explained(chosen: SamplingSettings, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        event_weights(log([[0, 1], [2]]), chosen)


def test_weights_by_type_are_settings_of_the_command_line_too() -> None:
    found = load_settings(None, ["sampling.weights=buy=3, view=0.5"], {})
    assert found.sampling.weights == {"buy": 3.0, "view": 0.5}
    with pytest.raises(SettingsError, match="wrong value"):
        load_settings(None, ["sampling.weights=buy"], {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=6))
def test_law_balanced_windows_show_every_item_alike(windows: list[list[int]]) -> None:
    items = np.array([item for window in windows for item in window])
    lengths = np.array([len(window) for window in windows])
    chance = window_chance(items, lengths)
    assert chance.sum() == pytest.approx(1.0)
    met = set(items.tolist())
    wanted = [sum(window.count(item) / items.tolist().count(item) for item in met) / len(met) for window in windows]
    assert np.allclose(chance, wanted)


def test_own_items_of_nobody() -> None:
    own = OwnItems(log([[]]))
    empty: NDArray[np.int64] = np.zeros((1, 3), np.int64)
    assert not own.has(np.array([0]), empty).any()
    assert own.pairs(np.array([0]))[0].tolist() == []
