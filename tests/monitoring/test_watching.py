"""What the watching worker reads: the samples and changes of now and of the live bundle's kind, and how far behind it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tastemaker.data.baseline import baseline_of_log, features_of
from tastemaker.journal.append import Journal
from tastemaker.journal.erase import erase
from tastemaker.journal.sampled import Sampled
from tastemaker.journal.served import ServedLog
from tastemaker.monitoring.alerts import Webhook
from tastemaker.monitoring.feature_health import NOWHERE
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.baseline import NumberBaseline
from tastemaker.schema.events import Event
from tastemaker.schema.items import Item
from tastemaker.schema.settings import Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.watching import Watch, reference_of
from tastemaker.serving.wire import Live, open_live
from toy_bundle import WIDTH, write_workspace
from toy_ranker import write_ranker


class Place:
    """A watched workspace, without a server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.metrics = folder, Metrics()
        write_workspace(folder)
        self.journal = Journal.open(folder / "journal")
        self.live: Live = open_live(folder / "bundles", self.journal)
        self.log = ServedLog(folder / "journal" / "sampled", 2)
        self.keep("before", self.live.version)
        settings = msgspec.structs.replace(Settings(), alerts=msgspec.structs.replace(Settings().alerts, model_days=1e-9))
        answers = Answers(self.live, self.journal, settings.serving)
        self.watch = Watch(
            settings,
            self.metrics,
            answers,
            Journal.open(folder / "journal"),
            folder / "journal" / "sampled",
            folder / "reports",
            folder / "bundles",
        )
        self.watch.begin(self.live, reference_of(self.live, 10), time.time())

    def keep(self, request_id: str, version: str) -> None:
        now = time.time()
        self.log.write(
            Sampled(
                request_id=request_id,
                user_id="u1",
                time=now,
                moment=now,
                model_version=version,
                items=["boots-1"],
                scores=[1.0],
                sources=["text"],
            )
        )

    def figure(self, name: str, **labels: str) -> float | None:
        return self.metrics.samples().get((f"tastemaker_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / "space")
    yield found
    found.journal.close()


def test_samples_of_before_and_of_other_bundles_are_left_out(place: Place) -> None:
    place.keep("now", place.live.version)
    place.keep("other", "another bundle")
    place.watch.data(time.time())
    assert place.figure("sampled_impressions_total", source="text", position="1") == 1


def test_how_far_behind_it_is(place: Place) -> None:
    place.journal.append([Event(user_id="u1", item_id="boots-1", event_id=str(number), timestamp=1.0) for number in range(7)])
    place.watch.data(time.time())
    assert place.figure("events_behind") == 7
    place.live.poll()
    place.watch.data(time.time())
    assert place.figure("events_behind") == 0


def test_vectors_of_another_encoder_are_not_compared(place: Place) -> None:
    far = [np.full(WIDTH, 9.0, dtype=np.float32).tobytes()] * 30
    for version, judged in (("another encoder", False), (place.live.reader.version, True)):
        place.journal.put_items([Item(item_id=f"{version} {number}", title="x") for number in range(30)], far, version)
        place.watch.data(time.time())
        assert (place.figure("drift_statistic", check="text vectors") is not None) == judged


def test_reports_and_erasures_become_figures(place: Place) -> None:
    (place.folder / "reports").mkdir()
    (place.folder / "reports" / "health.json").write_text('{"equal": 0.5, "score_difference": 0.25}')
    place.watch.data(time.time())
    assert place.figure("feature_equal_ratio") == 0.5
    assert place.figure("score_difference_ratio") == 0.25
    assert place.figure("erasures_pending") == 0
    erase(place.journal, "u3", now=time.time() + 1)
    place.watch.data(time.time() + 101)
    assert place.figure("erasures_pending") == 1
    assert place.figure("erasure_pending_seconds") == pytest.approx(100, abs=5)


def test_a_webhook_that_is_not_there_is_counted(place: Place) -> None:
    place.watch._webhook = Webhook("http://127.0.0.1:9/", lambda seconds: None)
    place.metrics.model(place.live.version, 10, 1.0, 1.0)
    assert [change.rule.name for change in place.watch.figures(time.time())] == ["ModelStale"]
    assert place.figure("webhook_deliveries_total", outcome="failed") == 1
    assert place.figure("webhook_deliveries_total", outcome="ok") is None


def test_items_without_a_text_are_no_part_of_the_reference(place: Place) -> None:
    place.live.channels.replace_item(0, np.zeros(place.live.reader.width, dtype=np.float32), None)
    found = reference_of(place.live, 5).vectors
    assert found is not None
    assert len(found) == place.live.state.n_base - 1


def test_what_a_feature_is_compared_with(tmp_path: Path) -> None:
    known: list[dict[str, NumberBaseline]] = []

    def learn(payload: Path) -> None:
        features, events = write_ranker(
            payload, epoch=time.time() - 86_400 * 10, days=9, declared=["item_events", "price", "time_of_day"]
        )
        known.append(features_of(features.names, features.rows(events, events)))

    write_workspace(tmp_path, besides=learn)
    journal = Journal.open(tmp_path / "journal")
    live = open_live(tmp_path / "bundles", journal)
    unknown = reference_of(live, 10).features
    assert (unknown["item_events"].read, unknown["item_events"].low < unknown["item_events"].high) == (None, True)
    assert (unknown["price.log"].low, unknown["price.log"].high) == NOWHERE, "no row of training tells its range"
    assert unknown["price.log"].read is not None
    catalogue = pl.read_parquet(live.brain.folder / "catalogue" / "items.parquet")
    baseline = msgspec.structs.replace(baseline_of_log(journal.scan(), catalogue), features=known[0])
    (live.brain.folder / "baseline.json").write_bytes(msgspec.json.encode(baseline))
    told = reference_of(live, 10).features
    day = told["time_of_day.day_sin"]
    assert (day.low, day.high) == pytest.approx((-1, 1), abs=0.05), "lists of one moment, but rows of nine days"
    assert told["item_events"].high >= max(known[0]["item_events"].high, unknown["item_events"].high)
    journal.close()
