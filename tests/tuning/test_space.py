"""Dials, their ranges, and the way of what was found back into the settings."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.schema.errors import SettingsError
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import describe, load_settings
from tastemaker.tuning.recipe import apply, recipe, write_recipe
from tastemaker.tuning.space import DIALS, OTHERS, dial, searchable, space_of, value_of, with_changes


def test_every_known_range_is_one_and_most_hold_the_default() -> None:
    for key, text in {**DIALS, **OTHERS}.items():
        found = dial(key, text)
        assert found.contains(value_of(Settings(), key)), key
        assert 0.0 <= found.place(value_of(Settings(), key)) <= 1.0
        assert dial(key, found.words()) == found
    assert {one.key for one in space_of(Settings())} == set(DIALS)
    alone = {one.key for one in space_of(load_settings(None, ["tune.judge=sequence"], {}))}
    assert alone == {key for key in DIALS if key.startswith(("sequence.", "sampling."))}


def test_ranges_of_ones_own() -> None:
    lines = "tune.space=sequence.dim=64|128,sequence.dropout=0.1..0.6,sequence.learning_rate=5e-4..5e-3 log,neighbours.k=50..400 step 50,fusion.depth"
    dim, dropout, rate, k, depth = space_of(load_settings(None, [lines], {}))
    assert dim.choices == (64, 128)
    assert (dropout.low, dropout.high, dropout.whole, dropout.log) == (0.1, 0.6, False, False)
    assert (rate.low, rate.log) == (5e-4, True)
    assert (k.step, k.whole, k.contains(150), k.contains(160), k.contains(450)) == (50, True, True, False, False)
    assert depth == dial("fusion.depth", DIALS["fusion.depth"])
    assert dim.contains(256) is False


def test_a_file_names_ranges(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('[tune]\nspace = {"sequence.dropout" = "0.1..0.6", "sequence.dim" = "64,128,256"}\n')
    assert [one.words() for one in space_of(load_settings(path, (), {}))] == ["0.1..0.6", "64|128|256"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("sequence.dropuot=0.1..0.6", r"Did you mean sequence\.dropout\?"),
        ("serving.port=1..2", "is no dial"),
        ("sequence.dropout=0.6..0.1", "LOW below HIGH"),
        ("sequence.dropout=0.1..1.5", "wrong value"),
        ("sequence.dim=0|64", "wrong value"),
        ("sequence.dim=64.5|128", "whole numbers"),
        ("sequence.learning_rate=0..1 log", "above 0 for log"),
        ("sequence.learning_rate=0..1 twice", "expected log, step NUMBER"),
        ("sampling.negatives=full..hard", "is no number"),
        ("sampling.count", "has no known range"),
        ("sequence.dim=64|64", "different values"),
    ],
)
def test_wrong_dials_are_explained(space: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        space_of(load_settings(None, [f"tune.space={space}"], {}))


def test_a_dial_that_changes_nothing_that_is_judged_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"Set tune\.judge=whole"):
        space_of(load_settings(None, ["tune.judge=sequence", "tune.space=neighbours.k"], {}))
    with pytest.raises(SettingsError, match="expected whole, fused or sequence"):
        space_of(load_settings(None, ["tune.judge=clicks"], {}))


VALUES = {key: value for key, value in searchable().items() if isinstance(value, float) and 0 < value < 1}


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(VALUES)), st.floats(0.001, 0.999), min_size=1))
def test_law_a_recipe_comes_back_through_the_settings(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, float]) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    write_recipe(path, changes, "why\nand how")
    assert load_settings(path, (), {}) == with_changes(Settings(), changes)
    path.write_text(describe({"sequence.dropout": "0.25", "sequence.dim": "64"}))
    before = load_settings(path, (), {})
    apply(path, changes)
    assert load_settings(path, (), {}) == with_changes(before, changes)


def test_a_recipe_is_words_and_sections() -> None:
    text = recipe({"sequence.dim": 64, "neighbours.decay": 0.5, "sampling.negatives": "hard"}, "Found.")
    assert text.startswith("# Found.\n")
    assert tomllib.loads(text) == {"sequence": {"dim": 64}, "neighbours": {"decay": 0.5}, "sampling": {"negatives": "hard"}}


def test_applying_keeps_comments_and_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "tastemaker.toml"
    path.write_text("# mine\n[sequence]\n# dim = 128\nheads = 4 # four\n[data]\npositive = ['a']\n")
    apply(path, {"sequence.dim": 64, "sequence.dropout": 0.3, "fusion.depth": 70})
    assert path.read_text() == (
        "# mine\n[sequence]\ndropout = 0.3\ndim = 64\nheads = 4 # four\n[data]\npositive = ['a']\n\n[fusion]\ndepth = 70\n"
    )
    crooked = "sequence.dim = 32\n"
    path.write_text(crooked)
    with pytest.raises(SettingsError, match="by hand"):
        apply(path, {"sequence.dim": 64})
    assert path.read_text() == crooked
    assert not list(tmp_path.glob("*.partial"))
