"""What one worker does besides answering: it looks at the figures and the data of all of them, and tells what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, ValuesView
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from tastemaker.journal.append import Journal
from tastemaker.journal.lines import LineReader
from tastemaker.journal.sampled import Sampled
from tastemaker.monitoring.alerts import Alerts, Change, Webhook
from tastemaker.monitoring.drift import Bins
from tastemaker.monitoring.feature_health import NOWHERE, FeatureReference, within
from tastemaker.monitoring.health import Health, NewItem, Reference
from tastemaker.monitoring.metrics import Metrics
from tastemaker.monitoring.rules import rules
from tastemaker.schema.baseline import Baseline
from tastemaker.schema.labels import parse_label
from tastemaker.schema.protocols import Asker, FloatArray
from tastemaker.schema.settings import Settings
from tastemaker.serving.answers import Answers
from tastemaker.serving.erasing import look as look_at_erasures
from tastemaker.serving.wire import Live, trained_at

REFERENCE_USERS, REFERENCE_K, VECTORS = 500, 10, 2_000
TICK = 1.0
PAUSE, MODESTY, LATEST = 0.005, 10.0, 60.0
"""Seconds between two steps of a reference; where one is called back late, so many times as late it waits besides, for so many seconds in all."""
EQUAL_FILE = "health.json"
"""What `tastemaker health` found, in the reports of the workspace; the share of equal features in it becomes a figure."""


class Watch:
    """Looks at a service.

    Args:
        settings: sections `alerts` and `profile` are read. metrics: of this worker. answers: what answers.
        journal: a connection of its own. samples: folder of the sample. reports: folder of the workspace's reports. bundles: folder of bundles, for erasures that are
            pending.

    Raises:
        SettingsError: the webhook is no address.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        answers: Answers,
        journal: Journal,
        samples: Path,
        reports: Path | None = None,
        bundles: Path | None = None,
    ) -> None:
        self.settings, self.metrics, self._answers, self._journal = settings.alerts, metrics, answers, journal
        self.health = Health(settings.alerts, metrics, settings.profile.bot_events_per_minute)
        self.alerts = Alerts(rules(settings.alerts), metrics)
        self._webhook = Webhook(settings.alerts.webhook) if settings.alerts.webhook else None
        self._samples, self._reports, self._bundles = LineReader(samples, Sampled), reports, bundles
        self._samples.skip()
        self._position, self._change = journal.marks()
        self._version = ""

    async def follow(self) -> None:
        """Looks on and on, in a thread of its own; the reference of a new bundle is made between answers."""
        thread, loop = ThreadPoolExecutor(1, thread_name_prefix="watch"), asyncio.get_running_loop()
        looked = data = 0.0
        try:
            while True:
                await asyncio.sleep(min(TICK, self.settings.seconds))
                live, now = self._answers.live, time.time()
                try:
                    if live.version != self._version:
                        self.begin(live, await _slowly(ReferenceMaker(live)), now)
                    if now - data >= self.settings.data_seconds:
                        data = now
                        live.poll()  # an idle worker is not behind
                        await loop.run_in_executor(thread, self.data, now)
                    if now - looked >= self.settings.seconds:
                        looked = now
                        await loop.run_in_executor(thread, self.figures, now)
                except Exception as error:  # whatever it is, answers go on; `WatchStopped` tells if it stays so
                    print(f"watching failed ({type(error).__name__}: {error})", flush=True)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, live: Live, reference: Reference, now: float) -> None:
        """A bundle went live."""
        self._version = live.version
        self.metrics.model(live.version, live.channels.n_items, trained_of(live), now)
        self.health.begin(reference)

    def data(self, now: float) -> None:
        """Reads what happened and what was shown since the last look, and computes the figures."""
        known = self._answers.live.known[0]
        self._read(now)
        self.metrics.set("tastemaker_events_behind", float(max(self._position - max(known, self._answers.live.known[0]), 0)))
        self.health.look(now)
        if self._bundles is not None:
            look_at_erasures(self._journal, self._bundles, self._reports, self.metrics, now)
        if self._reports is not None and (self._reports / EQUAL_FILE).is_file():
            found = msgspec.json.decode((self._reports / EQUAL_FILE).read_bytes())
            if found.get("equal") is not None:
                self.metrics.set("tastemaker_feature_equal_ratio", float(found["equal"]))
            if found.get("score_difference") is not None:
                self.metrics.set("tastemaker_score_difference_ratio", float(found["score_difference"]))

    def figures(self, now: float) -> list[Change]:
        """Evaluates the rules, and tells of changes."""
        changes = self.alerts.look(now)
        for one in changes:
            print(f"alert {one.rule.name} {'fires' if one.firing else 'ended'} {one.labels or ''}", flush=True)
        if changes and self._webhook is not None:
            self.metrics.delivered("ok" if self._webhook.send(changes) else "failed")
        return changes

    def _read(self, now: float) -> None:
        for answer in self._samples.new():
            if answer.model_version == self._version:
                self.health.shown(answer)
        while True:
            events = self._journal.tail(self._position)
            for stored in events:
                self.health.event(stored.event, now)
                self._position = stored.seq
            if len(events) < 10_000:
                break
        self.health.mark(self._position, now)
        brain, reader = self._answers.live.brain, self._answers.live.reader
        for change in self._journal.item_changes(self._change):
            self._change = change.change
            if change.item is None or not change.vector or change.vector_version != reader.version:
                continue
            vector = np.frombuffer(change.vector, dtype=np.float32)[: brain.text.width]
            self.health.item(NewItem(change.item_id, vector, change.item.price, change.item_id not in brain.index_of), now)


