"""The ladder as the service shows it: in answers, in metrics, and as a refusal that says when to come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from live_service import serving
from tastemaker.journal.append import Journal
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.queries import LEVELS, RecommendQuery
from tastemaker.schema.settings import ServingSettings
from tastemaker.serving.answers import Answers
from tastemaker.serving.ladder import Busy, Ladder
from tastemaker.serving.wire import open_live
from toy_bundle import write_workspace


def test_the_wait_chooses_the_rung_and_is_forgotten() -> None:
    ladder, seen = Ladder(0.1), []
    for number in range(200):
        ladder.take(0.002 * number, 0.01 * number)
        seen.append(ladder.level)
    assert sorted(set(seen)) == [0, 1, 2, 3, 4]
    assert seen == sorted(seen), "a growing wait steps down rung by rung"
    with pytest.raises(Busy, match=r"has waited 510 ms .* Try again in 1 s"):
        ladder.take(0.51, 2.0)
    ladder.take(0.0, 60.0)
    assert ladder.level == 0, "after a pause only the latest wait counts"
    never = Ladder(0.0)
    never.take(100.0, 1.0)
    assert never.level == 0


def test_each_rung_stands_in_the_answer_and_in_the_metrics(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    journal, level = Journal.open(tmp_path / "journal"), 0
    answers = Answers(open_live(tmp_path / "bundles", journal), journal, ServingSettings(), None, lambda: level)
    metrics = Metrics()
    for level in range(5):
        answer = answers.recommend(RecommendQuery(user_id="u0" if level < 4 else "u1", k=10, filter={"field": "price", "lt": 20}))
        assert len(answer.items) == 10
        assert answer.level == level
        assert answer.degraded == ([f"load: {LEVELS[level]}"] if level else None)
        if answer.degraded:
            metrics.degraded(answer.level, answer.degraded)
    told = metrics.text().decode()
    for rung in range(1, 5):
        assert f'tastemaker_degraded_total{{level="{rung}"}} 1.0' in told
        assert f'tastemaker_degraded_parts_total{{part="load",why="{LEVELS[rung]}"}} 1.0' in told
    journal.close()


def test_who_has_waited_too_long_is_told_when_to_come_back(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    with serving(tmp_path, "--set", "serving.busy_ms=0.0001") as service:
        status, headers, body = service.raw("POST", "/v1/recommend", '{"user_id":"u0"}')
        assert status == 429
        assert headers["retry-after"] == "1"
        assert "busy" in json.loads(body)["detail"]
        assert service.raw("GET", "/readyz")[0] == 200
