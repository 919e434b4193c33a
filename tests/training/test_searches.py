"""What people searched for teaches the language model which item is meant, and nothing that is held back does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from search_world import ITEMS, shop, write_reader

from tastemaker.data.dataset import Dataset
from tastemaker.data.searches import Searches, searches
from tastemaker.data.sequences import build
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.encoder import load_encoder
from tastemaker.training.finetune import Tuned, finetune
from tastemaker.training.fit import fit
from tastemaker.training.holdout import Holdout, hold_out
from tastemaker.training.lower_layers import CatalogueReader
from tastemaker.training.pairs import draw_searches
from tastemaker.training.reading import item_texts
from tastemaker.training.search_pairs import divide, searches_of
from tastemaker.training.text_judge import search_ndcg
from tastemaker.training.text_task import FinetuneTask

EVENTS = pl.DataFrame(
    {
        "user_id": ["u", "u", "v", "v", "w", "u"],
        "item_id": ["a", "b", "a", "c", "b", "b"],
        "timestamp": [1.6e9, 1.6e9 + 1, 1.6e9 + 2, 1.6e9 + 3, 1.6e9 + 4, 1.6e9 + 5],
        "event_type": ["click", "purchase", "impression", "click", "view", "click"],
        "query": ["red  shoes ", "red shoes", "shown", 'a "b" 鞋', None, " "],
        "device": ["mobile"] * 6,
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reader(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def world() -> Dataset:
    return shop()


def chosen(folder: Path, *lines: str) -> Settings:
    base = ["train.threads=1", "train.precision=fp32", "text.dim=24", f"text.model={folder}", "finetune.mode=full"]
    base += ["finetune.steps=70", "finetune.batch_size=48", "finetune.learning_rate=0.003", "finetune.temperature=0.1"]
    return load_settings(None, [*base, *lines], {})


def held_of(data: Dataset) -> Holdout:
    return hold_out(build(data), 0.1, 0)


def tuned(data: Dataset, settings: Settings) -> Tuned:
    sequences = build(data)
    texts, encoder = item_texts(data.catalogue(), settings.text.template), load_encoder(settings.text, "fp32")
    return finetune(encoder, texts, encoder.encode(texts), held_of(data), settings, found=searches_of(data, sequences, settings))


def test_positive_events_and_clicks_with_words_are_searches_and_what_was_only_shown_is_none() -> None:
    settings = load_settings(None, ["data.positive=purchase,view"], {})
    data = Dataset.read(events=EVENTS, settings=settings)
    assert data.events["event_type"].to_list() == ["purchase", "view"]
    found = searches(data, ["u", "w"], ["a", "b", "c"])
    assert found.texts == ["red shoes", 'a "b" 鞋']
    rows = list(zip(found.numbers.tolist(), found.items.tolist(), found.users.tolist(), strict=True))
    assert sorted(rows) == [(0, 0, 0), (0, 1, 0), (1, 2, -1)]
    assert len(searches(data, ["u"], ["a"], clicked=("click", "impression"))) == 2, "whoever calls an impression a click gets it"
    assert searches(data, ["u"], ["a", "b", "c"], "device").texts == ["mobile"]
    assert len(searches(data, ["u"], ["z"])) == 0
    with pytest.raises(SettingsError, match="query_field"):
        searches(data, [], [], "it's")


def test_a_log_without_contexts_has_no_searches() -> None:
    plain = Dataset.read(events=EVENTS.drop("query", "device"))
    assert len(searches(plain, ["u"], ["a"])) == 0
    broken = replace(plain, events=plain.events.with_columns(context=pl.lit("{no json")))
    assert len(searches(broken, ["u"], ["a", "b", "c"])) == 0


def test_what_is_held_back_is_not_learned_from(world: Dataset) -> None:
    sequences, held = build(world), held_of(world)
    found = searches(world, sequences.user_ids, sequences.item_ids)
    assert len(found) == 1_200
    early = next(row for row in range(len(found)) if held.train.counts()[found.items[row]] and found.users[row] in held.users)
    held.targets[np.flatnonzero(held.users == found.users[early])[0]] = found.items[early]  # clicked before it was bought
    full = np.ones(len(ITEMS), dtype=bool)
    full[3] = False
    pairs = divide(found, held, full, 0)
    new = held.known & (held.train.counts() == 0)
    used = np.concatenate([pairs.learn, pairs.judge])
    assert new.any()
    assert not new[used[:, 1]].any()
    assert 3 not in used[:, 1]
    assert len(pairs.judge) > 50
    assert not set(pairs.learn[:, 0]) & set(pairs.judge[:, 0]), "a search that judges is never learned from"
    latest = {user: float(held.train.times[end - 1]) for user, end in enumerate(held.train.offsets[1:])}
    targets = set(zip(held.users.tolist(), held.targets.tolist(), strict=True))
    rows = [
        (int(number), int(item), (int(user), int(item)) in targets)
        for number, item, user, time in zip(found.numbers, found.items, found.users, found.times, strict=True)
        if time <= latest[int(user)] and not new[item] and item != 3
    ]
    assert any(held_back for _, _, held_back in rows), "somebody has searched before for what is held back of him"
    assert sorted(map(tuple, used.tolist())) == sorted((number, item) for number, item, held_back in rows if not held_back)


def test_without_times_only_events_of_the_training_are_learned_from(world: Dataset) -> None:
    untimed = replace(world, events=world.events.with_columns(timestamp=pl.lit(None, dtype=pl.Float64)), log=None)
    sequences, held = build(untimed), held_of(untimed)
    found = searches(untimed, sequences.user_ids, sequences.item_ids)
    known = np.flatnonzero(held.train.counts())
    other = next(int(item) for item in known if item not in sequences.history(1))  # clicked at some time, never taken
    more = {"numbers": 0, "items": other, "users": 1, "times": np.nan}
    found = replace(found, **{name: np.append(getattr(found, name), value) for name, value in more.items()})
    pairs = divide(found, held, np.ones(len(ITEMS), dtype=bool), 0)
    train = {(user, int(item)) for user in range(held.train.n_users) for item in held.train.history(user)}
    targets = set(zip(held.users.tolist(), held.targets.tolist(), strict=True))
    rows = list(zip(found.numbers.tolist(), found.items.tolist(), found.users.tolist(), strict=True))
    wanted = sorted((number, item) for number, item, user in rows if (user, item) in train - targets)
    assert 0 < len(wanted) < len(rows)
    assert sorted(map(tuple, np.concatenate([pairs.learn, pairs.judge]).tolist())) == wanted


def test_each_pair_is_drawn_once_a_pass_and_the_draw_is_a_function_of_seed_and_epoch() -> None:
    learn = np.array([[0, 4], [1, 2], [0, 3], [2, 2]])
    drawn = list(draw_searches(learn, 2, 2, (10, 5, 3), 0, 0))
    rows = [
        (int(s), int(t), int(u)) for part in drawn for s, t, u in zip(part.sources[:, 0], part.targets, part.users, strict=True)
    ]
    assert sorted(rows) == sorted((5 + query, item, 10 + query) for query, item in learn.tolist())
    assert all((part.sources[:, 1:] == -1).all() for part in drawn)
    many = np.stack([np.arange(20), np.arange(20)], axis=1)
    first, again, epoch, seed = (
        next(draw_searches(many, 20, 1, (10, 20, 3), seed, epoch)).targets.tolist()
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert first == again
    assert first != epoch
    assert first != seed


def test_a_batch_holds_its_share_of_searches_and_no_search_is_a_negative(folder: Path, world: Dataset) -> None:
    settings, held, sequences = chosen(folder, "finetune.query_share=0.25"), held_of(world), build(world)
    pairs = divide(searches(world, sequences.user_ids, sequences.item_ids), held, np.ones(len(ITEMS), dtype=bool), 0)
    encoder = load_encoder(settings.text, "fp32")
    texts = [*item_texts(world.catalogue(), settings.text.template), *pairs.texts]
    reader = CatalogueReader(encoder.tower, [one.ids for one in encoder.tokenizer.encode_batch(texts)])
    task = FinetuneTask(reader, held.train, settings.finetune, 0, np.zeros((0, 1), dtype=np.int64), pairs)
    batch = next(iter(task.batches(0)))
    asked = (batch.texts[batch.sources[:, 0]] >= len(ITEMS)) & (batch.sources[:, 0] >= 0)
    assert asked.sum() == 12
    assert (batch.texts[batch.targets] < len(ITEMS)).all()
    assert batch.barred[:, batch.texts >= len(ITEMS)].all()
    answers: dict[int, set[int]] = {}
    for search, item in pairs.learn.tolist():
        answers.setdefault(search, set()).add(item)
    for row in np.flatnonzero(asked):
        barred = {int(text) for text in batch.texts[batch.barred[row]] if text < len(ITEMS)}
        assert barred == answers[int(batch.texts[batch.sources[row, 0]]) - len(ITEMS)] & set(batch.texts.tolist())


def test_searches_in_other_words_find_their_items_after_learning(folder: Path, world: Dataset) -> None:
    """Held-back searches: their texts were never learned from. The model as it was knows no synonym."""
    blends = "finetune.blends=0.0,1.0"
    found = tuned(world, chosen(folder, blends, "finetune.query_share=0.5", "text.whitenings=0.0"))
    before, after = (found.metrics[f"finetune_search_ndcg_{blend}_0"] for blend in (0, 1))
    assert before < 0.4
    assert after > before + 0.3
    assert found.metrics["finetune_blend"] == 1.0
    assert found.metrics["finetune_searches"] > 700
    without = tuned(world, chosen(folder, "finetune.blends=1.0", "finetune.query_share=0", "finetune.steps=1"))
    assert not [name for name in without.metrics if "search" in name]


@pytest.mark.parametrize(("mode", "gain"), [("head", 0.02), ("last", 0.1)])
def test_every_mode_learns_from_searches(folder: Path, world: Dataset, mode: str, gain: float) -> None:
    lines = ("finetune.layers=2", "finetune.query_share=0.5", "finetune.blends=0.0,1.0", "text.whitenings=0.0")
    found = tuned(world, chosen(folder, f"finetune.mode={mode}", *lines))
    assert found.metrics["finetune_search_ndcg_1_0"] > found.metrics["finetune_search_ndcg_0_0"] + gain


def test_searches_alone_are_enough(folder: Path) -> None:
    """Everybody comes once: there is no history to learn from."""
    data = shop(600)
    once = Dataset.read(
        events=data.events.with_columns(user_id=pl.Series([f"v{number}" for number in range(600)]), query=pl.col("context"))
        .with_columns(query=pl.col("context").str.json_path_match("$.query"))
        .select("user_id", "item_id", "timestamp", "query"),
        items=data.items.select("item_id", "title"),
    )
    found = tuned(once, chosen(folder, "finetune.blends=0.0,1.0", "text.whitenings=0.0"))
    assert found.metrics["finetune_pairs"] == 0
    assert found.metrics["finetune_search_ndcg_1_0"] > found.metrics["finetune_search_ndcg_0_0"] + 0.2


def test_the_judge_of_searches_ranks_all_items_and_ties_count_against() -> None:
    vectors = np.eye(12, dtype=np.float32)
    queries = vectors[[3, 4, 5]] + np.array([[0.0], [0.0], [0.0]], dtype=np.float32)
    queries[1, 7] = 2.0
    queries[2] = 0.0
    assert search_ndcg(vectors, queries, np.array([3, 4, 5])) == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert search_ndcg(vectors, queries[:0], np.zeros(0, dtype=np.int64)) == 0.0


def test_a_fit_reads_the_searches_of_its_log(folder: Path, world: Dataset) -> None:
    """From events with a column `query` to the vectors that answer `/v1/search`."""
    lines = ["sequence.dim=16", "sequence.epochs=1", "sequence.min_steps=0", "text.whitenings=0.0", "finetune.blends=1.0"]
    brain = fit(world, chosen(folder, *lines, "finetune.query_share=0.5"), rows=False)
    assert brain.encoder is not None
    assert brain.whitening is not None
    queries = ["crimson sphere", "azure parka", "ivory crate", "ebony light", "emerald cap"]
    scores = brain.channels.text.scores(brain.whitening.apply(brain.encoder.encode(queries)))
    best = np.argsort(-scores, axis=1)[:, :3]
    ids = brain.sequences.item_ids
    meant = ["i0", "i17", "i25", "i22", "i9"]
    assert sum(item in {ids[place] for place in row} for item, row in zip(meant, best, strict=True)) >= 4


def test_searches_are_not_read_where_the_model_stays_as_it_is(folder: Path, world: Dataset) -> None:
    sequences = build(world)
    assert searches_of(world, sequences, chosen(folder, "finetune.mode=frozen")) is None
    assert searches_of(world, sequences, chosen(folder, "finetune.query_share=0")) is None
    assert isinstance(searches_of(world, sequences, chosen(folder)), Searches)
