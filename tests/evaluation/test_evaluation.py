"""Our figures are the independent scorer's figures; intervals and slices say what they claim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.evaluation.ranking import beyond_accuracy, per_user
from tastemaker.evaluation.recommenders import OURS
from tastemaker.evaluation.report import Judged, best_baseline, make_report, write_report
from tastemaker.evaluation.significance import interval, paired
from tastemaker.evaluation.slices import slices

SCORER = Path(__file__).resolve().parents[3] / "shared" / "tools" / "score.py"


def world(seed: int, users: int = 40, items: int = 60) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Random lists (some short, some with repeats), targets, catalogue and training events."""
    rng = np.random.default_rng(seed)
    names = [f"i{number}" for number in range(items)]
    lists, targets, train = [], [], []
    for user in range(users):
        found = rng.integers(0, items, rng.integers(0, 30))
        lists += [(f"u{user}", names[item], rank) for rank, item in enumerate(found, 1)]
        targets += [(f"u{user}", names[item]) for item in set(rng.integers(0, items, rng.integers(1, 4)).tolist())]
        train.append((f"u{user}", names[rng.integers(0, items // 2)]))
    text = {"user_id": pl.String, "item_id": pl.String}
    table = pl.DataFrame(lists, schema={**text, "rank": pl.Int64}, orient="row")
    return (
        table,
        pl.DataFrame(targets, schema=text, orient="row"),
        pl.DataFrame({"item_id": names}),
        pl.DataFrame(train, schema=text, orient="row"),
    )


@pytest.mark.skipif(not SCORER.is_file(), reason="the independent scorer is absent")
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_independent_scorer(tmp_path: Path, seed: int) -> None:
    lists, targets, catalogue, train = world(seed)
    files = [tmp_path / f"{name}.parquet" for name in ("recs", "test", "items", "train")]
    for frame, file in zip((lists, targets, catalogue, train), files, strict=True):
        frame.write_parquet(file)
    command = [sys.executable, str(SCORER), *map(str, files[:3]), "--train", str(files[3])]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ours = per_user(lists, targets, (10, 20)).means()
    popularity = train["item_id"].value_counts(name="count")
    assert ours["NDCG@10"] == pytest.approx(said["NDCG@10"], abs=1e-9)
    assert ours["HitRate@10"] == pytest.approx(said["HR@10"], abs=1e-9)
    assert ours["Recall@20"] == pytest.approx(said["Recall@20"], abs=1e-9)
    tested = lists.filter(pl.col("user_id").is_in(targets["user_id"].implode()))
    assert beyond_accuracy(tested, popularity, catalogue.height)["Coverage@10"] == pytest.approx(said["coverage@10"], abs=1e-9)


def test_figures_by_hand() -> None:
    lists = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"], "rank": [1, 2, 1]})
    targets = pl.DataFrame({"user_id": ["a", "b", "c"], "item_id": ["y", "x", "x"]})
    found = per_user(lists, targets, (1, 10))
    assert found.users == ["a", "b", "c"]
    assert found.values["HitRate@1"].tolist() == [0, 1, 0]
    assert found.values["NDCG@10"].tolist() == pytest.approx([1 / np.log2(3), 1, 0])
    assert found.values["MRR@10"].tolist() == [0.5, 1, 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_law_bounds_and_order(seed: int) -> None:
    lists, targets, catalogue, train = world(seed, users=12, items=20)
    found = per_user(lists, targets, (5, 10)).values
    assert all(((value >= 0) & (value <= 1 + 1e-12)).all() for value in found.values())
    assert (found["HitRate@10"] >= found["HitRate@5"]).all()
    assert (found["Recall@10"] >= found["Recall@5"]).all()
    beyond = beyond_accuracy(lists, train["item_id"].value_counts(name="count"), catalogue.height)
    assert 0 <= beyond["Coverage@10"] <= 1
    assert -1e-9 <= beyond["Gini@10"] <= 1


def test_gini_and_coverage_at_their_ends() -> None:
    popularity = pl.DataFrame({"item_id": ["x"], "count": [1]})
    even = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "rank": [1, 1]})
    one = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"], "rank": [1, 1]})
    assert beyond_accuracy(even, popularity, 2)["Gini@10"] == pytest.approx(0)
    assert beyond_accuracy(one, popularity, 1000)["Gini@10"] == pytest.approx(0.999, abs=1e-3)
    assert beyond_accuracy(one, popularity, 4)["Coverage@10"] == 0.25


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = interval(rng.normal(1.0, 1.0, 80), resamples=200, seed=seed)
        covered += found.low <= 1.0 <= found.high
    assert 178 <= covered <= 199


def test_one_users_questions_widen_the_interval() -> None:
    users = np.repeat(np.arange(20), 50)
    values = np.random.default_rng(0).normal(0, 1, 20)[users]
    plain, grouped = interval(values), interval(values, groups=users)
    assert grouped.high - grouped.low > 4 * (plain.high - plain.low)
    assert grouped.mean == plain.mean


def test_paired_gain() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.random(300)
    gap, p = paired(theirs + 0.05, theirs)
    assert (gap.low, gap.mean, gap.high) == pytest.approx((0.05, 0.05, 0.05))
    assert p < 0.01
    _, chance = paired(theirs, rng.permutation(theirs))
    assert chance > 0.01
    with pytest.raises(ValueError, match="same questions"):
        paired(theirs, theirs[:3])


def test_slices_part_the_targets() -> None:
    targets = pl.DataFrame({"user_id": ["a", "b", "c"], "item_id": ["hit", "rare", "new"]})
    popularity = pl.DataFrame({"item_id": ["hit", "rare"], "count": [90, 10]})
    history = pl.DataFrame({"user_id": ["a", "b"], "count": [9, 2]})
    found = slices(targets, popularity, history)
    assert {name: table["item_id"].to_list() for name, table in found.items()} == {
        "head items": ["hit"], "tail items": ["rare"], "cold items": ["new"],
        "short histories (≤ 5 events)": ["rare", "new"], "long histories": ["hit"],
    }  # fmt: skip


def test_report_for_people(tmp_path: Path) -> None:
    lists, targets, catalogue, train = world(3)
    good = targets.with_columns(pl.int_range(1, pl.len() + 1).over("user_id").alias("rank"))
    counts, lengths = train["item_id"].value_counts(name="count"), train["user_id"].value_counts(name="count")
    report = make_report(
        Judged({OURS: good, "chance": lists}, targets, counts, lengths, catalogue.height, "a test split"), resamples=200
    )
    page = write_report(report, tmp_path).read_text()
    assert best_baseline(report) == "chance"
    assert report["recommenders"][OURS]["metrics"]["NDCG@10"]["mean"] == pytest.approx(1)
    assert report["gain of ours in NDCG@10"]["chance"]["low"] > 0
    assert "chance is ruled out" in page
    assert "<svg" in page
    assert "<script" not in page
    assert json.loads((tmp_path / "report.json").read_text())["protocol"] == "a test split"
    worse = make_report(Judged({OURS: lists, "oracle": good}, targets, counts, lengths, catalogue.height, "x"), resamples=200)
    assert "Worse than the best simple method" in write_report(worse, tmp_path).read_text()
