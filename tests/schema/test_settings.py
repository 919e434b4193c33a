"""Settings: typed, with three sources, and errors that help."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tastemaker.schema.columns import EVENT_ALIASES, ITEM_ALIASES, alias_key
from tastemaker.schema.efforts import EFFORTS
from tastemaker.schema.errors import SettingsError
from tastemaker.schema.labels import parse_label
from tastemaker.schema.settings import Settings
from tastemaker.schema.settings_file import describe, from_table, known_keys, load_settings, to_table


def test_file_then_environment_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "tastemaker.toml"
    path.write_text("[sequence]\ndim = 32\nheads = 4\n[train]\nseed = 5\n")
    found = load_settings(
        path, ["sequence.dim=16"], {"TASTEMAKER_SEQUENCE_DIM": "8", "TASTEMAKER_TRAIN_SEED": "9", "TASTEMAKER_HOME": "/x"}
    )
    assert (found.sequence.dim, found.sequence.heads, found.train.seed) == (16, 4, 9)


def test_lists_on_the_command_line() -> None:
    assert load_settings(None, ["data.positive=purchase, rating>=4"], {}).data.positive == ["purchase", "rating>=4"]
    assert load_settings(None, ["evaluation.k=[5, 10]"], {}).evaluation.k == (5, 10)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sequence.dims=3", "Did you mean sequence.dim?"),
        ("sequnce.dim=3", "Did you mean sequence"),
        ("sequence.dim=many", "sequence.dim|wrong value"),
        ("sequence.dim=0", "wrong value"),
        ("sequence.dropout=1.5", "wrong value"),
        ("dim=3", "names no key"),
        ("sequence.dim", "expected SECTION.KEY=VALUE"),
    ],
)
def test_mistakes_are_explained(override: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(None, [override], {})


def test_described_settings_are_the_defaults(tmp_path: Path) -> None:
    text = describe({"sequence.dim": "64"})
    assert tomllib.loads(text) == {section: ({"dim": 64} if section == "sequence" else {}) for section in to_table(Settings())}
    active = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and line.split(" = ")[0][2:].isidentifier() else line
        for line in text.splitlines()
    )
    path = tmp_path / "all.toml"
    path.write_text(active)
    assert to_table(load_settings(path, (), {}))["sequence"] | {"dim": 128} == to_table(Settings())["sequence"]
    assert all(f"{name.split('.')[1]} = " in text for name in known_keys())


def test_round_trip() -> None:
    assert from_table(to_table(Settings())) == Settings()


def test_broken_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[sequence\n")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(tmp_path / "x.toml", (), {})
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "none.toml", (), {})


@pytest.mark.parametrize("name", ["userId", "USER_ID", "visitorid", "user_id:token", "User-Id"])
def test_aliases_of_the_user(name: str) -> None:
    assert EVENT_ALIASES[alias_key(name)] == "user_id"


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("movieId", "item_id"),
        ("ITEM_ID", "item_id"),
        ("asin", "item_id"),
        ("EVENT_TYPE", "event_type"),
        ("datetime", "timestamp"),
        ("rating", "value"),
        ("ts", "timestamp"),
    ],
)
def test_aliases_of_events(name: str, canonical: str) -> None:
    assert EVENT_ALIASES[alias_key(name)] == canonical


def test_aliases_of_items() -> None:
    assert ITEM_ALIASES[alias_key("movie_title:token_seq")] == "title"


@pytest.mark.parametrize(
    ("label", "kind", "value", "holds"),
    [
        ("purchase", "purchase", None, True), ("purchase", "view", 1.0, False), ("rating>=4", "rating", 4.0, True),
        ("rating>=4", "rating", 3.9, False), ("rating>=4", "rating", None, False), ("watch_ratio > 0.5", "watch_ratio", 0.6, True),
        ("x!=0", "x", 0.0, False),
    ],
)  # fmt: skip
def test_labels(label: str, kind: str, value: float | None, holds: bool) -> None:
    assert parse_label(label).holds(kind, value) is holds


@pytest.mark.parametrize("label", ["", ">=4", "rating>=", "rating>=four", "a b"])
def test_labels_that_are_none(label: str) -> None:
    with pytest.raises(SettingsError, match="is no label"):
        parse_label(label)


def test_effort_sets_the_dials_that_the_user_left_alone(tmp_path: Path) -> None:
    quick = load_settings(None, ["train.effort=quick"], {})
    assert (quick.sequence.epochs, quick.text.max_length, quick.sequence.dim) == (4, 64, Settings().sequence.dim)
    path = tmp_path / "tastemaker.toml"
    path.write_text('[train]\neffort = "thorough"\n[sequence]\nepochs = 5\n')
    own = load_settings(path, [], {})
    assert own.sequence.epochs == 5
    assert own.sequence.min_steps > Settings().sequence.min_steps
    assert from_table(to_table(own)) == own
    for name, sections in EFFORTS.items():
        for section, keys in sections.items():
            for key, value in keys.items():
                assert getattr(getattr(load_settings(None, [f"train.effort={name}"], {}), section), key) == value
    with pytest.raises(SettingsError, match="expected quick, normal, thorough"):
        load_settings(None, ["train.effort=heroic"], {})
