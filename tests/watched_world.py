"""A whole service in one process, asked through its HTTP application, under a clock that the test turns; people with known tastes stand before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tastemaker.data.baseline import baseline_of_log, features_of
from tastemaker.evaluation.replay import Crowd, Tastes
from tastemaker.journal.append import Journal
from tastemaker.journal.served import ServedLog
from tastemaker.monitoring.metrics import Metrics
from tastemaker.schema.events import Event
from tastemaker.schema.settings import AlertSettings, Settings
from tastemaker.serving.admission import Admission
from tastemaker.serving.answers import Answers
from tastemaker.serving.auth import KeyFile, Keyring
from tastemaker.serving.exchange import Exchange
from tastemaker.serving.http import make_app
from tastemaker.serving.releases import Releases
from tastemaker.serving.sampling import Sampler
from tastemaker.serving.watching import Watch, reference_of
from tastemaker.serving.wire import open_live
from tastemaker.serving.writer import Writer
from toy_bundle import KINDS, items, write_workspace
from toy_ranker import FEATURES, write_ranker

BEGIN = 1_800_000_000.0 - 1_800_000_000.0 % 86_400 + 36_000  # ten in the morning: many people are there
STEP = 30.0
PER_KIND, USERS, DAYS = 120, 1_500, 30


class World(AbstractContextManager["World"]):
    """The service and its people.

    Args:
        folder: an empty one. rate: lists a second over a day's mean. warm: seconds of traffic before the bundle goes live, of which its baseline is made.
        seed: of the people. features: that are told and watched.
    """

    def __init__(
        self,
        folder: Path,
        rate: float = 0.2,
        warm: float = 14_400.0,
        seed: int = 0,
        alerts: AlertSettings | None = None,
        features: Sequence[str] = FEATURES,
    ) -> None:
        self.folder, self.now = folder, BEGIN
        catalogue = items(PER_KIND)
        write_workspace(folder, catalogue, USERS, besides=partial(self._learn, features))
        settings = msgspec.structs.replace(Settings(), alerts=alerts or AlertSettings(sample=1.0, sample_rate=1_000.0))
        unhurried = msgspec.structs.replace(
            settings.serving, deadline_ms=0.0, busy_ms=0.0
        )  # nor is anything late because this machine is busy
        settings = msgspec.structs.replace(settings, serving=unhurried)
        self.settings, self.metrics = settings, Metrics()
        observe = self.metrics.observe  # the clock is turned, so how long this machine takes means nothing
        self.metrics.observe = lambda route, status, seconds: observe(route, status, 0.002)  # type: ignore[method-assign]
        self.journal = Journal.open(folder / "journal")
        live = open_live(folder / "bundles", self.journal, service=settings)
        sampler = Sampler(ServedLog(folder / "journal" / "sampled", 2), settings.alerts)
        self.answers = Answers(
            live, self.journal, settings.serving, notice=sampler.keep, clock=lambda: self.now, timed=self.metrics.stage
        )
        self.writer = Writer(Journal.open(folder / "journal"))
        exchange = Exchange(Keyring(KeyFile(folder / "keys.json")), Admission(), self.metrics, settings.serving)
        self.app = make_app(self.answers, self.writer, exchange, None, {}, Releases(folder / "bundles", folder / "reports"))
        self.loop = asyncio.new_event_loop()
        self.crowd = Crowd(
            self._tastes(catalogue, seed), self.ask, self.tell, rate, value=lambda liking: float(1 + round(40 * liking)), seed=seed
        )
        self._waiting: list[Event] = []
        self._random, self.added = np.random.default_rng(seed), 0
        self.every: list[Callable[[float], None]] = []
        for _ in range(int(warm / STEP)):
            self._traffic()
        self._begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.close()
        self.journal.close()
        self.watch._journal.close()
        self.loop.close()

    def run(self, seconds: float) -> dict[str, float]:
        """Time passes; gives the alerts that began, each with the seconds after which it did."""
        began, fired = self.now, dict[str, float]()
        while self.now < began + seconds:
            self._traffic()
            self.answers.live.poll()
            if self.now % 60 < STEP:
                self.watch.data(self.now)
            for change in self.watch.figures(self.now):
                if change.firing:
                    fired.setdefault(change.rule.name, self.now - began)
        return fired

    def ask(self, user: str, k: int) -> tuple[str, list[str]]:
        """A list, through HTTP's application."""
        answer = self.http("POST", "/v1/recommend", {"user_id": user, "k": k})
        return answer["request_id"], [one["item_id"] for one in answer["items"]]

    def tell(self, events: Sequence[Event]) -> None:
        """Events are sent at the end of the step, together."""
        self._waiting += events

    def http(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the application."""
        return self.loop.run_until_complete(self._http(method, path, json.dumps(body).encode()))

    def add_item(self) -> None:
        """The shop gets a new thing."""
        kind = list(KINDS)[int(self._random.integers(3))]
        words = KINDS[kind].split()
        brand, at = self._random.integers(20), int(self._random.integers(3))
        title = " ".join([f"brand{brand}", *words[at : at + 3], kind])
        self.added += 1
        self._places[f"new-{self.added}"] = self._places[f"{kind}-0"]  # people like it as they like others of its kind
        self.http(
            "PUT",
            f"/v1/items/new-{self.added}",
            {"title": title, "categories": [kind], "price": float(10 + self._random.integers(PER_KIND))},
        )

    def _traffic(self) -> None:
        self.crowd.step(self.now, STEP)
        for one in self.every:
            one(self.now)
        events, self._waiting = self._waiting, []
        if events:
            rows = [{name: value for name, value in msgspec.to_builtins(event).items() if value is not None} for event in events]
            self.http("POST", "/v1/events", {"events": rows})
        self.now += STEP

    def _learn(self, features: Sequence[str], payload: Path) -> None:
        """A ranker that knows the last weeks, and what its features were like in them."""
        known, events = write_ranker(payload, epoch=BEGIN - 86_400 * DAYS, days=DAYS, declared=features)
        self._trained = features_of(known.names, known.rows(events, events.gather_every(10)))

    def _begin(self) -> None:
        live = self.answers.live
        live.poll()
        catalogue = pl.read_parquet(live.brain.folder / "catalogue" / "items.parquet")
        found = msgspec.structs.replace(baseline_of_log(self.journal.scan(), catalogue), features=self._trained)
        (live.brain.folder / "baseline.json").write_bytes(msgspec.json.encode(found))
        own = Journal.open(self.folder / "journal")
        self.watch = Watch(self.settings, self.metrics, self.answers, own, self.folder / "journal" / "sampled")
        self.watch.begin(live, reference_of(live, clock=lambda: self.now), self.now)
        self.metrics.model(live.version, live.channels.n_items, self.now, self.now)

    def _tastes(self, catalogue: list[Any], seed: int) -> Tastes:
        kinds = list(KINDS)
        self._places = {item.item_id: place for place, item in enumerate(catalogue)}
        traits = np.array([[float(item.item_id.startswith(kind)) for kind in kinds] for item in catalogue])
        random = np.random.default_rng(seed)
        likes = np.array([[1.0 if user % 3 == kind else 0.1 for kind in range(3)] for user in range(USERS)])
        likes *= random.uniform(0.5, 1.0, size=(USERS, 1))
        return Tastes(
            {f"u{user}": user for user in range(USERS)},
            self._places,
            likes,
            traits,
            0.005,
            0.1,
        )

    async def _http(self, method: str, path: str, body: bytes) -> Any:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
