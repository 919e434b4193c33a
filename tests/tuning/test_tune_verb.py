"""`tastemaker tune` on small real logs: from the journal to a page, a recipe and changed settings."""

from __future__ import annotations

import json
import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'tastemaker[tune]'")
pytest.importorskip("torch")

from tastemaker.cli.app import call
from tastemaker.data.dataset import Dataset
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import load_settings
from tastemaker.training.fit import fit
from tastemaker.training.sequence import Validation, ndcg, train_sequence
from tastemaker.tuning.answer import DivergedError, SequenceAnswer, gains_of
from tastemaker.tuning.choice import choose
from tastemaker.tuning.confirm import confirm
from tastemaker.tuning.objective import FoldScore, make_objective
from tastemaker.tuning.page import Found, confirmed_words
from tastemaker.tuning.race import Curve, OutrunError
from tastemaker.tuning.space import with_changes
from tastemaker.tuning.trials import COMPLETE, Trial
from tastemaker.tuning.workers import Here

SMALL = ["sequence.dim=16", "sequence.min_steps=30", "sequence.epochs=1", "train.threads=1", "train.precision=fp32"]
FLAGS = [word for line in SMALL for word in ("--set", line)]


def write_ring(path: Path, times: bool) -> Path:
    """People walk round a ring of 30 items: after one item comes the next."""
    random, rows = np.random.default_rng(0), []
    for user in range(120):
        start, length, begin = int(random.integers(30)), int(random.integers(5, 10)), int(random.integers(10**6))
        for step in range(length):
            when = 1_600_000_000 + begin + 1_000 * step if times else step
            rows.append(f"u{user},i{(start + step) % 30},{when}")
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    return path


@pytest.fixture
def ring_settings() -> Settings:
    return load_settings(None, [*SMALL, "tune.folds=2", "tune.questions=100"], {})


