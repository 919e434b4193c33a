"""The command line: verbs that users guess, errors that help, exit codes that scripts can trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tastemaker.bundle.gate import gate
from tastemaker.cli.app import VERBS, call
from tastemaker.schema.manifest import DataFingerprint, Manifest


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([verb, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tastemaker 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "{dir}"], "is no workspace"),
        (["serve", "{dir}"], "is no workspace"),
        (["init", "{dir}/w", "--recipe", "bakery"], "There is no recipe 'bakery'"),
        (["frobnicate"], "No such command"),
        (["init"], "Missing argument"),
    ],
)
def test_bad_usage_is_2_and_explained(arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([word.format(dir=tmp_path) for word in arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_workspace_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", str(tmp_path / "w"), "--recipe", "news", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "news"
    assert call(["init", str(tmp_path / "w")]) == 2
    assert "left as it is" in capsys.readouterr().err


def test_verbs_on_an_empty_workspace_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = str(tmp_path / "w")
    call(["init", space])
    capsys.readouterr()
    for arguments, words in (
        (["train", space], "Import some first"),
        (["import", space], "Nothing to import"),
        (["import", space, "--events", "none.csv"], "no such file"),
        (["serve", space], "no live bundle"),
        (["recommend", space], "either --users FILE or --all"),
        (["recommend", space, "--all"], "no live bundle"),
        (["release", space], "no candidate"),
        (["rollback", space], "no previous bundle"),
        (["evaluate", space], "no live bundle"),
        (["train", space, "--set", "sequence.dims=3"], "Did you mean sequence.dim?"),
    ):
        assert call(arguments) in (1, 2), arguments
        assert words in " ".join(capsys.readouterr().err.split()), arguments


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["cores"] >= 1
    assert found["packages"]["onnxruntime"]["version"]


def manifest(ndcg: float, items: int = 100) -> Manifest:
    return Manifest(version="v", created="now", data=DataFingerprint(items=items), metrics={"validation_ndcg_fusion": ndcg})


@pytest.mark.parametrize(
    ("new", "live", "words"),
    [
        (manifest(0.10), None, []), (manifest(0.10), manifest(0.10), []), (manifest(0.12), manifest(0.10), []), (manifest(0.097), manifest(0.10), []),
        (manifest(0.09), manifest(0.10), ["validation"]), (manifest(float("nan")), None, ["nan"]), (manifest(0.1, 40), manifest(0.1), ["knows 40"]),
    ],
)  # fmt: skip
def test_gate(new: Manifest, live: Manifest | None, words: list[str]) -> None:
    found = gate(new, live)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))
