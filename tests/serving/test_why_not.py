"""Why an item is not in a list: each stage of the road tells it of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tastemaker.journal.append import Journal
from tastemaker.pipeline.engine import Wish
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.queries import ExplainQuery, RecommendQuery
from tastemaker.schema.rules import Cap
from tastemaker.schema.settings import ListSettings, ServingSettings, Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.wire import open_live
from toy_bundle import write_workspace
from toy_ranker import write_ranker


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    folder = tmp_path_factory.mktemp("why")
    write_workspace(folder, besides=write_ranker)
    journal = Journal.open(folder / "journal")
    service = Settings(lists=ListSettings(filter={"field": "price", "lt": 29}))
    yield Answers(open_live(folder / "bundles", journal, service=service), journal, ServingSettings(fresh_slots=0))
    journal.close()


def why(answers: Answers, item_id: str, **question: Any) -> dict[str, Any] | None:
    told = answers.explain(ExplainQuery(user_id="u0", item_id=item_id, question=RecommendQuery(**question)))
    found: dict[str, Any] | None = told["why_not"]
    assert (found is None) == (told["list"]["place"] is not None)
    return found


def test_each_stage_says_that_it_was_the_one(answers: Answers) -> None:
    live = answers.live
    best = [item.item_id for item in answers.recommend(RecommendQuery(user_id="u0", k=60)).items]
    seen = live.state.rows[int(live.state.history("u0")[0])]["item_id"]
    assert why(answers, best[0]) is None
    assert why(answers, "boots-19") == {"stage": "filter", "rule": "lists.filter of the service"}
    assert why(answers, seen) == {"stage": "filter", "rule": "seen"}
    assert why(answers, best[0], exclude=[best[0]]) == {"stage": "filter", "rule": "exclude"}
    spec = {"all": [{"field": "price", "gte": 0}, {"field": "categories", "any_of": ["coffee"]}]}
    assert why(answers, best[0], filter=spec) == {"stage": "filter", "rule": "filter: all[1]"}
    below = why(answers, best[4], k=3)
    assert below is not None
    assert (below["stage"], below["rank"], below["of"] >= 30) == ("score", 5, True)
    assert below["score"] <= below["last"]
    capped = why(answers, best[3], k=4, max_per=Cap(field="categories", count=2))
    assert capped is not None
    assert (capped["stage"], capped["rank"]) == ("select", 4)
    assert "max_per categories" in capped["rule"]
    assert why(answers, best[0], k=0) == {"stage": "select", "rule": "the list has 0 places"}


def test_what_no_source_found_is_told_with_its_places(answers: Answers) -> None:
    live = answers.live
    live.road.stages[0][1].depth = live.road.depth = 3  # type: ignore[attr-defined]
    try:
        found = live.road.recommend(live.query(live.state.history("u0")), Wish(3, live.barred()))
        far = next(
            place
            for place in range(live.channels.n_items)
            if not live.barred()[place] and place not in set(found.candidates.tolist()) and place not in live.state.history("u0")
        )
        told = why(answers, live.state.rows[far]["item_id"], k=3)
        assert told is not None
        assert told["stage"] == "source"
        assert set(told["channels"]) == set(live.channels.names)
        whole = live.channels.scores([live.query(live.state.history("u0"))])[0][0]
        assert told["channels"]["sequence"] == {"rank": int((whole > whole[far]).sum()) + 1, "cut": 3}
    finally:
        live.road.stages[0][1].depth = live.road.depth = live.settings.fusion.depth  # type: ignore[attr-defined]


def test_what_was_deleted_hidden_or_only_named_by_events(answers: Answers) -> None:
    journal = answers.journal
    journal.put_items([Item(item_id="hid", title="hiking boots", price=1.0, hidden=True)])
    journal.delete_items(["coffee-7"])
    journal.append([Event(user_id="someone", item_id="whisper", event_id="w1")])
    rules = {name: why(answers, name) for name in ("hid", "coffee-7", "whisper")}
    assert rules["hid"] == {"stage": "filter", "rule": "hidden"}
    assert rules["coffee-7"] == {"stage": "filter", "rule": "deleted"}
    assert rules["whisper"] is not None
    assert rules["whisper"]["rule"] in ("lists.filter of the service", "not in the catalogue: only events name it")


def test_the_features_with_the_largest_effect_are_those_that_the_ranker_listens_to(answers: Answers) -> None:
    best = answers.recommend(RecommendQuery(user_id="u0", k=1)).items[0].item_id
    told = answers.explain(ExplainQuery(user_id="u0", item_id=best))
    assert told["effects"]
    sizes = [abs(one["effect"]) for one in told["effects"]]
    assert sizes == sorted(sizes, reverse=True)
    assert told["effects"][0]["feature"].startswith("item_events"), "the toy ranker likes items with many events"
    assert np.isfinite(sizes).all()