def test_a_small_search_ends_in_a_page_a_recipe_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "w"
    call(["init", str(space)])
    call(["import", str(space), "--events", str(write_ring(tmp_path / "events.csv", True))])
    capsys.readouterr()
    command = ["tune", str(space), "--trials", "2", "--folds", "2", *FLAGS, "--set", "tune.rule=best"]
    command += ["--set", "tune.space=sequence.learning_rate=1e-3..2e-2 log,neighbours.decay"]
    assert call([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["trial"] for one in report["trials"]] == [0, 1]
    assert report["trials"][0]["changes"] == {"sequence.learning_rate": 0.002, "neighbours.decay": 0.7}
    assert [fold["questions"] > 10 for fold in report["folds"]] == [True, True]
    assert set(report["gain over the settings as they are"]) == {"mean", "low", "high", "p"}
    assert report["chosen"] == report["best"]
    if report["chosen"]:
        seen = report["confirmed"]
        assert seen["gain"]["mean"] == pytest.approx(seen["chosen"] - seen["default"], abs=1e-5)
        assert bool(report["changes"]) == (seen["gain"]["mean"] >= 0)
    page = (space / "reports" / "tune.html").read_text()
    assert all(words in page for words in ("Which dial matters", "How the search went", "All trials", "learns from"))
    assert "<script" not in page
    assert json.loads((space / "reports" / "tune.json").read_text())["why"] == report["why"]
    before = load_settings(space / "tastemaker.toml", (), {})
    kept = len(list((space / "runs").glob("tune-*/trials/*.npy")))
    assert call([*command, "--apply"]) == 0
    text = capsys.readouterr().out
    assert len(list((space / "runs").glob("tune-*/trials/*.npy"))) == kept, "nothing was judged again"
    after = load_settings(space / "tastemaker.toml", (), {})
    if report["changes"]:
        recipe = load_settings(space / "recipes" / "tuned.toml", (), {})
        assert recipe.neighbours.decay == after.neighbours.decay == report["changes"]["neighbours.decay"]
        assert after != before
        assert "written into" in text
    else:
        assert after == before


def test_the_shown_command_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "w"
    call(["init", str(space)])
    assert call(["tune", str(space), "--set", "tune.space=sequence.dropuot"]) == 2
    assert "Did you mean sequence.dropout?" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert call(["tune", str(space)]) == 2
    assert "Import some first" in capsys.readouterr().err


def test_a_log_that_holds_only_an_order_is_judged_by_places(tmp_path: Path, ring_settings: Settings) -> None:
    data = Dataset.read(events=write_ring(tmp_path / "events.csv", False))
    assert data.time_is_order
    objective = make_objective(data, ring_settings)
    assert ["from the end" in fold.words or "last event" in fold.words for fold in objective.folds] == [True, True]
    scores = [objective.judge(ring_settings, fold) for fold in range(2)]
    assert all(len(score.gains) == 100 for score in scores)
    assert all(score.gains.mean() > 0.3 for score in scores), "after each item comes the next: the neighbours alone know it"
    again = objective.judge(ring_settings, 1)
    assert np.array_equal(again.gains, scores[1].gains), "the same settings get the same figures"


@pytest.mark.parametrize("refit", [1.0, 0.5])
def test_the_whole_judge_answers_as_a_fit_of_the_same_events_does(refit: float, tmp_path: Path, ring_settings: Settings) -> None:
    ring_settings = with_changes(ring_settings, {"sequence.refit": refit, "sequence.epochs": 2})
    data = Dataset.read(events=write_ring(tmp_path / "events.csv", True))
    data = replace(data, items=data.catalogue(), log=None)
    objective = make_objective(data, ring_settings)
    fold = objective.folds[0]
    brain = fit(data.with_events(data.events.head(int(fold.train.sum()))), ring_settings, rows=False)
    lists = [items for items, _ in brain.recommend(fold.histories(objective.sequences), 10)]
    wanted = gains_of(lists, fold.targets(objective.sequences))
    score = objective.judge(ring_settings, 0)
    assert np.array_equal(score.gains, wanted)
    assert {"sequence", "fused", "best_epoch"} <= set(score.facts)
    assert score.parameters > 1_000
    assert score.latency > 0
    cheaper = objective.judge(with_changes(ring_settings, {"tune.judge": "fused"}), 0)
    assert float(cheaper.gains.mean()) == score.facts["fused"]


def test_the_gains_are_those_of_the_training_room(tmp_path: Path, ring_settings: Settings) -> None:
    objective = make_objective(Dataset.read(events=write_ring(tmp_path / "events.csv", True)), ring_settings)
    fold = objective.folds[0]
    model, _ = train_sequence(objective.sequences.keep(fold.train), objective.signals, ring_settings)
    histories, targets = fold.histories(objective.sequences), fold.targets(objective.sequences)
    gains = SequenceAnswer(model).gains(histories, targets)
    assert gains.mean() == pytest.approx(ndcg(model, Validation(histories, targets)), abs=2e-3)
    assert 0.0 < gains.mean() < 1.0


def test_a_model_that_holds_no_numbers_is_no_answer(tmp_path: Path, ring_settings: Settings) -> None:
    objective = make_objective(Dataset.read(events=write_ring(tmp_path / "events.csv", True)), ring_settings)
    model, _ = train_sequence(objective.sequences, objective.signals, ring_settings)
    answer = SequenceAnswer(model)
    assert answer.checked() is answer
    model.bias.data[3] = float("nan")
    with pytest.raises(DivergedError, match="numbers that are none"):
        SequenceAnswer(model).checked()


def test_gains_are_those_of_the_place() -> None:
    lists = [np.array([3, 1, 2], dtype=np.int32)] * 4
    assert gains_of(lists, np.array([3, 1, 2, 9], dtype=np.int32)).tolist() == pytest.approx([1.0, 0.63093, 0.5, 0.0])


def test_a_choice_that_does_worse_on_events_put_aside_is_not_taken(tmp_path: Path, ring_settings: Settings) -> None:
    """The search saw folds on which the bad trial won; the events put aside say otherwise."""
    data = Dataset.read(events=write_ring(tmp_path / "events.csv", True))
    objective = make_objective(data, ring_settings, aside=True)
    whole = make_objective(data, ring_settings)
    assert objective.last is not None
    assert np.array_equal(objective.last.asked, whole.folds[-1].asked), "the last cut is the one put aside"
    assert not set(objective.last.asked) & set(np.concatenate([fold.asked for fold in objective.folds]).tolist())
    worse = {"sequence.learning_rate": 1e-6, "neighbours.decay": 0.7}
    good, bad = np.full(20, 0.1, dtype=np.float32), np.full(20, 0.9, dtype=np.float32)
    facts = [{"parameters": 1.0, "latency": 1.0, "seconds": 1.0}] * 2
    default = Trial(0, {"sequence.learning_rate": 0.002, "neighbours.decay": 0.7}, COMPLETE, [good, good], facts)
    lucky = Trial(1, worse, COMPLETE, [bad, bad], facts)
    folds = [replace(fold, users=np.arange(20)) for fold in objective.folds]
    choice = choose([default, lucky], folds, ring_settings.tune)
    assert choice.chosen.number == 1
    (tmp_path / "trials").mkdir()
    judged = by_sequence(ring_settings)
    found = confirm(tmp_path, Here(objective), judged, choice, objective.last, 2, 200)
    assert found is not None
    assert found.chosen < found.default
    assert not found.holds
    result = Found(judged, [], folds, [default, lucky], choice, {}, [], "x", found)
    assert result.changes() == {}
    assert "did worse" in confirmed_words(result)
    assert confirm(tmp_path, Nobody(), judged, choice, objective.last, 2, 200) == found, "what was judged is kept"


def by_sequence(settings: Settings) -> Settings:
    """Judged by the sequence model alone, for which a learning rate of next to nothing is the end."""
    return with_changes(settings, {"tune.judge": "sequence"})


class Nobody:
    """Workers that must not be asked."""

    size = 1

    def submit(self, settings: Settings, fold: int) -> Future[FoldScore]:
        raise AssertionError("judged again")


def test_a_training_far_behind_its_rivals_ends_and_others_are_as_they_were(tmp_path: Path, ring_settings: Settings) -> None:
    data = Dataset.read(events=write_ring(tmp_path / "events.csv", True))
    objective = make_objective(data, ring_settings)
    longer = with_changes(ring_settings, {"sequence.epochs": 8, "sequence.patience": 8, "tune.judge": "sequence"})
    plain = objective.judge(longer, 0)
    assert plain.curve is not None
    assert len(plain.curve.scores) <= plain.curve.planned
    assert max(plain.curve.scores) > 0
    beaten = objective.judge(longer, 0, None, [Curve([0.0], 1)] * 6)
    assert np.array_equal(beaten.gains, plain.gains)
    with pytest.raises(OutrunError) as ended:
        objective.judge(longer, 0, None, [Curve([1.0], 1), Curve([1.0] * 4, 4)])
    ours = ended.value.curve
    assert 2 <= len(ours.scores) < ours.planned == plain.curve.planned
    assert ours.scores == plain.curve.scores[: len(ours.scores)]
