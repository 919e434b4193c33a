"""Rules: what is wrong fires and nothing else does, in Prometheus and in the service's own evaluation alike."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from alert_cases import CASES, Case, value_at

from tastemaker.monitoring.alerts import Alerts
from tastemaker.monitoring.conditions import History, duration
from tastemaker.monitoring.metrics import Metrics
from tastemaker.monitoring.rules import prometheus, rules
from tastemaker.schema.settings import AlertSettings

ROOT = Path(__file__).resolve().parents[2]
RULE_FILE = ROOT / "deploy" / "prometheus" / "tastemaker.rules.yml"
PROMTOOL = shutil.which("promtool")
RULES = rules(AlertSettings())


class Lines(Metrics):
    """Figures as a case has them."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.step = case, 0

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {(line[0], tuple(sorted(line[1].items()))): value_at(line, self.step) for line in self.case.lines}


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.alert}-{'fires' if case.fires else 'quiet'}-{place}" for place, case in enumerate(CASES)]
)
def test_the_service_evaluates_a_case(case: Case) -> None:
    lines = Lines(case)
    alerts = Alerts([rule for rule in RULES if rule.name == case.alert], lines)
    for lines.step in range(case.steps + 1):
        alerts.look(60.0 * case.minutes * lines.step)
    assert (alerts.firing == [case.alert]) == case.fires


def apart(cases: list[Case]) -> list[list[Case]]:
    """Groups of cases of which none reads another's series: each group is one run of Prometheus' engine."""
    groups: list[tuple[set[str], list[Case]]] = []
    for case in cases:
        [rule] = [rule for rule in RULES if rule.name == case.alert]
        names = {line[0] for line in case.lines} | set(re.findall(r"tastemaker_[a-z_]+", rule.condition.promql()))
        for taken, group in groups:
            if not names & taken:
                taken |= names
                group.append(case)
                break
        else:
            groups.append((names, [case]))
    return [group for _, group in groups]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
@pytest.mark.parametrize("minutes", sorted({case.minutes for case in CASES}))
def test_prometheus_agrees(tmp_path: Path, minutes: int) -> None:
    shutil.copy(RULE_FILE, tmp_path / "rules.yml")
    tests = []
    for group in apart([case for case in CASES if case.minutes == minutes]):
        lines = [
            {
                "series": f"{name}{{{','.join(f'{key}={json.dumps(text)}' for key, text in labels.items())}}}",
                "values": f"{first}+{step}x{case.steps}",
            }
            for case in group
            for name, labels, first, step in case.lines
        ]
        asked = [
            {
                "expr": f'max(ALERTS{{alertname="{case.alert}",alertstate="firing"}})',
                "eval_time": f"{minutes * case.steps}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if case.fires else [],
            }
            for case in group
        ]
        tests.append({"interval": f"{minutes}m", "input_series": lines, "promql_expr_test": asked})
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": f"{minutes}m", "tests": tests})
    )
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"{len(RULES)} rules found" in checked.stdout


def test_every_alert_has_cases_and_a_page() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    for name in names:
        assert {case.fires for case in CASES if case.alert == name} == {True, False}, name
        page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
        assert all(f"## {head}" in page for head in ("What it means", "Look", "Do")), name
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == set(names)


def test_the_rule_file_is_that_of_the_default_settings() -> None:
    assert RULE_FILE.read_text() == prometheus(AlertSettings()), "make it anew: tastemaker health DIR --rules FILE"


def test_thresholds_have_one_source() -> None:
    changed = msgspec.structs.replace(AlertSettings(), top_share=0.77, latency_seconds=0.25, silence_seconds=90)
    text = prometheus(changed)
    assert "tastemaker_top_share_ratio > 0.77" in text
    assert 'le=~\\"0.25\\"' in text
    assert "[90s]" in text
    case = next(case for case in CASES if case.alert == "ListsCollapsed" and case.fires)
    lines = Lines(Case("ListsCollapsed", False, ((case.lines[0][0], {}, 0.75, 0),)))
    alerts = Alerts([rule for rule in rules(changed) if rule.name == "ListsCollapsed"], lines)
    for lines.step in range(30):
        alerts.look(60.0 * lines.step)
    assert alerts.firing == []


def test_an_alert_waits_ends_and_begins_again() -> None:
    lines = Lines(Case("ListsCollapsed", True, (("tastemaker_top_share_ratio", {}, 0.9, 0),)))
    [rule] = [rule for rule in RULES if rule.name == "ListsCollapsed"]
    alerts = Alerts([rule], lines)
    assert alerts.look(0) == []
    assert alerts.look(rule.seconds - 1) == []
    [change] = alerts.look(rule.seconds)
    assert (change.firing, change.began, change.value) == (True, 0, 0.9)
    lines.case = Case("", False, (("tastemaker_top_share_ratio", {}, 0.1, 0),))
    [change] = alerts.look(rule.seconds + 10)
    assert not change.firing
    assert alerts.look(rule.seconds + 20) == []


def test_history_is_thinned_and_still_knows_three_days() -> None:
    case = Case("", False, (("tastemaker_answers_total", {}, 0, 1),))
    lines, series = (
        Lines(case),
        next(one for rule in RULES if rule.name == "Degraded" for one in rule.condition.series() if "answers" in one.name),
    )
    history = History([series])
    for lines.step in range(4 * 24 * 60):
        history.add(lines.samples(), 60.0 * lines.step)
    assert len(history._times) < 1_200
    for hours in (1, 24, 72):
        assert history.increase(series, 3_600 * hours) == pytest.approx(60 * hours, abs=6)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (15, 60, 90, 3_600, 259_200)] == ["15s", "1m", "90s", "1h", "3d"]


def test_an_incident_that_is_over_burns_no_more() -> None:
    lines = Lines(Case("", False, ()))
    alerts = Alerts([rule for rule in RULES if rule.name == "ErrorBudgetFast"], lines)
    for minute in range(95):
        bad = 20.0 * min(minute, 55)
        good = ("tastemaker_request_seconds_count", {"route": "recommend", "status": "2xx"}, 100.0 * minute, 0.0)
        lines.case = Case(
            "", False, (good, ("tastemaker_request_seconds_count", {"route": "recommend", "status": "5xx"}, bad, 0.0))
        )
        alerts.look(60.0 * minute)
        if minute == 50:
            assert alerts.firing == ["ErrorBudgetFast"]
    assert alerts.firing == []  # of the last hours far too many failed, of the last half an hour none