class ReferenceMaker:
    """Asks a bundle what it answers to a sample of its own users, one user a step; `clock` gives the moment, epoch seconds."""

    def __init__(self, live: Live, users: int = REFERENCE_USERS, seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._live, self._random = live, np.random.default_rng(seed)
        names = list(live.brain.users)
        chosen = self._random.permutation(len(names))[:users]
        self._users = [names[place] for place in chosen.tolist()]
        self._exposures: dict[str, float] = {}
        self._scores: list[float] = []
        self._values: list[np.ndarray] = []

    def steps(self) -> Iterator[None]:
        """Asks; one step is one user."""
        live = self._live
        for user in self._users:
            self._ask(live, user)
            yield

    def made(self) -> Reference:
        """What was learned."""
        live, folder = self._live, self._live.brain.folder
        path = folder / "baseline.json"
        baseline = msgspec.json.decode(path.read_bytes(), type=Baseline) if path.is_file() else None
        return Reference(
            items=live.state.n_base, exposures=self._exposures, scores=Bins.of(np.array(self._scores)),
            features=self._features(baseline), vectors=self._texts(),
            popularity=TrainEvents(live.brain.index_of, live.channels.counts), baseline=baseline,
            labels=[parse_label(text) for text in baseline.positive] if baseline is not None else [],
        )  # fmt: skip

    def _features(self, baseline: Baseline | None) -> dict[str, FeatureReference]:
        """Of each feature by name. What the bundle's lists have at one moment is no range of hours and days, so that must come from the rows of training."""
        features = self._live.state.features
        if features is None or not self._values:
            return {}
        table, read = np.concatenate(self._values), np.concatenate([within(one) for one in self._values])
        trained = baseline.features if baseline is not None else {}
        found = {}
        for place, (name, remembers) in enumerate(
            zip(features.features.names, features.features.remembering.tolist(), strict=True)
        ):
            values, rows = table[:, place], trained.get(name)
            low, high = (float(values.min()), float(values.max())) if remembers or rows is not None else NOWHERE
            if rows is not None and rows.count:
                low, high = min(low, rows.low), max(high, rows.high)
            found[name] = FeatureReference(low, high, None if remembers else Bins.of(read[:, place]))
        return found

    def _ask(self, live: Live, user: str) -> None:
        now, features = self._clock(), live.state.features
        history = live.state.history(user)
        if not len(history):
            return
        [(items, scores)] = live.best([live.query(history, Asker(user, now))], REFERENCE_K)
        self._scores += scores.tolist()
        ids = [live.state.rows[place]["item_id"] for place in items.tolist()]
        for item in ids:
            self._exposures[item] = self._exposures.get(item, 0.0) + 1
        if features is not None and ids:
            self._values.append(features.told(user, ids, features.moment(now)))

    def _texts(self) -> np.ndarray:
        n, width = self._live.state.n_base, self._live.brain.text.width
        some = np.sort(self._random.permutation(n)[:VECTORS])
        rows = self._live.channels.text.rows(some)[:, :width]
        return np.asarray(rows[np.abs(rows).sum(axis=1) > 0], dtype=np.float32)


def reference_of(live: Live, users: int = REFERENCE_USERS, clock: Callable[[], float] = time.time) -> Reference:
    """The reference of a bundle, made at once."""
    maker = ReferenceMaker(live, users, clock=clock)
    for _ in maker.steps():
        pass
    return maker.made()


def trained_of(live: Live) -> float | None:
    """When a bundle was written, epoch seconds."""
    return trained_at(live.bundle.manifest)


async def _slowly(maker: ReferenceMaker) -> Reference:
    """People come first: the later this is called back, the more others have to do, and the longer it waits."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + LATEST
    for _ in maker.steps():
        begin = loop.time()
        await asyncio.sleep(PAUSE)
        late = loop.time() - begin - PAUSE
        if late > PAUSE and loop.time() < latest:
            await asyncio.sleep(min(MODESTY * late, latest - loop.time()))
    return maker.made()


class TrainEvents(Mapping[str, float]):
    """Training events of each item of a bundle, by id.

    Args:
        index_of: item id to item index. counts: [N].
    """

    def __init__(self, index_of: Mapping[str, int], counts: FloatArray) -> None:
        self._index_of, self._counts = index_of, counts[: len(index_of)]

    def __getitem__(self, item_id: str) -> float:
        return float(self._counts[self._index_of[item_id]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index_of)

    def __len__(self) -> int:
        return len(self._counts)

    def values(self) -> ValuesView[float]:
        """All of them, without looking up any id."""
        return dict(enumerate(self._counts.tolist())).values()
