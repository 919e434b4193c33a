"""A release in stages, by a real service with two workers, under load: good bundles go live by themselves, bad ones are ended, nobody is let down."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from dashboards import names, queries
from live_service import Service, serving
from tastemaker.bundle.record import Release, read_record
from tastemaker.bundle.registry import Registry
from tastemaker.cli.app import call
from tastemaker.journal.served import read_served
from toy_bundle import candidate
from trial_world import asked, lacks, loses_clicks, raises, slow, stage_of, until, write_world


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial") / "space"
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def service(space: Path):  # type: ignore[no-untyped-def]
    with serving(space, "--workers", "2", "--set", "serving.record=all") as found:
        yield found


def ended(space: Path, version: str, seconds: float = 40.0) -> Release:
    """The last line of the record when the trial is over."""
    until(lambda: stage_of(space) == "none", seconds, lambda: (space / "bundles" / "trial.json").read_text())
    until(lambda: read_record(space / "bundles")[-1].action in ("release", "aborted"), 5)  # it is written a moment later
    return read_record(space / "bundles")[-1]


def test_a_good_bundle_goes_through_shadow_and_canary_and_live_by_itself(space: Path, service: Service) -> None:
    first = Registry(space / "bundles").stages().live
    version = candidate(space)
    with asked(service) as crowd:
        words = ["--shadow", "60", "--canary", "20%,50%", "--why", "a better day", "--who", "ada", "--json"]
        assert call(["release", str(space), version, *words]) == 0
        until(lambda: stage_of(space) == "canary 0.5", 30, lambda: (space / "bundles" / "trial.json").read_text())
        told = service.ask("GET", "/v1/bundles")["trial"]
        assert (told["version"], told["stage"], told["share"]) == (version, "canary", 0.5)
        assert ended(space, version).action == "release"
        seen: list[str] = []
        until(lambda: seen.append(crowd.answers[-1][1]) or seen[-20:] == [version] * 20, 10)
    stages = Registry(space / "bundles").stages()
    assert (stages.live, stages.previous, stages.shadow, stages.canary) == (version, first, None, None)
    lines = [line for line in read_record(space / "bundles") if line.version == version]
    assert [(line.action, line.share) for line in lines] == [("shadow", 0), ("canary", 0.2), ("canary", 0.5), ("release", 1)]
    assert lines[0].who == "ada"
    assert all("a better day" in line.why and line.before == first and line.time for line in lines)
    assert all(line.findings for line in lines)
    of_user = defaultdict(set)
    for user, model, variant, _ in crowd.answers:
        of_user[user].add((model, variant))
        assert (variant == "canary") == (model == version) or (variant == "live" and model == version), (
            "the variant says who answered"
        )
    for pairs in of_user.values():  # who was in the canary stayed in it: none was in both groups of one step
        assert len({variant for _, variant in pairs} & {"canary", "control"}) <= 2
    kept = read_served(space / "journal" / "served")
    assert {"live", "canary", "control"} == set(kept["variant"])
    known = {request for _, _, _, request in crowd.answers}
    assert {name for name in kept["request_id"] if name not in known} == set(), "the shadow left a trace"
    figures = service.raw("GET", "/metrics")[2].decode()
    for variant in ("shadow", "canary", "control"):
        assert f'tastemaker_variant_lists_total{{outcome="ok",variant="{variant}"}}' in figures
    assert 'tastemaker_rollouts_total{outcome="live"} 1.0' in figures
    assert 'tastemaker_rollout_stage_info{stage="canary"} 0.0' in figures, "it is over"
    for expression, where in queries("tastemaker-releases").items():
        assert all(f"\n{name}" in figures for name in names(expression)), where


@pytest.mark.parametrize(
    ("spoil", "words", "stages"),
    [
        (loses_clicks, "taken lists change by -", ["--shadow", "0", "--canary", "40%"]),
        (slow, "99 of 100 lists took or lists lacked", ["--shadow", "0", "--canary", "20%"]),
        pytest.param(
            slow, "99 of 100 lists took or lists lacked", ["--shadow", "100000", "--canary", "20%"], marks=pytest.mark.long
        ),
        pytest.param(lacks, "lists lacked something", ["--shadow", "0", "--canary", "20%"], marks=pytest.mark.long),
        pytest.param(raises, "lists failed", ["--shadow", "0", "--canary", "20%"], marks=pytest.mark.long),
        pytest.param(raises, "lists failed", ["--shadow", "100000", "--canary", "20%"], marks=pytest.mark.long),
    ],
    ids=["loses clicks", "slow", "slow in the shadow", "lacks its user tower", "raises", "raises in the shadow"],
)
def test_a_bad_bundle_that_passed_the_gates_is_ended(space: Path, service: Service, spoil, words: str, stages: list[str]) -> None:  # type: ignore[no-untyped-def]
    live = Registry(space / "bundles").stages().live
    version = candidate(space, spoil)
    with asked(service) as crowd:
        assert call(["release", str(space), version, *stages, "--set", "release.step_lists=100000", "--json"]) == 0
        line = ended(space, version)
        assert line.action == "aborted"
        assert any(word in one for one in line.against for word in words.split(" or ")), (
            line.against
        )  # too late a tower is left out
        seen: list[str] = []
        until(lambda: seen.append(crowd.answers[-1][1]) or seen[-20:] == [live] * 20, 10)
    assert Registry(space / "bundles").stages().live == live


@pytest.mark.long
def test_a_restart_and_a_rollback_in_the_middle_of_a_canary(tmp_path: Path) -> None:
    first = write_world(tmp_path / "space")
    space = tmp_path / "space"
    version = candidate(space)
    users = [f"v{number}" for number in range(40)]

    def groups(service: Service) -> dict[str, str]:
        found: dict[str, str] = {}
        for user in users * 2:
            told = service.ask("POST", "/v1/recommend", {"user_id": user, "k": 3})
            assert told["model_version"] == (version if told.get("variant") == "canary" else first)
            assert found.setdefault(user, told.get("variant", "live")) == told.get("variant", "live")
        return found

    with serving(space, "--workers", "2") as service:
        assert call(["release", str(space), version, "--canary", "30%,60%", "--set", "release.step_lists=1000000"]) == 0
        until(lambda: settled(service, users), 30)
        before = groups(service)
    with serving(space, "--workers", "2") as service:  # from its first answer on
        assert groups(service) == before
        assert call(["release", str(space), version, "--canary", "30%"]) == 2, "one at a time"
        with asked(service, 1):
            assert call(["rollback", str(space), "--why", "a feeling"]) == 0
            seconds = until(lambda: set(variants(service, users)) == {"live"}, 60)
    assert seconds < 60
    assert Registry(space / "bundles").stages().live == first
    assert [line.action for line in read_record(space / "bundles")] == ["canary", "rollback"]


def variants(service: Service, users: list[str]) -> list[str]:
    return [service.ask("POST", "/v1/recommend", {"user_id": user, "k": 3}).get("variant", "live") for user in users]


def settled(service: Service, users: list[str]) -> bool:
    """Whether both workers are at the canary: each connection may reach either."""
    looks = [variants(service, users) for _ in range(3)]
    return set(looks[0]) == {"live", "canary", "control"} and looks[0] == looks[1] == looks[2]
