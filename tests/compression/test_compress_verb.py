"""`tastemaker compress` on a small workspace: smaller, judged, resumable; a harmful step is refused and the parent stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import toy_bundle
from tastemaker.bundle.read import open_bundle
from tastemaker.bundle.registry import Registry
from tastemaker.cli import compress as verb
from tastemaker.cli.app import call
from tastemaker.cli.workspace import open_workspace
from tastemaker.compression import steps
from tastemaker.compression.step import DEAD, NotApplicable, Step, Tools, carry
from tastemaker.index.coded import Bytes, load

USERS = 120
QUICK = ("--set", "compress.effort=quick", "--set", "evaluation.bootstrap=200")
CHEAP = "neighbours,int8-vectors,int8-word-vectors"


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A live bundle of a toy world, and one later event of each user, of the kind that the user likes."""
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    toy_bundle.write_later_workspace(tmp_path / "space", USERS)
    return tmp_path / "space"


def ruin(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
    """Random pruning: nine of ten links and all directions of the item vectors are lost."""
    names = [f"channels/{name}.npy" for name in ("items", "text", "neighbours.data", "together.data")]
    carry(bundle, place, names)
    random = np.random.default_rng(0)
    for name in names:
        old = np.load(bundle / name)
        np.save(place / name, (random.normal(size=old.shape) * (random.random(old.shape) < 0.1)).astype(old.dtype))
    return {}


def idle(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
    raise NotApplicable("there is nothing to do here")


def compressed(space: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert call(["compress", str(space), "--json", "--budget", "30%", *QUICK, *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_smaller_bundle_with_lineage_and_a_report(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compressed(space, capsys, "--steps", CHEAP)
    registry = Registry(space / "bundles")
    parent, made = open_bundle(registry.live()), open_bundle(registry.folder(str(report["version"])))
    assert made.manifest.parents == [parent.version]
    assert registry.stages().candidate == made.version
    assert isinstance(load(made.path / "channels", "items"), Bytes)
    assert sum(entry.bytes for entry in made.manifest.files.values()) < sum(entry.bytes for entry in parent.manifest.files.values())
    states = {one["step"]: one["state"] for one in report["steps"]}  # type: ignore[attr-defined, index]
    assert states["int8-vectors"] == "accepted"
    page = (space / "reports" / "compression.html").read_text()
    assert "int8-vectors" in page
    assert "<circle" in page
    assert json.loads((space / "reports" / "compression.json").read_text())["version"] == made.version
    served = verb.Served(made.path)
    assert len(served.lists([np.arange(3, dtype=np.int32)], 10)[0]) == 10
    peak, rest = verb.memory_of(made.path)
    assert peak >= rest > 0
    assert call(["release", str(space), made.version]) == 0


def test_a_harmful_step_is_refused_and_leaves_no_trace(
    space: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [
        [Step("random-pruning", DEAD, "nine of ten numbers are lost", ruin)],
        [Step("idle", DEAD, "nothing", idle)],
        [steps.BYTES],
    ]
    monkeypatch.setattr(steps, "ladder", lambda settings: groups)
    before = {path: path.read_bytes() for path in (space / "bundles").rglob("*.npy")}
    report = compressed(space, capsys)
    found = {one["step"]: one for one in report["steps"]}  # type: ignore[attr-defined, index]
    assert found["random-pruning"]["state"] == "refused"
    assert "is allowed" in found["random-pruning"]["why"]
    assert found["random-pruning"]["verdict"]["change"]["high"] < 0
    assert found["idle"]["state"] == "skipped"
    assert found["idle"]["why"] == "there is nothing to do here"
    assert found["int8-vectors"]["state"] == "accepted"
    assert {path: path.read_bytes() for path in before} == before, "the parent was written to"
    made = Registry(space / "bundles").folder(str(report["version"]))
    old = Registry(space / "bundles").live()
    assert (made / "channels" / "together.data.npy").read_bytes() == (old / "channels" / "together.data.npy").read_bytes()


def test_a_ladder_that_was_cut_short_goes_on(
    space: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, judging = list[str](), list[bool]()

    def counted(step: Step, fails: bool = False) -> Step:
        def apply(bundle: Path, place: Path, tools: Tools) -> dict[str, float | int | str]:
            calls.append(step.name)
            judging.append(tools.judging)
            if fails:
                raise KeyboardInterrupt
            return step.apply(bundle, place, tools)

        return Step(step.name, step.part, step.words, apply)

    groups = [[counted(steps.BYTES)], [counted(steps.NEIGHBOURS, fails=True)]]
    monkeypatch.setattr(steps, "ladder", lambda settings: groups)
    assert call(["compress", str(space), "--budget", "30%", *QUICK]) == 130
    assert not list((space / "bundles").glob(".writing*"))
    groups[1] = [counted(steps.NEIGHBOURS)]
    report = compressed(space, capsys)
    tried = calls[: calls.index("neighbours", 2) + 1]
    assert tried == ["int8-vectors", "neighbours", "neighbours"], "what was tried before is not tried again"
    kept = len([one for one in report["steps"] if one["state"] == "accepted"])  # type: ignore[attr-defined, index]
    assert judging == [True] * 3 + [False] * kept, "the bundle that is written knows all texts"
    assert len(report["steps"]) == 2  # type: ignore[arg-type]
    live = Registry(space / "bundles").live().name
    groups.pop(0)
    (alone,) = compressed(space, capsys)["steps"]  # type: ignore[misc, attr-defined]
    assert alone["parent"] == live, "behind another step it stood on that one's bundle, so it is tried anew"


def test_without_an_accepted_step_there_is_no_bundle(
    space: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ladder", lambda settings: [[Step("random-pruning", DEAD, "lost", ruin)]])
    report = compressed(space, capsys)
    assert report["version"] is None
    assert len(Registry(space / "bundles").versions()) == 1


def test_bad_usage_is_told(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compress", str(space), "--budget", "lots"]) == 2
    assert call(["compress", str(space), "--steps", "magic"]) == 2
    assert "there are static" in capsys.readouterr().err.replace("\n", " ")
    assert call(["compress", str(space), "--set", "compress.effort=heroic"]) == 2
    assert call(["compress", str(space), "--bundle", "none"]) == 1
    assert open_workspace(space).settings.compress.budget == 0.01
